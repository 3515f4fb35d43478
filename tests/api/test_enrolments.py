"""Enrolments over HTTP: both forms of the body, repeats, rejections, pages."""

import base64
from typing import Any

import httpx
import pytest

from tests.api.conftest import Enrol
from tests.api.problems import problem_of

FIELDS = {
    "subject_id": "P-1041",
    "encounter_id": "E-1",
    "captured_at": "2026-05-04T09:30:00+03:00",
    "site": "KE-12",
    "operator_ref": "op-7",
    "birth_year": "1990",
    "sex": "female",
    "labels": '{"campaign": "2026-spring"}',
}


def as_json(samples: list[bytes], **fields: Any) -> dict[str, Any]:
    return {"samples": [base64.b64encode(sample).decode() for sample in samples], **fields}


def test_a_new_person_is_unique(client: httpx.Client, gallery: str) -> None:
    answer = client.post(f"{gallery}/enrolments", files={"sample": b"anna/1"})
    assert answer.status_code == 201
    body = answer.json()
    assert body["outcome"] == "UNIQUE"
    assert body["candidates"] == []
    assert body["searched"] == {
        "gallery_size": 0,
        "high_water_mark": 0,
        "complete": True,
        "miss_bound": 0.0,
        "filter": None,
        "galleries": [],
    }
    assert body["samples"][0]["rejection_code"] is None
    assert body["samples"][0]["quality"]["face_width_px"] == 90.0
    assert body["thresholds"]["review_fpir"] == 0.01
    assert "idempotency-replayed" not in answer.headers


def test_another_photo_of_an_enrolled_person_is_a_duplicate_with_its_rates(enrol: Enrol) -> None:
    first = enrol(b"anna/1", subject_id="S-1")
    second = enrol(b"anna/2", subject_id="S-2")
    (candidate,) = second["candidates"]
    assert second["outcome"] == "DUPLICATE"
    assert candidate["subject_id"] == "S-1"
    assert candidate["encounter_id"] == first["encounter_id"]
    assert candidate["rank"] == 1
    assert candidate["score"] >= second["thresholds"]["duplicate"]
    assert 0 < candidate["fmr"] <= candidate["fmr_upper"] < 1e-6
    assert len(second["case_ids"]) == 1


def other_gallery(client: httpx.Client, gallery: str, number: int) -> str:
    name = f"{gallery.rsplit('/', 1)[1]}-{number}"
    assert client.post("/v1/galleries", json={"gallery_id": name}).status_code == 201
    return name


@pytest.mark.parametrize("form", ["json", "one field", "repeated field"])
def test_further_galleries_are_searched_too(client: httpx.Client, gallery: str, form: str) -> None:
    first, second = (other_gallery(client, gallery, number) for number in (1, 2))
    client.post(f"/v1/galleries/{second}/enrolments", files={"sample": b"anna/1"}, data={"subject_id": "S-1"})
    if form == "json":
        answer = client.post(f"{gallery}/enrolments", json=as_json([b"anna/2"], also_search=[first, second]))
    else:
        names = f"{first},{second}" if form == "one field" else [first, second]
        answer = client.post(f"{gallery}/enrolments", files={"sample": b"anna/2"}, data={"also_search": names})

    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert body["outcome"] == "DUPLICATE"
    assert [(each["gallery_id"], each["subject_id"]) for each in body["candidates"]] == [(second, "S-1")]
    assert [(each["gallery_id"], each["gallery_size"]) for each in body["searched"]["galleries"]] == [
        (body["gallery_id"], 0),
        (first, 0),
        (second, 1),
    ]
    assert client.get(f"{gallery}/enrolments/{body['enrolment_id']}").json() == body


@pytest.mark.parametrize("names", ["no such/name", "Camp", ",", "a,,b", ",".join(f"g{n}" for n in range(9)), "a,a"])
def test_what_names_no_galleries_is_refused(client: httpx.Client, gallery: str, names: str) -> None:
    answer = client.post(f"{gallery}/enrolments", files={"sample": b"anna/1"}, data={"also_search": names})
    assert problem_of(answer, 422) == "invalid_request"
    assert "also_search" in answer.json()["message"]


def test_an_unknown_further_gallery_is_not_found(client: httpx.Client, gallery: str) -> None:
    answer = client.post(f"{gallery}/enrolments", json=as_json([b"anna/1"], also_search=["nowhere"]))
    assert problem_of(answer, 404) == "gallery_not_found"


