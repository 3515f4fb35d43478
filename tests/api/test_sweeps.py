"""Sweeps over HTTP: planned, begun, watched, cancelled."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.schemas import CandidateOut
from service.domain import Lease
from service.store.sql_store import SqlStore
from tests.api.conftest import Enrol
from tests.api.live import fake_app, fake_settings, running, wait_until_ready
from tests.api.problems import problem_of
from tests.fake_embedder import DIMENSION, FakeEmbedder
from tests.records import record_of
from tests.sweeping import Crowd, crowd_of, fill


def import_crowd(var_dir: Path, crowd: Crowd, gallery_id: str = "default") -> None:
    """Write the crowd into the record of a service without its knowledge."""
    with record_of(var_dir) as store:
        fill(store, crowd, gallery_id, model_id=FakeEmbedder.model_id)


def wait_until_ended(client: httpx.Client, path: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while True:
        sweep: dict[str, Any] = client.get(path).json()
        if sweep["state"] not in {"queued", "running"}:
            return sweep
        assert time.monotonic() < deadline, sweep
        time.sleep(0.01)


def test_a_sweep_is_planned_without_being_begun(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    for name in ("anna", "ben", "carl"):
        enrol(name.encode())
    answer = client.post(f"{gallery}/sweeps", json={"allowed_false_pairs": 2, "dry_run": True})
    assert answer.status_code == 200
    plan = answer.json()
    assert (plan["templates"], plan["comparisons"], plan["allowed_false_pairs"]) == (3, 3, 2)
    assert 0 < plan["threshold"] < 1
    assert plan["expected_fnir_population"] == "synthetic people"
    assert plan["estimated_s"] > 0
    assert client.get(f"{gallery}/sweeps").json() == {"items": [], "next_after": None}


def test_a_sweep_runs_in_the_background_and_its_cases_name_both(tmp_path: Path) -> None:
    crowd = crowd_of(60, planted=20, dimension=DIMENSION)
    with running(fake_app(fake_settings(tmp_path / "var"))) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        import_crowd(tmp_path / "var", crowd)
        begun = client.post("/v1/galleries/default/sweeps", json={})
        assert begun.status_code == 201
        sweep = wait_until_ended(client, f"/v1/galleries/default/sweeps/{begun.json()['job_id']}")
        listed = client.get("/v1/galleries/default/sweeps").json()["items"]
        cases = client.get("/v1/galleries/default/cases").json()["items"]
        first = client.get(f"/v1/galleries/default/cases/{cases[0]['case_id']}").json()
        counts = client.get("/v1/galleries/default").json()["counts"]
    assert (sweep["state"], sweep["done"], sweep["total"], sweep["progress"]) == ("done", 60, 60, 1.0)
    assert (sweep["allowed_false_pairs"], sweep["seconds_left"], sweep["error_code"]) == (10, 0.0, None)
    assert listed == [sweep]
    found = {frozenset((case["subject_id"], case["candidate"]["subject_id"])) for case in cases}
    assert found == crowd.pairs(sweep["threshold"])
    assert sweep["found_pairs"] == sweep["cases_opened"] == len(cases) == counts["open_cases"]
    assert (first["kind"], first["status"], first["job_id"]) == ("SWEEP", "OPEN", sweep["job_id"])
    assert first["candidate"].keys() == {*CandidateOut.model_fields, "gallery_id"}
    assert first["candidate"]["gallery_id"] == "default"


def test_a_gallery_is_swept_against_another(tmp_path: Path) -> None:
    crowd = crowd_of(60, planted=20, dimension=DIMENSION)
    here, there = Crowd(crowd.rows[:30], crowd.subjects[:30]), Crowd(crowd.rows[30:], crowd.subjects[30:])
    with running(fake_app(fake_settings(tmp_path / "var"))) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        assert client.post("/v1/galleries", json={"gallery_id": "village"}).status_code == 201
        import_crowd(tmp_path / "var", here)
        import_crowd(tmp_path / "var", there, "village")
        body = {"other_gallery_id": "village"}
        plan = client.post("/v1/galleries/default/sweeps", json={**body, "dry_run": True}).json()
        begun = client.post("/v1/galleries/default/sweeps", json=body).json()
        sweep = wait_until_ended(client, f"/v1/galleries/default/sweeps/{begun['job_id']}")
        cases = client.get("/v1/galleries/default/cases", params={"job_id": begun["job_id"]}).json()["items"]
        others = client.get("/v1/galleries/default/cases", params={"job_id": begun["job_id"] + 1}).json()["items"]
    assert (plan["other_gallery_id"], plan["templates"], plan["comparisons"]) == ("village", 30, 900)
    assert (sweep["state"], sweep["other_gallery_id"], sweep["total"]) == ("done", "village", 30)
    within = here.pairs(sweep["threshold"]) | there.pairs(sweep["threshold"])
    found = {frozenset((case["subject_id"], case["candidate"]["subject_id"])) for case in cases}
    assert found == crowd.pairs(sweep["threshold"]) - within
    assert {case["candidate"]["gallery_id"] for case in cases} == {"village"}
    assert {case["gallery_id"] for case in cases} == {"default"}
    assert others == []


def test_galleries_that_cannot_be_compared(client: httpx.Client, gallery: str) -> None:
    for dry_run in (True, False):
        answer = client.post(f"{gallery}/sweeps", json={"other_gallery_id": "nowhere", "dry_run": dry_run})
        assert problem_of(answer, 404) == "gallery_not_found"


def test_a_sweep_goes_on_when_the_service_starts_again(tmp_path: Path) -> None:
    crowd = crowd_of(60, planted=20, dimension=DIMENSION)
    settings = fake_settings(tmp_path / "var")
    with running(fake_app(settings)) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
    import_crowd(tmp_path / "var", crowd)
    store = SqlStore(f"sqlite:///{tmp_path}/var/biodedup.sqlite")
    with store.sweeping("default") as sweeping:
        begun = sweeping.begin_sweep(10, 0.4)
        # as a process leaves it that is killed: running, with a lease that has not run out
        sweeping.lease_sweep(begun.job_id, Lease("the one process", datetime.now(UTC) + timedelta(minutes=1)))
    store.close()
    with running(fake_app(settings)) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        sweep = wait_until_ended(client, f"/v1/galleries/default/sweeps/{begun.job_id}")
    assert (sweep["state"], sweep["done"]) == ("done", 60)
    assert sweep["cases_opened"] == len(crowd.pairs(0.4))


def test_a_sweep_that_ended_stays_as_it_is_when_cancelled(client: httpx.Client, gallery: str) -> None:
    job_id = client.post(f"{gallery}/sweeps", json={}).json()["job_id"]
    done = wait_until_ended(client, f"{gallery}/sweeps/{job_id}")
    assert client.post(f"{gallery}/sweeps/{job_id}/cancellation").json() == done


def test_sweeps_that_are_not_there(client: httpx.Client, gallery: str) -> None:
    assert problem_of(client.get(f"{gallery}/sweeps/999999"), 404) == "sweep_not_found"
    assert problem_of(client.post(f"{gallery}/sweeps/999999/cancellation"), 404) == "sweep_not_found"
    for dry_run in (True, False):
        answer = client.post("/v1/galleries/nowhere/sweeps", json={"dry_run": dry_run})
        assert problem_of(answer, 404) == "gallery_not_found"


@pytest.mark.parametrize(
    "body",
    [
        {"allowed_false_pairs": 0},
        {"allowed_false_pairs": "10"},
        {"threshold": 0.4},
        {"other_gallery_id": "No Gallery"},
    ],
)
def test_a_sweep_that_cannot_be(client: httpx.Client, gallery: str, body: dict[str, object]) -> None:
    assert problem_of(client.post(f"{gallery}/sweeps", json=body), 422) == "invalid_request"
