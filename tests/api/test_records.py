"""Subjects, encounters, cases and galleries over HTTP."""

import httpx
import pytest

from tests.api.conftest import Enrol
from tests.api.problems import problem_of


def test_a_subject_lists_its_encounters_in_order(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    for number in (1, 2):
        enrol(f"anna/{number}".encode(), subject_id="S-1", encounter_id=f"E-{number}")
    subject = client.get(f"{gallery}/subjects/S-1").json()
    assert subject["encounter_ids"] == ["E-1", "E-2"]
    assert (subject.pop("recapture_due"), subject.pop("legal_hold")) == (None, None)
    assert client.get(f"{gallery}/subjects").json() == {"items": [subject], "next_after": None}


def test_subjects_are_paged_by_their_ids(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    for name in ("c", "a", "b"):
        enrol(name.encode(), subject_id=name)
    first = client.get(f"{gallery}/subjects", params={"limit": 2}).json()
    second = client.get(f"{gallery}/subjects", params={"limit": 2, "after": first["next_after"]}).json()
    assert [item["subject_id"] for item in first["items"] + second["items"]] == ["a", "b", "c"]
    assert second["next_after"] is None


def test_an_erased_subject_is_gone_from_every_answer(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1", subject_id="S-1")
    flagged = enrol(b"anna/2", subject_id="S-2")
    erased = client.delete(f"{gallery}/subjects/S-1")
    assert erased.status_code == 200
    parts = erased.json()["parts"]
    assert (parts["encounters"], parts["templates"], parts["samples"], parts["mentions"]) == (1, 1, 0, 1)
    assert problem_of(client.get(f"{gallery}/subjects/S-1"), 404) == "subject_not_found"
    assert problem_of(client.delete(f"{gallery}/subjects/S-1"), 404) == "subject_not_found"
    (candidate,) = client.get(f"{gallery}/enrolments/{flagged['enrolment_id']}").json()["candidates"]
    assert (candidate["subject_id"], candidate["encounter_id"], candidate["reference_id"]) == (None, None, None)
    found = client.post(f"{gallery}/identifications", files={"sample": b"anna/3"}).json()
    assert [each["subject_id"] for each in found["candidates"]] == ["S-2"]


def test_an_inactive_encounter_is_not_searched_until_it_is_active_again(
    client: httpx.Client, gallery: str, enrol: Enrol
) -> None:
    enrol(b"anna/1", encounter_id="E-1")

    def is_found() -> bool:
        found: bool = client.post(f"{gallery}/identifications", files={"sample": b"anna/2"}).json()["found"]
        return found

    before = is_found()
    changed = client.patch(f"{gallery}/encounters/E-1", json={"status": "inactive"})
    meanwhile = is_found()
    client.patch(f"{gallery}/encounters/E-1", json={"status": "active"})
    assert changed.json()["status"] == "inactive"
    assert (before, meanwhile, is_found()) == (True, False, True)


def test_a_status_is_one_of_three(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1", encounter_id="E-1")
    answer = client.patch(f"{gallery}/encounters/E-1", json={"status": "gone"})
    assert problem_of(answer, 422) == "invalid_request"
    assert answer.json()["message"].startswith("status: ")


def test_encounters_of_one_subject(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1", subject_id="S-1", encounter_id="E-1")
    enrol(b"ben/1", subject_id="S-2", encounter_id="E-2")
    page = client.get(f"{gallery}/encounters", params={"subject_id": "S-2"}).json()
    (encounter,) = page["items"]
    assert encounter == client.get(f"{gallery}/encounters/E-2").json()
    (template,) = encounter["templates"]
    assert (template["pack_id"], template["verifies"], template["position"]) == ("fake", True, 0)
    assert "embedding" not in template


def test_a_duplicate_opens_a_case(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1", subject_id="S-1")
    flagged = enrol(b"anna/2", subject_id="S-2")
    (case,) = client.get(f"{gallery}/cases").json()["items"]
    assert case["case_id"] == flagged["case_ids"][0]
    assert (case["kind"], case["status"], case["subject_id"]) == ("DUPLICATE", "OPEN", "S-2")
    assert client.get(f"{gallery}/cases/{case['case_id']}").json() == case


def test_a_human_decides_and_may_decide_anew(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1", subject_id="S-1")
    (case_id,) = enrol(b"anna/2", subject_id="S-2")["case_ids"]
    opened = client.get(f"{gallery}/cases/{case_id}").json()
    path = f"{gallery}/cases/{case_id}/decision"

    decided = client.put(path, json={"verdict": "SAME_PERSON", "decided_by": "analyst-7"}).json()
    assert (decided["status"], decided["verdict"], decided["decided_by"]) == ("DECIDED", "SAME_PERSON", "analyst-7")
    assert client.get(f"{gallery}/cases/{case_id}").json() == decided
    labels = f'gallery="{gallery.rpartition("/")[2]}",kind="DUPLICATE",verdict="SAME_PERSON"'
    series = f"biodedup_decided_cases{{{labels}}}"
    assert f"{series} 1.0" in client.get("/metrics").text

    assert client.put(path, json={"verdict": None, "decided_by": "analyst-8"}).json() == opened
    assert f"{series} 0.0" in client.get("/metrics").text
    trail = client.get(f"{gallery}/audit").json()["items"]
    assert [each["details"]["verdict"] for each in trail if each["event"] == "case.decided"] == ["SAME_PERSON", None]


def test_a_decision_needs_a_verdict_and_who_gave_it(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1", subject_id="S-1")
    (case_id,) = enrol(b"anna/2", subject_id="S-2")["case_ids"]
    path = f"{gallery}/cases/{case_id}/decision"

    for body in ({"verdict": "SAME_PERSON"}, {"decided_by": "a"}, {"verdict": "same", "decided_by": "a"}):
        assert problem_of(client.put(path, json=body), 422) == "invalid_request"
    good = {"verdict": "SAME_PERSON", "decided_by": "a"}
    assert problem_of(client.put(f"{gallery}/cases/{2**63 - 1}/decision", json=good), 404) == "case_not_found"
    client.delete(f"{gallery}/subjects/S-1")
    assert problem_of(client.put(path, json=good), 409) == "case_void"


def test_someone_else_under_the_same_registration_opens_a_continuity_case(
    client: httpx.Client, gallery: str, enrol: Enrol
) -> None:
    enrol(b"anna/1", subject_id="S-1")
    found = enrol(b"ben/1", subject_id="S-1")
    assert found["outcome"] == "REVIEW"
    assert found["continuity"]["passed"] is False
    assert [case["kind"] for case in client.get(f"{gallery}/cases").json()["items"]] == ["CONTINUITY"]


def test_a_gallery_says_what_it_holds_and_how_it_decides(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1")
    enrol(b"anna/2")
    body = client.get(gallery).json()
    assert body["counts"] == {
        "subjects": 2,
        "encounters": 2,
        "templates": 2,
        "standby_only_templates": 0,
        "biometric_exceptions": 0,
        "open_cases": 1,
        "outcomes": {"DUPLICATE": 1, "UNIQUE": 1},
    }
    assert body["thresholds"]["comparisons"] == 2
    assert body["pack_id"] == "fake"
    assert body in client.get("/v1/galleries").json()["items"]


def test_a_gallery_is_made_with_its_own_rates_and_changed(client: httpx.Client) -> None:
    wanted = {"gallery_id": "own-rates", "review_fpir": 0.05, "duplicate_fpir": 0.002, "keep_samples": True}
    made = client.post("/v1/galleries", json=wanted)
    assert made.status_code == 201
    assert {name: made.json()[name] for name in wanted} == wanted
    changed = client.patch("/v1/galleries/own-rates", json={"review_fpir": 0.1}).json()
    assert (changed["review_fpir"], changed["duplicate_fpir"], changed["keep_samples"]) == (0.1, 0.002, True)


def test_a_gallery_is_made_once(client: httpx.Client, gallery: str) -> None:
    answer = client.post("/v1/galleries", json={"gallery_id": gallery.rpartition("/")[2]})
    assert problem_of(answer, 409) == "gallery_exists"


def test_a_gallery_needs_a_pack_that_is_loaded(client: httpx.Client) -> None:
    answer = client.post("/v1/galleries", json={"gallery_id": "other", "pack_id": "buffalo_s"})
    assert problem_of(answer, 422) == "invalid_request"
    assert answer.json()["message"] == "pack_id: this pack is not loaded; loaded are fake"


@pytest.mark.parametrize("body", [{"duplicate_fpir": 0.5}, {"pack_id": "other"}, {"gallery_id": "other"}])
def test_a_change_that_cannot_be(client: httpx.Client, gallery: str, body: dict[str, object]) -> None:
    assert problem_of(client.patch(gallery, json=body), 422) == "invalid_request"
