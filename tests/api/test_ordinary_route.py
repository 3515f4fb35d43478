"""An ordinary enrolment takes a shorter way than FastAPI's; nobody can tell by the answers."""

import base64
from typing import Any

import httpx
import pytest

from service.api import ordinary_route
from tests.api.problems import problem_of

FORM: dict[str, Any] = {"files": {"sample": b"anna/1"}}


def without_ids(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in {"enrolment_id", "created_at", "request_id"}}


@pytest.fixture
def refused_by_the_short_way(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whatever comes goes FastAPI's way; the list has a line for each."""
    seen: list[str] = []

    def no_gallery(gallery_id: str) -> bool:
        seen.append(gallery_id)
        return False

    monkeypatch.setattr(ordinary_route, "_is_gallery_id", no_gallery)
    return seen


ORDINARY: list[dict[str, Any]] = [
    {**FORM, "data": {"subject_id": "S-1", "encounter_id": "E-1"}},
    {**FORM, "data": {"subject_id": "S-1", "encounter_id": "E-1"}, "headers": {"Idempotency-Key": "k-1"}},
    {"json": {"samples": [base64.b64encode(b"ben/1").decode()], "subject_id": "S-2", "encounter_id": "E-2"}},
]
REFUSED: list[dict[str, Any]] = [
    {"files": {"sample": b"noface"}},
    {"files": {"sample": b"anna/1", "other": b"x"}},
    {"content": b"nothing", "headers": {"Content-Type": "text/plain"}},
    {"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    {"content": b"{", "headers": {"Content-Type": "application/json"}},
]
ODD: list[dict[str, Any]] = [
    {**FORM, "headers": {"Idempotency-Key": "with a blank"}},
    {**FORM, "headers": {"Idempotency-Key": 129 * "x"}},
    {**FORM, "headers": {"Idempotency-Key": ""}},
    {**FORM, "headers": [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]},
]


@pytest.mark.parametrize("request_", ORDINARY)
def test_both_ways_give_one_answer(
    client: httpx.Client, gallery: str, request_: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    short = client.post(f"{gallery}/enrolments", **request_)
    seen = request.getfixturevalue("refused_by_the_short_way")
    long = client.post(f"{gallery}/enrolments", **request_)  # a repeat: it has an encounter_id
    assert len(seen) == 1
    assert short.status_code == long.status_code == 201
    assert long.headers["idempotency-replayed"] == "true"
    assert short.json() == long.json()


@pytest.mark.parametrize("request_", [*REFUSED, *ODD])
def test_both_ways_give_one_error(
    client: httpx.Client, gallery: str, request_: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    short = client.post(f"{gallery}/enrolments", **request_)
    request.getfixturevalue("refused_by_the_short_way")
    long = client.post(f"{gallery}/enrolments", **request_)
    assert short.status_code == long.status_code >= 400
    assert without_ids(short.json()) == without_ids(long.json())


@pytest.mark.parametrize("name", ["Camp", 65 * "a", "camp%0A", "ca%20mp", "-camp"])
def test_a_name_that_no_gallery_can_have_is_refused_as_everywhere(client: httpx.Client, name: str) -> None:
    enrolled = client.post(f"/v1/galleries/{name}/enrolments", **FORM)
    identified = client.post(f"/v1/galleries/{name}/identifications", **FORM)
    assert enrolled.status_code == identified.status_code == 422
    assert without_ids(enrolled.json()) == without_ids(identified.json())


def test_a_gallery_that_is_not_there_is_not_found(client: httpx.Client) -> None:
    assert problem_of(client.post("/v1/galleries/nowhere/enrolments", **FORM), 404) == "gallery_not_found"
