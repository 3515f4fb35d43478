"""Identification and verification over HTTP; neither changes anything."""

import base64

import httpx
import pytest

from tests.api.conftest import Enrol
from tests.api.problems import problem_of


def base64_of(sample: bytes) -> str:
    return base64.b64encode(sample).decode()


def test_an_enrolled_person_is_found_and_nothing_changes(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1", subject_id="S-1")
    before = client.get(gallery).json()
    body = client.post(f"{gallery}/identifications", files={"sample": b"anna/2"}).json()
    assert body["found"] is True
    assert [candidate["subject_id"] for candidate in body["candidates"]] == ["S-1"]
    assert body["searched"]["gallery_size"] == 1
    assert set(body) == {
        "gallery_id", "found", "candidates", "thresholds", "searched", "quality", "box", "advice", "warnings",
        "presentation_attack",
    }  # fmt: skip
    assert client.get(gallery).json() == before


def test_a_stranger_is_not_found(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1")
    body = client.post(f"{gallery}/identifications", json={"sample": base64_of(b"ben/1")}).json()
    assert (body["found"], body["candidates"]) == (False, [])


@pytest.mark.parametrize("files", [[], [("sample", b"a"), ("sample", b"b")], [("other", b"a")]])
def test_an_identification_takes_exactly_one_sample(
    client: httpx.Client, gallery: str, files: list[tuple[str, bytes]]
) -> None:
    answer = client.post(f"{gallery}/identifications", files=files or {"x": b""})
    assert problem_of(answer, 422) == "invalid_request"


@pytest.mark.parametrize(("sample", "matched"), [(b"anna/2", True), (b"ben/1", False)])
def test_a_sample_is_compared_with_a_subject(
    client: httpx.Client, gallery: str, enrol: Enrol, sample: bytes, *, matched: bool
) -> None:
    enrolled = enrol(b"anna/1", subject_id="S-1")
    body = client.post(f"{gallery}/verifications", files={"sample": sample}, data={"subject_id": "S-1"}).json()
    assert body["matched"] is matched
    assert (body["score"] >= body["threshold"]) is matched
    assert body["reference_id"] == enrolled["samples"][0]["reference_id"]
    assert body["verification_fmr"] == 0.001
    assert set(body) == {
        "matched", "score", "threshold", "verification_fmr", "fmr", "fmr_upper", "extrapolated", "expected_fnmr",
        "population", "calibration_id", "reference_id", "quality", "box", "advice",
        "presentation_attack", "reference_presentation_attack",
    }  # fmt: skip


def test_two_samples_are_compared_at_the_rate_that_was_asked_for(client: httpx.Client, gallery: str) -> None:
    files = {"sample": b"anna/1", "reference_sample": b"anna/2"}
    by_form = client.post(f"{gallery}/verifications", files=files, data={"verification_fmr": "1e-4"})
    body = {name: base64_of(sample) for name, sample in files.items()}
    by_json = client.post(f"{gallery}/verifications", json={**body, "verification_fmr": 1e-4})
    assert by_form.json() == by_json.json()
    assert by_form.json()["matched"] is True
    assert by_form.json()["reference_id"] is None
    assert by_form.json()["verification_fmr"] == 1e-4


def test_a_subject_that_is_not_there(client: httpx.Client, gallery: str) -> None:
    answer = client.post(f"{gallery}/verifications", files={"sample": b"anna/1"}, data={"subject_id": "S-1"})
    assert problem_of(answer, 404) == "subject_not_found"


def test_a_subject_without_an_active_template(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1", subject_id="S-1", encounter_id="E-1")
    client.patch(f"{gallery}/encounters/E-1", json={"status": "inactive"})
    answer = client.post(f"{gallery}/verifications", files={"sample": b"anna/1"}, data={"subject_id": "S-1"})
    assert problem_of(answer, 409) == "no_reference"
