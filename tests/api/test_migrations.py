"""A model change over HTTP: begun, watched, compared, cut over, taken back, finished."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from tests.api.live import fake_settings, running, wait_until_ready
from tests.api.problems import problem_of
from tests.migrating import NEW_PACK, OLD_BLIND, UNSEEN, two_packs
from tests.synthetic import PACK_ID, sample_of

GALLERY = "/v1/galleries/default"
MIGRATION = f"{GALLERY}/migration"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    """A service with both packs and people in it, whose samples are kept."""
    settings = fake_settings(tmp_path / "var", pack=PACK_ID, keep_samples=True)
    app = create_app(settings, packs=two_packs())
    with running(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        wait_until_ready(client)
        for person in (1, 2, UNSEEN):
            enrol(client, person, subject_id=f"S{person}")
        yield client


def enrol(client: httpx.Client, person: int, capture: int = 0, **fields: str) -> dict[str, Any]:
    answer = client.post(f"{GALLERY}/enrolments", files={"sample": sample_of(person, capture)}, data=fields)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def begin(client: httpx.Client) -> dict[str, Any]:
    answer = client.post(MIGRATION, json={"to_pack_id": NEW_PACK})
    assert answer.status_code == 201, answer.text
    return wait_for(client, "ready")


def wait_for(client: httpx.Client, stage: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while True:
        found: dict[str, Any] = client.get(MIGRATION).json()
        if found["stage"] == stage:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def step(client: httpx.Client, name: str, **body: object) -> dict[str, Any]:
    answer = client.post(f"{MIGRATION}/{name}", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_model_change_from_its_beginning_to_its_end(client: httpx.Client) -> None:
    ready = begin(client)
    assert (ready["from_pack_id"], ready["to_pack_id"], ready["ruling_pack_id"]) == (PACK_ID, NEW_PACK, PACK_ID)
    assert (ready["done"], ready["total"], ready["progress"], ready["seconds_left"]) == (3, 3, 1.0, 0.0)
    assert (ready["ruling_templates"], ready["standby_templates"], ready["paired_samples"]) == (3, 2, 2)
    assert (ready["missing_in_new"], ready["missing_in_old"], ready["error_code"]) == (1, 0, None)
    assert client.get(GALLERY).json()["standby_pack_id"] == NEW_PACK
    missing = client.get(f"{MIGRATION}/missing", params={"limit": 1}).json()
    assert missing == {"items": [{"subject_id": f"S{UNSEEN}", "reason": "unusable"}], "next_after": None}
    comparison = client.get(f"{MIGRATION}/comparison").json()
    assert (comparison["subjects"], comparison["non_mated_pairs"]) == (0, 1)
    assert [each["pack_id"] for each in comparison["packs"]] == [PACK_ID, NEW_PACK]
    index = client.get(f"{GALLERY}/index").json()
    assert (index["pack_id"], index["index_templates"]) == (PACK_ID, 3)
    assert (index["standby"]["pack_id"], index["standby"]["index_templates"]) == (NEW_PACK, 2)
    assert problem_of(client.post(f"{MIGRATION}/cut-over", json={}), 409) == "people_would_be_missed"

    cut = step(client, "cut-over", accepted_missing=1)

    assert (cut["stage"], cut["ruling_pack_id"]) == ("cut_over", NEW_PACK)
    found = client.post(f"{GALLERY}/identifications", files={"sample": sample_of(1, OLD_BLIND)}).json()
    assert [each["subject_id"] for each in found["candidates"]] == ["S1"]
    assert "1 templates are of the pack synthetic alone" in found["warnings"][-1]
    assert problem_of(client.post(f"{MIGRATION}/finish"), 409) == "people_would_be_missed"
    assert step(client, "back")["stage"] == "ready"
    step(client, "cut-over", accepted_missing=1)
    assert client.delete(f"{GALLERY}/subjects/S{UNSEEN}").status_code == 200
    assert step(client, "finish")["stage"] in {"dropping", "finished"}
    finished = wait_for(client, "finished")
    assert (finished["ruling_templates"], finished["standby_templates"], finished["done"]) == (2, 0, 2)
    assert client.get(f"{GALLERY}/index").json()["standby"] is None
    assert client.get("/readyz").json()["galleries"][0]["in_step"]


def test_a_case_of_the_standby_pack_names_both_and_the_pack(client: httpx.Client) -> None:
    begin(client)
    second = enrol(client, 1, OLD_BLIND, subject_id="again")
    assert (second["outcome"], second["case_ids"]) == ("UNIQUE", [])
    (case,) = client.get(f"{GALLERY}/cases").json()["items"]
    assert (case["kind"], case["subject_id"], case["candidate"]["subject_id"]) == ("MIGRATION", "again", "S1")
    assert case["candidate"]["pack_id"] == NEW_PACK
    assert client.get(MIGRATION).json()["cases_opened"] == 1


def test_metrics_of_a_model_change(client: httpx.Client) -> None:
    begin(client)
    step(client, "cut-over", accepted_missing=1)
    lines = client.get("/metrics").text.splitlines()
    assert 'biodedup_migration_progress{gallery="default"} 1.0' in lines
    assert 'biodedup_standby_only_templates{gallery="default"} 1.0' in lines
    assert 'biodedup_migration_templates_total{result="made"} 2.0' in lines
    assert 'biodedup_migration_templates_total{result="unusable"} 1.0' in lines


def test_steps_that_are_refused(client: httpx.Client) -> None:
    assert problem_of(client.get(MIGRATION), 404) == "migration_not_found"
    assert problem_of(client.post(MIGRATION, json={"to_pack_id": "unknown"}), 422) == "invalid_request"
    assert problem_of(client.post(MIGRATION, json={"to_pack_id": PACK_ID}), 422) == "invalid_request"
    assert problem_of(client.post("/v1/galleries/nowhere/migration", json={"to_pack_id": NEW_PACK}), 404) == (
        "gallery_not_found"
    )
    begin(client)
    assert problem_of(client.post(MIGRATION, json={"to_pack_id": NEW_PACK}), 409) == "migration_underway"
    assert problem_of(client.post(f"{MIGRATION}/finish"), 409) == "migration_not_ready"
    assert problem_of(client.post(f"{MIGRATION}/back", json={}), 409) == "migration_not_ready"
    assert problem_of(client.get(f"{MIGRATION}/missing", params={"pack_id": "other"}), 422) == "invalid_request"
    assert step(client, "cancellation")["ruling_pack_id"] == PACK_ID
    wait_for(client, "cancelled")
    assert problem_of(client.get(f"{MIGRATION}/comparison"), 409) == "migration_not_ready"


def test_a_model_change_goes_on_when_the_service_starts_again(tmp_path: Path) -> None:
    settings = fake_settings(tmp_path / "var", pack=PACK_ID, keep_samples=True)
    with running(create_app(settings, packs=two_packs())) as url, httpx.Client(base_url=url, timeout=30) as client:
        wait_until_ready(client)
        for person in range(60):
            enrol(client, person, subject_id=f"S{person}")
        client.post(MIGRATION, json={"to_pack_id": NEW_PACK}).raise_for_status()
    with running(create_app(settings, packs=two_packs())) as url, httpx.Client(base_url=url, timeout=30) as client:
        wait_until_ready(client)
        assert wait_for(client, "ready")["paired_samples"] == 60
