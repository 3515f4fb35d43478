"""Calibrations over HTTP: listed, brought, made, chosen, and the audit trail of thresholds."""

import json
import math
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.api.conftest import Enrol
from tests.api.problems import problem_of
from tests.fake_embedder import fake_calibration
from tests.synthetic import forged

OWN = fake_calibration()
BROUGHT = replace(OWN, population="people of the north", log10_fmr=OWN.log10_fmr_upper)


def content(**changes: object) -> dict[str, Any]:
    return {"calibration": json.loads(BROUGHT.to_json()) | changes}


def test_a_calibration_is_brought_chosen_and_taken_back(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    first = enrol(b"anna")
    (own,) = client.get(f"{gallery}/calibrations").json()["items"]
    assert (own["is_used"], own["created_at"], own["population"]) == (True, None, "synthetic people")

    brought = client.post(f"{gallery}/calibrations", json=content())
    assert brought.status_code == 201
    assert (brought.json()["is_used"], brought.json()["population"]) == (False, "people of the north")
    chosen = client.put(f"{gallery}/calibration", json={"calibration_id": BROUGHT.calibration_id})
    assert chosen.status_code == 200
    assert chosen.json()["is_used"]
    second = enrol(b"ben")
    assert second["thresholds"]["calibration_id"] == BROUGHT.calibration_id
    assert second["thresholds"]["review"] > first["thresholds"]["review"]

    client.put(f"{gallery}/calibration", json={"calibration_id": own["calibration_id"]}).raise_for_status()
    assert [each["is_used"] for each in client.get(f"{gallery}/calibrations").json()["items"]] == [True, False]
    assert client.get(gallery).json()["thresholds"]["calibration_id"] == own["calibration_id"]


def test_the_audit_trail_tells_each_change_of_thresholds(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna")
    client.patch(gallery, json={"review_fpir": 0.2}).raise_for_status()
    wanted = {"event": "thresholds.changed"}
    page = client.get(f"{gallery}/audit", params={"limit": 1, **wanted}).json()
    assert page["items"][0]["details"]["reason"] == "size"
    (last,) = client.get(f"{gallery}/audit", params={"after": page["next_after"], **wanted}).json()["items"]
    assert (last["event"], last["details"]["reason"], last["details"]["review_fpir"]) == (
        "thresholds.changed",
        "rates",
        0.2,
    )


@pytest.mark.parametrize(
    "changes", [{"log10_fmr": [0.0]}, {"people": 3}, {"calibration_id": "x"}, {"scores": "many"}, {"mated_scores": 3}]
)
def test_a_calibration_that_was_changed_is_refused(client: httpx.Client, gallery: str, changes: dict[str, Any]) -> None:
    refused = client.post(f"{gallery}/calibrations", json=content(**changes))
    assert problem_of(refused, 422) == "invalid_request"
    assert "changed since" in refused.json()["message"]
    missing = {"calibration": {"people": 3}}
    assert problem_of(client.post(f"{gallery}/calibrations", json=missing), 422) == "invalid_request"


@pytest.mark.parametrize(
    "changes",
    [
        {"people": "many"},
        {"people": 1.5},
        {"mated_people": 10**400},
        {"measured_to": None},
        {"population": None},
        {"population": ["a"]},
        {"scores": [math.nan, 1.0]},
        {"mated_scores": [math.nan]},
    ],
)
def test_a_calibration_that_somebody_made_up_is_refused_and_not_kept(
    client: httpx.Client, gallery: str, changes: dict[str, Any]
) -> None:
    body = json.dumps({"calibration": forged(BROUGHT, **changes)})
    headers = {"Content-Type": "application/json"}
    refused = client.post(f"{gallery}/calibrations", content=body, headers=headers)
    assert problem_of(refused, 422) == "invalid_request"
    assert len(client.get(f"{gallery}/calibrations").json()["items"]) == 1


def test_what_cannot_be_is_told(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna")
    few = client.post(f"{gallery}/calibrations", json={})
    assert problem_of(few, 409) == "calibration_unfit"
    assert "100 people or more" in few.json()["message"]
    foreign = json.loads(replace(BROUGHT, model_id="other").to_json())
    assert problem_of(client.post(f"{gallery}/calibrations", json={"calibration": foreign}), 409) == "calibration_unfit"
    unknown = client.put(f"{gallery}/calibration", json={"calibration_id": "none"})
    assert problem_of(unknown, 404) == "calibration_not_found"
    nowhere = client.get("/v1/galleries/nowhere/calibrations")
    assert problem_of(nowhere, 404) == "gallery_not_found"
    assert problem_of(client.get("/v1/galleries/nowhere/audit"), 404) == "gallery_not_found"