def test_json_and_form_say_the_same(client: httpx.Client, gallery: str) -> None:
    fields = {**FIELDS, "birth_year": 1990, "labels": {"campaign": "2026-spring"}}
    by_form = client.post(f"{gallery}/enrolments", files={"sample": b"anna/1"}, data=FIELDS)
    by_json = client.post(f"{gallery}/enrolments", json=as_json([b"anna/1"], **fields))
    assert by_form.status_code == by_json.status_code == 201
    assert by_json.headers["idempotency-replayed"] == "true"
    assert by_json.json() == by_form.json()


def test_the_facts_are_recorded(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1", **FIELDS)
    body = client.get(f"{gallery}/encounters/E-1").json()
    assert body["captured_at"] == "2026-05-04T06:30:00Z"
    assert {name: body[name] for name in ("site", "operator_ref", "birth_year", "sex", "labels")} == {
        "site": "KE-12",
        "operator_ref": "op-7",
        "birth_year": 1990,
        "sex": "female",
        "labels": {"campaign": "2026-spring"},
    }


def test_an_empty_field_of_a_form_counts_as_not_given(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    found = enrol(b"anna/1", site="", encounter_id="E-1", subject_id="")
    assert len(found["subject_id"]) == 32
    assert client.get(f"{gallery}/encounters/E-1").json()["site"] is None


def test_a_repeat_with_the_same_key_gets_the_first_answer(client: httpx.Client, gallery: str) -> None:
    send = {"files": {"sample": b"anna/1"}, "headers": {"Idempotency-Key": "key-1"}}
    first, second = (client.post(f"{gallery}/enrolments", **send) for _ in range(2))  # type: ignore[arg-type]
    assert second.status_code == 201
    assert second.json() == first.json()
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"


def test_the_key_with_other_content_is_refused(client: httpx.Client, gallery: str) -> None:
    headers = {"Idempotency-Key": "key-1"}
    client.post(f"{gallery}/enrolments", files={"sample": b"anna/1"}, headers=headers)
    answer = client.post(f"{gallery}/enrolments", files={"sample": b"ben/1"}, headers=headers)
    assert problem_of(answer, 409) == "idempotency_key_reused"


def test_an_encounter_id_with_other_content_is_refused(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1", encounter_id="E-1")
    answer = client.post(f"{gallery}/enrolments", files={"sample": b"ben/1"}, data={"encounter_id": "E-1"})
    assert problem_of(answer, 409) == "encounter_exists"


def test_a_usable_sample_is_enough(client: httpx.Client, gallery: str) -> None:
    files = [("sample", b"noface"), ("sample", b"anna/1")]
    body = client.post(f"{gallery}/enrolments", files=files).json()
    assert [sample["rejection_code"] for sample in body["samples"]] == ["no_face", None]
    assert [sample["position"] for sample in body["samples"]] == [0, 1]


def test_a_person_without_a_usable_face_is_recorded_and_never_unique(client: httpx.Client, gallery: str) -> None:
    answer = client.post(f"{gallery}/enrolments", json={"samples": [], "biometric_exception": "burns"})
    assert answer.status_code == 201
    assert answer.json()["outcome"] == "NOT_COMPARED"
    assert answer.json()["thresholds"] is None
    assert client.get(gallery).json()["counts"]["biometric_exceptions"] == 1


def test_a_form_without_files_can_name_a_biometric_exception(client: httpx.Client, gallery: str) -> None:
    answer = client.post(f"{gallery}/enrolments", files={"biometric_exception": (None, b"burns")})
    assert answer.json()["biometric_exception"] == "burns"


@pytest.mark.parametrize("count", [0, 4])
def test_too_few_and_too_many_samples_are_refused(client: httpx.Client, gallery: str, count: int) -> None:
    answer = client.post(f"{gallery}/enrolments", json=as_json([b"anna/1"] * count))
    assert problem_of(answer, 422) == "invalid_request"
    assert "sample" in answer.json()["message"]


def test_enrolments_are_read_back_page_by_page(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    made = [enrol(f"person {number}".encode()) for number in range(5)]
    found: list[dict[str, Any]] = []
    after: str | None = None
    for _ in range(3):
        page = client.get(f"{gallery}/enrolments", params={"limit": 2, **({"after": after} if after else {})}).json()
        found += page["items"]
        after = page["next_after"]
    assert after is None
    assert found == made
    assert client.get(f"{gallery}/enrolments/{made[3]['enrolment_id']}").json() == made[3]


def test_reading_an_enrolment_that_is_not_there(client: httpx.Client, gallery: str) -> None:
    assert problem_of(client.get(f"{gallery}/enrolments/none"), 404) == "enrolment_not_found"
