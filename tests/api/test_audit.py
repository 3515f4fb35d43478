"""The audit trail over HTTP: what is written before an answer is given, and how it is read, exported and verified."""

import csv
import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from service.api.images import media_type_of
from service.audit_chain import AuditEntry
from service.audit_check import check_chain
from service.errors import StoreUnavailable
from service.store.auditing import Recorder
from tests.api.conftest import Enrol
from tests.api.problems import problem_of


def sample_of(person: int, capture: int = 1) -> bytes:
    """The whole image is what the embedder without weights takes for a face."""
    return f"person {person}/{capture}".encode()


def entries(client: httpx.Client, gallery: str, **params: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"{gallery}/audit", params={"limit": 200, **params}).json()["items"]
    return found


def last(client: httpx.Client, gallery: str) -> dict[str, Any]:
    """The newest entry but for the reading of the trail itself, which is written after the page was read."""
    return entries(client, gallery)[-1]


@pytest.fixture
def kept(client: httpx.Client, gallery: str) -> str:
    """Path of the gallery, which keeps samples."""
    client.patch(gallery, json={"keep_samples": True}).raise_for_status()
    return gallery


def test_every_way_to_see_a_person_is_an_entry_that_refers_to_them(
    client: httpx.Client, kept: str, enrol: Enrol
) -> None:
    enrol(sample_of(1), subject_id="ada", encounter_id="e-ada")
    again = enrol(sample_of(1, 2), subject_id="bob", encounter_id="e-bob")
    case_id = again["case_ids"][0]
    for path, event, people in (
        ("subjects", "subjects.listed", 2),
        ("subjects/ada", "subject.viewed", 1),
        ("encounters", "encounters.listed", 2),
        ("encounters/e-ada", "encounter.viewed", 1),
        ("encounters/e-ada/samples/0", "image.viewed", 1),
        ("enrolments", "enrolments.listed", 2),
        (f"enrolments/{again['enrolment_id']}", "enrolment.viewed", 2),
        ("cases", "cases.listed", 1),
        (f"cases/{case_id}", "case.viewed", 1),
        ("subjects/ada/access-report", "subject.reported", 1),
    ):
        client.get(f"{kept}/{path}").raise_for_status()
        found = last(client, kept)
        assert (found["event"], found["people"]) == (event, people), path


