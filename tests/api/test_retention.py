"""Retention and legal holds over HTTP: set, reported, run, held, lifted, and shown."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access import Role
from tests.api.conftest import Enrol
from tests.api.credentials import header, in_gallery
from tests.api.live import fake_app, fake_settings, running, wait_until_ready
from tests.api.problems import problem_of
from tests.api.test_audit import entries

REASON = "complaint 17 of the camp's committee"
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).isoformat()


@pytest.fixture
def filled(client: httpx.Client, gallery: str, enrol: Enrol) -> str:
    """Path of a gallery with `ada`, `bob` and `cleo`, whose campaign ended yesterday."""
    client.patch(gallery, json={"keep_samples": True}).raise_for_status()
    for number, name in enumerate(("ada", "bob", "cleo")):
        enrol(f"person {number}/1".encode(), subject_id=name, encounter_id=f"e-{name}")
    client.put(f"{gallery}/retention", json={"campaign_ends_at": YESTERDAY}).raise_for_status()
    return gallery


def reported(client: httpx.Client, gallery: str) -> dict[str, Any]:
    answer = client.post(f"{gallery}/retention/reports")
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def begin(client: httpx.Client, gallery: str, report_id: int) -> httpx.Response:
    return client.post(f"{gallery}/retention/runs", json={"report_id": report_id})


def wait_until_ended(client: httpx.Client, gallery: str, report_id: int) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while True:
        report: dict[str, Any] = client.get(f"{gallery}/retention/reports/{report_id}").json()
        if report["state"] != "running":
            return report
        assert time.monotonic() < deadline, report
        time.sleep(0.01)


def people(client: httpx.Client, gallery: str) -> list[str]:
    return [each["subject_id"] for each in client.get(f"{gallery}/subjects").json()["items"]]


def test_a_rule_is_read_as_it_was_set(client: httpx.Client, gallery: str) -> None:
    empty = client.get(f"{gallery}/retention").json()
    assert (empty["rule"]["version"], empty["rule"]["retain_days"], empty["last_report"]) == (0, None, None)
    body = {"retain_days": 730, "retain_samples_days": 180, "automatic": False}
    set_to = client.put(f"{gallery}/retention", json=body).json()
    assert client.get(f"{gallery}/retention").json() == set_to
    rule = set_to["rule"]
    assert (rule["retain_days"], rule["retain_samples_days"], rule["campaign_ends_at"]) == (730, 180, None)
    assert client.put(f"{gallery}/retention", json={}).json()["rule"]["retain_days"] is None


@pytest.mark.parametrize(
    "body",
    [
        {"retain_days": 0},
        {"retain_days": 36_501},
        {"retain_days": 10, "retain_samples_days": 10},
        {"retain_days": 1.5},
        {"campaign_ends_at": "2026-12-31"},
        {"automatic": None},
        {"days": 3},
        [],
    ],
)
def test_a_rule_that_is_none(client: httpx.Client, gallery: str, body: object) -> None:
    assert problem_of(client.put(f"{gallery}/retention", json=body), 422) == "invalid_request"
    assert client.get(f"{gallery}/retention").json()["rule"]["version"] == 0


def test_a_report_is_looked_at_and_then_run(client: httpx.Client, filled: str) -> None:
    client.put(f"{filled}/subjects/cleo/hold", json={"reason": REASON}).raise_for_status()
    report = reported(client, filled)
    assert (report["state"], report["due_subjects"], report["held"], report["total"]) == ("made", 2, 1, 0)
    lines = client.get(f"{filled}/retention/reports/{report['report_id']}/lines").json()["items"]
    assert [(each["subject_id"], each["reason"], each["held"]) for each in lines] == [
        ("ada", "campaign_ended", False),
        ("bob", "campaign_ended", False),
        ("cleo", "campaign_ended", True),
    ]
    assert people(client, filled) == ["ada", "bob", "cleo"]
    begun = begin(client, filled, report["report_id"])
    assert (begun.status_code, begun.json()["total"]) == (202, 2)
    ended = wait_until_ended(client, filled, report["report_id"])
    assert (ended["state"], ended["erased_subjects"], ended["done"], ended["error_code"]) == ("done", 2, 2, None)
    assert people(client, filled) == ["cleo"]
    assert client.get(f"{filled}/retention").json()["last_report"] == ended
    assert client.get(f"{filled}/retention/reports").json()["items"] == [ended]
    assert begin(client, filled, report["report_id"]).json() == ended
    found = [each["event"] for each in entries(client, filled)]
    for event in ("retention.changed", "retention.reported", "retention.begun", "retention.ended", "subject.erased"):
        assert event in found
    assert "subjects.listed" in found


def test_an_automatic_rule_is_reported_without_being_asked_and_erases_nobody_yet(
    client: httpx.Client, filled: str
) -> None:
    client.put(f"{filled}/retention", json={"campaign_ends_at": YESTERDAY, "automatic": True}).raise_for_status()
    deadline = time.monotonic() + 30
    while (report := client.get(f"{filled}/retention").json()["last_report"]) is None or report["state"] != "made":
        assert time.monotonic() < deadline, report
        time.sleep(0.01)
    assert (report["automatic"], report["due_subjects"], report["total"]) == (True, 3, 0)
    shown = datetime.fromisoformat(report["acts_at"]) - datetime.fromisoformat(report["made_at"])
    assert shown == timedelta(hours=24)
    assert len(people(client, filled)) == 3
    name = filled.rpartition("/")[2]
    assert f'biodedup_retention_acts_timestamp_seconds{{gallery="{name}"}} 1' in client.get("/metrics").text


def test_reports_that_may_not_be_run(client: httpx.Client, filled: str) -> None:
    first = reported(client, filled)["report_id"]
    assert problem_of(begin(client, filled, first + 1000), 404) == "retention_report_not_found"
    missing = client.get(f"{filled}/retention/reports/{first + 1000}")
    assert problem_of(missing, 404) == "retention_report_not_found"
    second = reported(client, filled)["report_id"]
    assert problem_of(begin(client, filled, first), 409) == "retention_report_expired"
    client.put(f"{filled}/retention", json={"retain_days": 5}).raise_for_status()
    assert problem_of(begin(client, filled, second), 409) == "retention_rule_changed"
    for body in ({}, {"report_id": 0}, {"report_id": "x"}, {"report_id": 2**63}):
        answer = client.post(f"{filled}/retention/runs", json=body)
        assert problem_of(answer, 422) == "invalid_request"
    assert len(people(client, filled)) == 3


def test_a_held_subject_is_erased_by_no_request(client: httpx.Client, filled: str) -> None:
    held = client.put(f"{filled}/subjects/ada/hold", json={"reason": REASON})
    assert (held.status_code, held.json()["scope"], held.json()["reason"]) == (200, "subject", REASON)
    assert problem_of(client.delete(f"{filled}/subjects/ada"), 409) == "legal_hold"
    withdrawn = client.patch(f"{filled}/encounters/e-ada", json={"status": "withdrawn"})
    assert problem_of(withdrawn, 409) == "legal_hold"
    assert client.get(f"{filled}/encounters/e-ada/samples/0").status_code == 200
    lifted = client.delete(f"{filled}/subjects/ada/hold").json()
    assert lifted == {"lifted": True, "still_held": False}
    assert client.delete(f"{filled}/subjects/ada").status_code == 200


def test_a_held_gallery_is_erased_by_no_request(client: httpx.Client, filled: str) -> None:
    client.put(f"{filled}/hold", json={"reason": REASON}).raise_for_status()
    assert problem_of(client.delete(f"{filled}/subjects/ada"), 409) == "legal_hold"
    report = reported(client, filled)
    assert (report["due_subjects"], report["held"]) == (0, 3)
    assert problem_of(begin(client, filled, report["report_id"]), 409) == "legal_hold"
    client.put(f"{filled}/subjects/ada/hold", json={"reason": REASON}).raise_for_status()
    assert client.delete(f"{filled}/subjects/ada/hold").json()["still_held"] is True
    assert client.delete(f"{filled}/hold").json()["still_held"] is False
    assert client.delete(f"{filled}/subjects/ada").status_code == 200


def test_a_hold_is_seen_where_the_subject_and_the_gallery_are(client: httpx.Client, filled: str) -> None:
    assert client.get(f"{filled}/subjects/ada").json()["legal_hold"] is None
    client.put(f"{filled}/subjects/ada/hold", json={"reason": REASON}).raise_for_status()
    seen = client.get(f"{filled}/subjects/ada")
    assert seen.json()["legal_hold"]["scope"] == "subject"
    gallery = client.get(filled).json()
    assert (gallery["legal_hold"], gallery["held_subjects"]) == (None, 1)
    client.put(f"{filled}/hold", json={"reason": REASON}).raise_for_status()
    other, gallery_answer = client.get(f"{filled}/subjects/bob"), client.get(filled)
    assert other.json()["legal_hold"]["scope"] == "gallery"
    assert gallery_answer.json()["legal_hold"]["set_by"] == other.json()["legal_hold"]["set_by"]
    report = client.get(f"{filled}/subjects/ada/access-report")
    assert report.json()["held_since"] == seen.json()["legal_hold"]["set_at"]
    listed = client.get(f"{filled}/holds")
    assert [each["subject_id"] for each in listed.json()["items"]] == [None, "ada"]
    for answer in (seen, other, gallery_answer, report, listed, client.get(f"{filled}/retention")):
        assert REASON not in answer.text
    assert client.get(f"{filled}/subjects/ada/hold").json()["reason"] == REASON
    assert client.get(f"{filled}/hold").json()["reason"] == REASON
    metrics = client.get("/metrics").text
    name = filled.rpartition("/")[2]
    assert f'biodedup_legal_holds{{gallery="{name}",kind="gallery"}} 1.0' in metrics
    assert f'biodedup_legal_holds{{gallery="{name}",kind="subject"}} 1.0' in metrics


def test_what_is_due_is_a_metric(client: httpx.Client, filled: str) -> None:
    reported(client, filled)
    name = filled.rpartition("/")[2]
    assert f'biodedup_retention_due{{gallery="{name}",kind="subjects"}} 3.0' in client.get("/metrics").text


def test_holds_that_are_not_there(client: httpx.Client, filled: str) -> None:
    for path in (f"{filled}/hold", f"{filled}/subjects/ada/hold", f"{filled}/subjects/nobody/hold"):
        assert problem_of(client.get(path), 404) == "hold_not_found"
        assert problem_of(client.delete(path), 404) == "hold_not_found"
    missing = client.put(f"{filled}/subjects/nobody/hold", json={"reason": REASON})
    assert problem_of(missing, 404) == "subject_not_found"
    nowhere = client.put("/v1/galleries/nowhere/hold", json={"reason": REASON})
    assert problem_of(nowhere, 404) == "gallery_not_found"


@pytest.mark.parametrize("reason", ["", "a" * 501, "two\nlines", None, 7])
def test_a_reason_is_a_short_line(client: httpx.Client, filled: str, reason: object) -> None:
    assert problem_of(client.put(f"{filled}/hold", json={"reason": reason}), 422) == "invalid_request"


def test_no_reason_is_in_a_file_in_clear(tmp_path: Path) -> None:
    var_dir = tmp_path / "var"
    with running(fake_app(fake_settings(var_dir))) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        gallery = "/v1/galleries/default"
        client.post(f"{gallery}/enrolments", files={"sample": b"ada/1"}, data={"subject_id": "ada"}).raise_for_status()
        for path in (f"{gallery}/hold", f"{gallery}/subjects/ada/hold"):
            client.put(path, json={"reason": REASON}).raise_for_status()
        assert holding(var_dir, REASON.encode()) == []
        assert holding(var_dir, b"ada") != []


def holding(folder: Path, trace: bytes) -> list[str]:
    return [each.name for each in folder.rglob("*") if each.is_file() and trace in each.read_bytes()]


def test_who_may_see_names_and_reasons(tmp_path: Path) -> None:
    app = fake_app(fake_settings(tmp_path / "var", auth="on"))
    with running(app) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        clients = app.state.startup.service().clients
        keys = {role: header(clients.add(role.value, (in_gallery(role),)).key) for role in Role}
        gallery = "/v1/galleries/default"
        sent = {"files": {"sample": b"ada/1"}, "data": {"subject_id": "ada"}}
        client.post(f"{gallery}/enrolments", headers=keys[Role.ENROLLER], **sent).raise_for_status()  # type: ignore[arg-type]  # by name
        supervisor = keys[Role.SUPERVISOR]
        client.put(f"{gallery}/subjects/ada/hold", json={"reason": REASON}, headers=supervisor).raise_for_status()
        client.put(f"{gallery}/retention", json={"retain_days": 1}, headers=supervisor).raise_for_status()
        report = client.post(f"{gallery}/retention/reports", headers=supervisor).json()
        auditor, analyst = keys[Role.AUDITOR], keys[Role.ANALYST]
        path = f"{gallery}/retention/reports/{report['report_id']}"
        assert client.get(path, headers=auditor).json() == report
        assert problem_of(client.get(f"{path}/lines", headers=auditor), 403) == "forbidden"
        seen = client.get(f"{gallery}/subjects/ada", headers=analyst).json()
        assert seen["legal_hold"]["set_by"] == "client:supervisor"
        assert problem_of(client.get(f"{gallery}/subjects/ada/hold", headers=analyst), 403) == "forbidden"
