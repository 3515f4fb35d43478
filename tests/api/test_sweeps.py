"""Sweeps over HTTP: planned, begun, watched, cancelled."""

import time
from typing import Any

import httpx
import pytest

from tests.api.conftest import Enrol
from tests.api.problems import problem_of


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


def test_a_sweep_runs_in_the_background_and_its_cases_name_both(
    client: httpx.Client, gallery: str, enrol: Enrol
) -> None:
    enrol(b"anna/1", subject_id="S-1", encounter_id="E-1")
    enrol(b"ben/1", subject_id="S-2")
    # a threshold that nobody reached, as if the two had been imported
    client.patch(f"{gallery}", json={"review_fpir": 1e-6, "duplicate_fpir": 1e-6, "verification_fmr": 0.1})
    blurred = enrol(b"anna/2", subject_id="S-3", encounter_id="E-3")
    begun = client.post(f"{gallery}/sweeps", json={})
    assert begun.status_code == 201
    assert begun.json()["allowed_false_pairs"] == 10

    sweep = wait_until_ended(client, f"{gallery}/sweeps/{begun.json()['job_id']}")

    assert (sweep["state"], sweep["done"], sweep["total"], sweep["progress"]) == ("done", 3, 3, 1.0)
    assert (sweep["found_pairs"], sweep["seconds_left"], sweep["error_code"]) == (1, 0.0, None)
    assert client.get(f"{gallery}/sweeps").json()["items"] == [sweep]
    cases = client.get(f"{gallery}/cases").json()["items"]
    if blurred["outcome"] == "UNIQUE":
        (case,) = cases
        assert (case["kind"], case["subject_id"], case["job_id"]) == ("SWEEP", "S-3", sweep["job_id"])
        assert (case["candidate"]["subject_id"], case["candidate"]["encounter_id"]) == ("S-1", "E-1")
        assert sweep["cases_opened"] == 1
    assert False, (blurred["outcome"], cases)


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


@pytest.mark.parametrize("body", [{"allowed_false_pairs": 0}, {"allowed_false_pairs": "10"}, {"threshold": 0.4}])
def test_a_sweep_that_cannot_be(client: httpx.Client, gallery: str, body: dict[str, object]) -> None:
    assert problem_of(client.post(f"{gallery}/sweeps", json=body), 422) == "invalid_request"
