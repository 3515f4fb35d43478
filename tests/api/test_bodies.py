"""Forms as callers really send them, whole and broken; nothing of them touches the disk."""

import tempfile
from typing import NoReturn

import httpx
import pytest

from tests.api.problems import problem_of

HEAD = b'--b\r\nContent-Disposition: form-data; name="sample"; filename="a.jpg"\r\n\r\n'
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(
    "body",
    [
        HEAD + b"anna/1\r\n--b--\r\n",
        HEAD + b"anna/1\r\n--b--",
        HEAD + b"anna/1\r\n--b--\r\nepilogue",
        b'--b\r\nContent-Type: image/jpeg\r\nContent-Disposition: form-data; name="sample"\r\n\r\nanna/1\r\n--b--\r\n',
        b'--b\r\ncontent-disposition: form-data; name=sample; filename="\xff.jpg"\r\n\r\nanna/1\r\n--b--\r\n',
    ],
)
def test_a_form_is_read_whoever_wrote_it(client: httpx.Client, gallery: str, body: bytes) -> None:
    answer = client.post(f"{gallery}/identifications", content=body, headers=FORM)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b--\r\n",
        b"not a form at all",
        HEAD,
        HEAD + b"half of a face",
        HEAD + b"anna/1\r\n--b",
        b"--b\r\n\r\nanna/1\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nanna/1\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: form-data; name*=utf-8''sample\r\n\r\nanna/1\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="\xff\xfe"\r\n\r\nanna/1\r\n--b--\r\n',
        b"--b\r\nContent Disposition: form-data\r\n\r\nanna/1\r\n--b--\r\n",
        b"--b\r\n" + b"X-A: b\r\n" * 100 + b"\r\nanna/1\r\n--b--\r\n",
        b"--b\r\nX-A: " + b"b" * 100_000 + b"\r\n\r\nanna/1\r\n--b--\r\n",
        HEAD + b"anna/1\r\n--b\r\n" + HEAD.removeprefix(b"--b\r\n") + b"ben/1\r\n--b--\r\n",
        (HEAD + b"x\r\n") * 65 + b"--b--\r\n",
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_a_broken_form_is_an_invalid_request(client: httpx.Client, gallery: str, body: bytes) -> None:
    answer = client.post(f"{gallery}/identifications", content=body, headers=FORM)
    assert problem_of(answer, 422) == "invalid_request"


@pytest.mark.parametrize(
    "media_type",
    ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "b" * 10_000,
     "multipart/form-data; boundary*=utf-8''b", 'multipart/form-data; boundary="'],
)  # fmt: skip
def test_a_boundary_that_cannot_be_used(client: httpx.Client, gallery: str, media_type: str) -> None:
    headers = {"Content-Type": media_type}
    answer = client.post(f"{gallery}/identifications", content=HEAD + b"anna\r\n--b--", headers=headers)
    assert problem_of(answer, 422) == "invalid_request"


def test_a_field_that_nobody_knows_is_refused(client: httpx.Client, gallery: str) -> None:
    answer = client.post(f"{gallery}/enrolments", files={"sample": b"anna/1"}, data={"subjectid": "P-4711"})
    assert problem_of(answer, 422) == "invalid_request"
    assert "subject_id" in answer.json()["message"]
    assert "subjectid" not in answer.text


def test_a_field_given_twice_is_refused(client: httpx.Client, gallery: str) -> None:
    answer = client.post(f"{gallery}/enrolments", files={"sample": b"anna/1"}, data={"site": ["a", "b"]})
    assert problem_of(answer, 422) == "invalid_request"


def test_an_empty_sample_is_a_finding_about_the_sample(client: httpx.Client, gallery: str) -> None:
    answer = client.post(f"{gallery}/enrolments", files={"sample": ("a.jpg", b"", "image/jpeg")})
    assert problem_of(answer, 422) == "sample_empty"


def test_a_large_sample_stays_in_memory(client: httpx.Client, gallery: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a sample was written to disk")

    for name in ("SpooledTemporaryFile", "TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    sample = b"anna/" + b"x" * 3_000_000
    assert client.post(f"{gallery}/enrolments", files={"sample": sample}).status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        b'{"samples": [' + b"1," * 1_000_000 + b"1]}",
        b"{" + b",".join(b'"k%d": 1' % number for number in range(200_000)) + b"}",
        b'{"labels": {' + b",".join(b'"k%d": "v"' % number for number in range(200_000)) + b"}}",
    ],
    ids=["samples", "keys", "labels"],
)
def test_json_of_very_many_elements_is_refused_before_it_is_read(
    client: httpx.Client, gallery: str, body: bytes
) -> None:
    answer = client.post(f"{gallery}/enrolments", content=body, headers={"Content-Type": "application/json"})
    assert problem_of(answer, 422) == "invalid_request"
    assert "too many elements" in answer.json()["message"]


def test_a_text_of_a_form_is_short(client: httpx.Client, gallery: str) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="labels"\r\n\r\n' + b"x" * 40_000
    answer = client.post(f"{gallery}/enrolments", content=part + b"\r\n--b--\r\n", headers=FORM)
    assert problem_of(answer, 422) == "invalid_request"
    assert answer.json()["message"] == "labels: too long"