def test_every_search_is_an_entry_also_one_that_found_nobody(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(sample_of(1), subject_id="ada")
    for path, sample, fields, expected in (
        ("identifications", sample_of(1, 3), {}, ("identification.made", "found", 1)),
        ("identifications", sample_of(8), {}, ("identification.made", "not_found", 0)),
        ("identifications", b"noface", {}, ("identification.made", "no_face", 0)),
        ("verifications", sample_of(1, 3), {"subject_id": "ada"}, ("verification.made", "matched", 1)),
        ("verifications", sample_of(8), {"subject_id": "ada"}, ("verification.made", "not_matched", 1)),
        ("verifications", sample_of(8), {"subject_id": "nobody"}, ("verification.made", "subject_not_found", 0)),
    ):
        client.post(f"{gallery}/{path}", files={"sample": sample}, data=fields)
        found = last(client, gallery)
        assert (found["event"], found["outcome"], found["people"]) == expected


def test_enrolments_refused_and_answered_again_are_entries_too(client: httpx.Client, gallery: str) -> None:
    key = {"Idempotency-Key": "k-1"}
    client.post(f"{gallery}/enrolments", files={"sample": b"noface"})
    assert last(client, gallery)["event"] == "enrolment.rejected"
    for event in ("enrolment.recorded", "enrolment.replayed"):
        assert client.post(f"{gallery}/enrolments", files={"sample": sample_of(1)}, headers=key).status_code == 201
        assert last(client, gallery)["event"] == event


def test_without_its_entry_no_answer_is_given(
    client: httpx.Client, kept: str, enrol: Enrol, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol(sample_of(1), subject_id="ada", encounter_id="e-ada")

    def fail(*_: object) -> None:
        raise StoreUnavailable("the record does not answer")

    monkeypatch.setattr(Recorder, "write", fail)
    for path in ("subjects", "subjects/ada", "encounters/e-ada/samples/0", "subjects/ada/access-report", "audit"):
        assert problem_of(client.get(f"{kept}/{path}"), 503) == "store_unavailable"
    for path in ("identifications", "enrolments"):
        answer = client.post(f"{kept}/{path}", files={"sample": sample_of(1, 3)})
        assert problem_of(answer, 503) == "store_unavailable"
    monkeypatch.undo()
    assert len(client.get(f"{kept}/enrolments").json()["items"]) == 1


def test_there_is_an_entry_for_each_view_of_an_image(client: httpx.Client, kept: str, enrol: Enrol) -> None:
    for person in range(3):
        enrol(sample_of(person), subject_id=f"s-{person}", encounter_id=f"e-{person}")
    sent = {hashlib.sha256(sample_of(person)).hexdigest(): f"e-{person}" for person in range(3)}

    def view(number: int) -> str:
        answer = client.get(f"{kept}/encounters/e-{number % 3}/samples/0")
        assert answer.status_code == 200
        return sent[hashlib.sha256(answer.content).hexdigest()]

    with ThreadPoolExecutor(6) as threads:
        served = list(threads.map(view, range(60)))
    client.get(f"{kept}/encounters/e-0/samples/1")
    client.get(f"{kept}/encounters/nobody/samples/0")

    assert len(entries(client, kept, event="image.viewed")) == len(served)
    for person in range(3):
        report = client.get(f"{kept}/subjects/s-{person}/access-report").json()
        looks = [each for each in report["looks"] if each["event"] == "image.viewed"]
        assert [each["encounter_id"] for each in looks] == [f"e-{person}"] * served.count(f"e-{person}")
        assert all(each["is_proven"] for each in looks)


def test_a_kept_sample_is_given_as_it_was_sent_and_no_browser_keeps_it(
    client: httpx.Client, kept: str, enrol: Enrol
) -> None:
    enrol(sample_of(1), encounter_id="e-1")
    answer = client.get(f"{kept}/encounters/e-1/samples/0")
    assert answer.content == sample_of(1)
    assert answer.headers["content-type"] == media_type_of(sample_of(1))
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_sample_that_is_not_kept_is_not_there(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(sample_of(1), encounter_id="e-1")
    assert problem_of(client.get(f"{gallery}/encounters/e-1/samples/0"), 404) == "sample_not_found"
    assert problem_of(client.get(f"{gallery}/encounters/e-2/samples/0"), 404) == "encounter_not_found"
    assert problem_of(client.get("/v1/galleries/nowhere/encounters/e-1/samples/0"), 404) == "gallery_not_found"
    assert entries(client, gallery, event="image.viewed") == []


@pytest.mark.parametrize(
    ("image", "media_type"),
    [
        (b"\xff\xd8\xff\xe0...", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n...", "image/png"),
        (b"RIFF\0\0\0\0WEBP", "image/webp"),
        (b"MM\0*....", "image/tiff"),
        (b"<html><script>", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_the_media_type_is_what_the_bytes_say(image: bytes, media_type: str) -> None:
    assert media_type_of(image) == media_type


def test_an_export_is_the_chain_up_to_itself_and_verifies(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(sample_of(1))
    answer = client.get(f"{gallery}/audit/export")
    found = [AuditEntry.from_line(line) for line in answer.text.splitlines()]
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert [each.event for each in found] == ["gallery.created", "thresholds.changed", "enrolment.recorded"]
    assert check_chain(found).fault is None
    exported = last(client, gallery)
    assert (exported["event"], exported["outcome"], exported["seq"]) == ("audit.exported", "jsonl", 4)


def test_an_export_can_be_a_spreadsheet(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(sample_of(1))
    answer = client.get(f"{gallery}/audit/export?format=csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert [int(row["seq"]) for row in rows] == [1, 2, 3]
    assert json.loads(rows[2]["details"]) == {"cases": 0, "candidates": 0, "samples": 1}


def test_a_chain_is_verified_whole_or_in_parts(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(sample_of(1))
    first = client.post(f"{gallery}/audit/verifications", json={}).json()
    assert (first["result"], first["reached_seq"], first["is_finished"]) == ("whole", 3, True)
    rest = {"after_seq": 2, "after_hash": entries(client, gallery)[1]["hash"], "anchors": {"3": first["reached_hash"]}}
    second = client.post(f"{gallery}/audit/verifications", json=rest).json()
    assert (second["result"], second["anchors_met"]) == ("whole", 1)
    assert last(client, gallery)["outcome"] == "whole"


def test_an_anchor_that_says_otherwise_is_told(client: httpx.Client, gallery: str) -> None:
    found = client.post(f"{gallery}/audit/verifications", json={"anchors": {"1": "ab" * 32}}).json()
    assert (found["result"], found["fault_seq"]) == ("rewritten", 1)
    found = client.post(f"{gallery}/audit/verifications", json={"anchors": {"99": "ab" * 32}}).json()
    assert found["result"] == "removed"


@pytest.mark.parametrize(
    "body",
    [
        {"after_seq": 1},
        {"after_hash": "ab" * 32},
        {"after_seq": 1, "after_hash": "AB" * 32},
        {"anchors": {"0": "ab" * 32}},
        {"anchors": {"1": "ab"}},
        {"anchors": {str(number): "ab" * 32 for number in range(1, 1002)}},
        {"all": True},
    ],
)
def test_a_wrong_request_for_a_verification_is_refused(client: httpx.Client, gallery: str, body: object) -> None:
    assert problem_of(client.post(f"{gallery}/audit/verifications", json=body), 422) == "invalid_request"


def test_the_service_has_a_chain_too(client: httpx.Client) -> None:
    assert client.post("/v1/audit/verifications", json={}).json()["chain"] == ":service"
    assert "audit.verified" in {
        each["event"] for each in client.get("/v1/audit", params={"limit": 200}).json()["items"]
    }
    assert "audit.verified" in client.get("/v1/audit/export").text


def test_a_gallery_that_is_not_there_has_no_chain(client: httpx.Client) -> None:
    for answer in (
        client.get("/v1/galleries/nowhere/audit"),
        client.get("/v1/galleries/nowhere/audit/export"),
        client.post("/v1/galleries/nowhere/audit/verifications", json={}),
        client.get("/v1/galleries/nowhere/subjects/ada/access-report"),
    ):
        assert problem_of(answer, 404) == "gallery_not_found"


def test_a_report_holds_all_of_a_person_and_nothing_of_others(client: httpx.Client, kept: str, enrol: Enrol) -> None:
    enrol(sample_of(1), subject_id="ada", encounter_id="e-ada", site="Gate 4")
    enrol(sample_of(1, 2), subject_id="bob", encounter_id="e-bob")
    client.post(f"{kept}/identifications", files={"sample": sample_of(1, 3)})

    answer = client.get(f"{kept}/subjects/ada/access-report")
    report = answer.json()
    (encounter,) = report["encounters"]
    assert (encounter["facts"]["site"], encounter["kept_samples"]) == ("Gate 4", [0])
    assert encounter["enrolment"]["outcome"] == "UNIQUE"
    assert [(each["kind"], each["role"]) for each in report["cases"]] == [("DUPLICATE", "candidate")]
    assert [(each["event"], each["role"]) for each in report["looks"]] == [
        ("enrolment.recorded", "subject"),
        ("enrolment.recorded", "candidate"),
        ("identification.made", "candidate"),
        ("subject.reported", "subject"),
    ]
    assert "bob" not in answer.text
    assert '"embedding"' not in answer.text


def test_after_an_erasure_there_is_nothing_to_report(client: httpx.Client, kept: str, enrol: Enrol) -> None:
    enrol(sample_of(1), subject_id="ada", encounter_id="e-ada")
    client.get(f"{kept}/encounters/e-ada/samples/0")
    client.delete(f"{kept}/subjects/ada").raise_for_status()
    assert problem_of(client.get(f"{kept}/subjects/ada/access-report"), 404) == "subject_not_found"
    exported = client.get(f"{kept}/audit/export").text
    assert "e-ada" not in exported
    assert '"ada"' not in exported  # three letters alone may be part of a hash
    assert client.post(f"{kept}/audit/verifications", json={}).json()["result"] == "whole"
