"""Plans over HTTP: for a gallery, or for a pack before there is one."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from service.campaign import Campaign, outlook, review_threshold
from tests.api.conftest import Enrol
from tests.api.problems import problem_of
from tests.fake_embedder import fake_calibration

CALIBRATION = fake_calibration()
CAMPAIGN = {"size_end": 4000, "enrolments_per_day": 150, "duplicate_share": 0.05}


def planned(client: httpx.Client, **fields: object) -> dict[str, Any]:
    answer = client.post("/v1/plans", json={**CAMPAIGN, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_gallery_gives_its_pack_its_rates_and_its_size(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    for name in ("anna", "ben", "carl"):
        enrol(name.encode())
    client.patch(gallery, json={"review_fpir": 0.05, "duplicate_fpir": 0.002})
    gallery_id = gallery.rpartition("/")[2]
    plan = planned(client, gallery_id=gallery_id)
    assert (plan["gallery_id"], plan["pack_id"], plan["chosen_by"]) == (gallery_id, "fake", "usual")
    assert plan["campaign"] == {**CAMPAIGN, "size_now": 3, "enrolments": 3997, "days": 27}
    assert (plan["chosen"]["review_fpir"], plan["duplicate_fpir"]) == (0.05, 0.002)
    assert planned(client, gallery_id=gallery_id, size_now=1000)["campaign"]["size_now"] == 1000
    assert client.get(gallery).json()["review_fpir"] == 0.05


def test_the_figures_are_those_of_the_pack(client: httpx.Client) -> None:
    plan = planned(client, size_now=1000, review_fpir=0.03)
    expected = outlook(CALIBRATION, Campaign(1000, 4000, 150, 0.05), 0.03)
    assert plan["gallery_id"] is None
    assert plan["calibration_id"] == CALIBRATION.calibration_id
    cases = expected.whole.cases
    assert plan["chosen"]["whole"]["cases"] == {"expected": cases.expected, "low": cases.low, "high": cases.high}
    assert plan["chosen"]["capacity_needed"] == expected.capacity_needed
    assert {each["review_fpir"] for each in plan["trade_off"]} >= {0.001, 0.01, 0.03, 0.5}


def test_a_gallery_is_planned_with_the_calibration_it_chose(client: httpx.Client, gallery: str) -> None:
    own = replace(CALIBRATION, log10_fmr=CALIBRATION.log10_fmr_upper)
    client.post(f"{gallery}/calibrations", json={"calibration": json.loads(own.to_json())}).raise_for_status()
    client.put(f"{gallery}/calibration", json={"calibration_id": own.calibration_id}).raise_for_status()
    plan = planned(client, gallery_id=gallery.rpartition("/")[2], size_now=1000)
    assert plan["calibration_id"] == own.calibration_id
    assert plan["start"]["review"] == review_threshold(own, 0.01, 1000)


def test_a_capacity_and_a_share_of_misses_choose_the_setting(client: httpx.Client) -> None:
    fitting = planned(client, size_now=1000, capacity_per_day=20)
    assert fitting["chosen_by"] == "capacity_per_day"
    assert fitting["chosen"]["capacity_needed"] <= 20
    reaching = planned(client, size_now=1000, wanted_fnir=0.2)
    assert reaching["chosen_by"] == "wanted_fnir"
    assert reaching["chosen"]["fnir"]["expected"] <= 0.2


def test_what_cannot_be_had_is_an_answer_with_a_warning(client: httpx.Client) -> None:
    plan = planned(client, size_now=1000, wanted_fnir=0.0001)
    assert plan["is_reached"] is False
    assert plan["warnings"][0].startswith("This pack cannot reach it")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"size_now": 4000}, "larger at the end"),
        ({"review_fpir": 0.1, "wanted_fnir": 0.1}, "not both"),
        ({"gallery_id": "default", "pack_id": "fake"}, "not both"),
        ({"pack_id": "buffalo_s"}, "not loaded; loaded are fake"),
        ({"duplicate_share": 1}, "duplicate_share"),
        ({"people": 3}, "unknown field"),
    ],
    ids=str,
)
def test_a_plan_that_cannot_be_made_is_refused(client: httpx.Client, fields: dict[str, object], said: str) -> None:
    answer = client.post("/v1/plans", json={**CAMPAIGN, **fields})
    assert problem_of(answer, 422) == "invalid_request"
    assert said in answer.json()["message"]


def test_an_unknown_gallery_is_named(client: httpx.Client) -> None:
    answer = client.post("/v1/plans", json={**CAMPAIGN, "gallery_id": "nowhere"})
    assert problem_of(answer, 404) == "gallery_not_found"
