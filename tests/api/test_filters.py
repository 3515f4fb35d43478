"""Filters and ages over HTTP."""

import httpx
import pytest

from tests.api.conftest import Enrol
from tests.api.problems import problem_of


def test_a_new_gallery_filters_nothing_and_spares_children(client: httpx.Client, gallery: str) -> None:
    found = client.get(gallery).json()
    assert (found["filter_by_sex"], found["filter_by_birth_year"], found["birth_year_tolerance"]) == (False, False, 5)
    assert (found["min_duplicate_age"], found["review_unknown_age"]) == (18, False)
    assert found["metadata"] == {"people": 0, "disagreeing": 0, "share": None, "share_lower": 0.0, "share_upper": 1.0}


def test_the_filter_of_a_gallery_is_set_and_taken_back(client: httpx.Client, gallery: str) -> None:
    wanted = {"filter_by_sex": True, "filter_by_birth_year": True, "birth_year_tolerance": 0, "min_duplicate_age": 12}
    changed = client.patch(gallery, json={**wanted, "review_unknown_age": True}).json()
    assert {name: changed[name] for name in wanted} == wanted
    assert "not known" in changed["warnings"][-1]
    back = client.patch(gallery, json={"filter_by_sex": False, "filter_by_birth_year": False}).json()
    assert (back["filter_by_sex"], back["birth_year_tolerance"], back["warnings"]) == (False, 0, [])


@pytest.mark.parametrize("change", [{"birth_year_tolerance": -1}, {"min_duplicate_age": 121}, {"filter_by_sex": "yes"}])
def test_a_setting_that_makes_no_sense_is_refused(
    client: httpx.Client, gallery: str, change: dict[str, object]
) -> None:
    assert problem_of(client.patch(gallery, json=change), 422) == "invalid_request"


def test_wrong_metadata_is_shown_with_its_interval(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    for sex in ("female", "male"):
        enrol(f"anna/{sex}".encode(), subject_id="S-1", sex=sex)
    metadata = client.get(gallery).json()["metadata"]
    assert (metadata["people"], metadata["disagreeing"], metadata["share"]) == (1, 1, 1.0)
    assert 0 < metadata["share_lower"] < metadata["share_upper"] == 1


def test_an_answer_says_what_the_filter_left_out(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    client.patch(gallery, json={"filter_by_sex": True, "filter_by_birth_year": True})
    for number in range(4):
        enrol(f"man-{number}/1".encode(), sex="male", birth_year="1960")
    anna = enrol(b"anna/1", sex="female", birth_year="1990")
    again = enrol(b"anna/2", sex="male", birth_year="1990")
    assert anna["searched"]["filter"]["left_out"] == 4
    assert (again["searched"]["filter"]["by_sex"], again["searched"]["filter"]["birth_year_tolerance"]) == (True, 5)
    assert [each["subject_id"] for each in again["candidates"]] == [anna["subject_id"]]
    assert client.get(f"{gallery}/enrolments/{again['enrolment_id']}").json() == again


def test_a_search_is_limited_by_what_it_says_of_the_person(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    client.patch(gallery, json={"filter_by_sex": True})
    for number in range(4):
        enrol(f"man-{number}/1".encode(), sex="male")
    path = f"{gallery}/identifications"
    plain = client.post(path, files={"sample": b"anna/1"}).json()
    limited = client.post(path, files={"sample": b"anna/1"}, data={"sex": "female"}).json()
    assert plain["searched"]["filter"] is None
    assert limited["searched"]["filter"]["left_out"] == 4
    assert limited["thresholds"]["review"] < plain["thresholds"]["review"]
    assert problem_of(client.post(path, files={"sample": b"anna/1"}, data={"sex": "f"}), 422) == "invalid_request"


def test_a_child_is_reviewed_and_shown_with_its_age(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1", birth_year="2015", captured_at="2021-03-01T08:00:00Z")
    found = enrol(b"anna/2", birth_year="2015", captured_at="2026-03-01T08:00:00Z")
    assert found["outcome"] == "REVIEW"
    (candidate,) = found["candidates"]
    assert (candidate["age_at_capture"], candidate["years_between"]) == (6, 5.0)


def test_records_say_when_somebody_is_to_be_captured_anew(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    fields = {"subject_id": "S-1", "birth_year": "2015"}
    enrol(b"anna/1", encounter_id="E-1", captured_at="2024-03-01T08:00:00Z", **fields)
    enrol(b"anna/2", encounter_id="E-2", captured_at="2022-03-01T08:00:00Z", **fields)
    enrol(b"anna/3", encounter_id="E-3", **fields)
    encounters = {each["encounter_id"]: each for each in client.get(f"{gallery}/encounters").json()["items"]}
    assert encounters["E-1"]["recapture_due"].startswith("2026-03-01")
    assert (encounters["E-1"]["age_at_capture"], encounters["E-3"]["age_at_capture"]) == (9, None)
    assert encounters["E-3"]["recapture_due"] is None
    assert client.get(f"{gallery}/encounters/E-1").json() == encounters["E-1"]
    due = client.get(f"{gallery}/subjects/S-1").json()["recapture_due"]
    assert due == encounters["E-1"]["recapture_due"]
    client.patch(f"{gallery}/encounters/E-1", json={"status": "inactive"})
    assert client.get(f"{gallery}/subjects/S-1").json()["recapture_due"] == encounters["E-2"]["recapture_due"]
