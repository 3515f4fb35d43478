"""Quality over HTTP: what answers say of a photograph, and what a gallery's gate refuses."""

import httpx
import pytest

from service.quality_rule import WORDS
from tests.api.conftest import Enrol
from tests.api.problems import problem_of

HOLD_STILL = {"code": "hold_still", "words": WORDS["hold_still"]}  # type: ignore[index]  # as it is in JSON


def set_gate(client: httpx.Client, gallery: str, gate: str) -> None:
    assert client.patch(gallery, json={"quality_gate": gate}).json()["quality_gate"] == gate


def test_an_accepted_sample_has_its_score_and_what_would_make_it_better(enrol: Enrol) -> None:
    (good,), (poor,) = enrol(b"anna/1")["samples"], enrol(b"bela/blurred")["samples"]
    assert (good["quality"]["unified"], good["advice"]) == (50, [])
    assert (poor["quality"]["unified"], poor["advice"]) == (5, [HOLD_STILL])
    assert (poor["rejection_code"], poor["reference_id"] is None) == (None, False)


def test_searches_report_quality_and_refuse_nothing(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1", subject_id="anna")
    set_gate(client, gallery, "strict")
    found = client.post(f"{gallery}/identifications", files={"sample": b"anna/blurred"}).json()
    verified = client.post(
        f"{gallery}/verifications", files={"sample": b"anna/blurred"}, data={"subject_id": "anna"}
    ).json()
    assert (found["found"], verified["matched"]) == (True, True)
    for answer in (found, verified):
        assert (answer["quality"]["unified"], answer["advice"]) == (5, [HOLD_STILL])


def test_a_refused_sample_has_a_code_and_words(client: httpx.Client, gallery: str) -> None:
    set_gate(client, gallery, "standard")
    answer = client.post(f"{gallery}/enrolments", files={"sample": b"anna/blurred"})
    assert problem_of(answer, 422) == "quality_too_low"
    assert WORDS["hold_still"] in answer.json()["message"]  # type: ignore[index]  # as it is in JSON
    assert client.get(gallery).json()["counts"]["subjects"] == 0


def test_a_refused_sample_beside_a_good_one_is_a_finding(client: httpx.Client, gallery: str) -> None:
    set_gate(client, gallery, "standard")
    files = [("sample", b"anna/blurred"), ("sample", b"anna/1")]
    made = client.post(f"{gallery}/enrolments", files=files).json()
    refused, accepted = made["samples"]
    assert (refused["rejection_code"], refused["advice"]) == ("quality_too_low", [HOLD_STILL])
    assert refused["quality"]["unified"] == 5
    assert (accepted["rejection_code"], accepted["advice"]) == (None, [])
    assert client.get(f"{gallery}/enrolments/{made['enrolment_id']}").json()["samples"] == made["samples"]
    encounter = client.get(f"{gallery}/encounters/{made['encounter_id']}").json()
    assert [template["quality"]["unified"] for template in encounter["templates"]] == [50]


@pytest.mark.parametrize("as_json", [False, True])
def test_the_gate_can_be_waived(client: httpx.Client, gallery: str, as_json: bool) -> None:
    set_gate(client, gallery, "strict")
    if as_json:
        body = {"samples": ["YW5uYS9ibHVycmVk"], "waive_quality_gate": True}  # anna/blurred
        answer = client.post(f"{gallery}/enrolments", json=body)
    else:
        answer = client.post(
            f"{gallery}/enrolments", files={"sample": b"anna/blurred"}, data={"waive_quality_gate": "true"}
        )
    assert answer.status_code == 201
    assert any("waived" in warning for warning in answer.json()["warnings"])


def test_a_withdrawn_encounter_has_no_quality_left(client: httpx.Client, gallery: str) -> None:
    set_gate(client, gallery, "standard")
    files = [("sample", b"anna/blurred"), ("sample", b"anna/1")]
    made = client.post(f"{gallery}/enrolments", files=files).json()
    client.patch(f"{gallery}/encounters/{made['encounter_id']}", json={"status": "withdrawn"})
    left = client.get(f"{gallery}/enrolments/{made['enrolment_id']}").json()["samples"]
    assert [(each["quality"], each["advice"]) for each in left] == [(None, []), (None, [])]


def test_a_gallery_is_made_with_a_gate_and_refuses_an_unknown_one(client: httpx.Client, gallery: str) -> None:
    assert client.get(gallery).json()["quality_gate"] == "off"
    made = client.post("/v1/galleries", json={"gallery_id": "gated", "quality_gate": "strict"})
    assert made.json()["quality_gate"] == "strict"
    assert problem_of(client.patch(gallery, json={"quality_gate": "harsh"}), 422) == "invalid_request"
