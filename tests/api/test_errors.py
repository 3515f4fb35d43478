"""Every error has one body, whatever causes it, and repeats nothing that the caller sent."""

import base64
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

from service.api.error_responses import retry_after_s
from service.errors import BiodedupError, IndexUnavailable, Overloaded, SampleRejected, StoreUnavailable, all_errors
from tests.api.conftest import MAX_REQUEST_BYTES, Enrol
from tests.api.live import fake_app, fake_settings
from tests.api.problems import problem_of

REJECTIONS = [error for error in all_errors(SampleRejected) if error is not SampleRejected]
SECRET = "P-4711-secret"


@pytest.mark.parametrize("error", REJECTIONS, ids=lambda error: error.code)
def test_every_rejection_has_its_code_and_status(
    client: httpx.Client, gallery: str, error: type[SampleRejected]
) -> None:
    answer = client.post(f"{gallery}/enrolments", files={"sample": f"reject {error.code}".encode()})
    assert problem_of(answer, error.status) == error.code


def test_a_full_queue_says_when_to_come_back(client: httpx.Client, gallery: str) -> None:
    answer = client.post(f"{gallery}/identifications", files={"sample": b"busy"})
    assert problem_of(answer, 429) == "overloaded"
    assert answer.headers["retry-after"] == "7"


def test_a_fault_of_ours_tells_nothing(client: httpx.Client, gallery: str) -> None:
    answer = client.post(f"{gallery}/identifications", files={"sample": b"crash"})
    assert problem_of(answer, 500) == "internal_error"
    assert "anna" not in answer.text
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/nothing/here", "not_found"),
        ("/v1/galleries/", "not_found"),
        ("/v1/galleries/none", "gallery_not_found"),
        ("/v1/galleries/none/subjects/S-1", "gallery_not_found"),
        ("/v1/galleries/none/cases", "gallery_not_found"),
        ("/v1/galleries/default/subjects/none", "subject_not_found"),
        ("/v1/galleries/default/encounters/none", "encounter_not_found"),
        ("/v1/galleries/default/enrolments/none", "enrolment_not_found"),
        ("/v1/galleries/default/cases/999999", "case_not_found"),
        ("/v1/galleries/default/cases/9223372036854775807", "case_not_found"),
    ],
)
def test_what_is_not_there(client: httpx.Client, path: str, code: str) -> None:
    assert problem_of(client.get(path), 404) == code


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/galleries", {"GET", "POST"}),
        ("DELETE", "/v1/galleries/default", {"GET", "PATCH"}),
        ("POST", "/healthz", {"GET"}),
        ("PROPFIND", "/v1/galleries/default/enrolments", {"GET", "POST"}),
        ("DELETE", "/docs", {"GET"}),
        ("POST", "/openapi.json", {"GET", "HEAD"}),
    ],
)
def test_a_method_that_a_path_does_not_answer(client: httpx.Client, method: str, path: str, allowed: set[str]) -> None:
    answer = client.request(method, path)
    assert problem_of(answer, 405) == "method_not_allowed"
    assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_a_body_of_another_kind(client: httpx.Client, gallery: str, media_type: str) -> None:
    answer = client.post(f"{gallery}/enrolments", content=b"x", headers={"Content-Type": media_type})
    assert problem_of(answer, 415) == "unsupported_media_type"


def test_a_route_for_json_refuses_a_form(client: httpx.Client) -> None:
    assert problem_of(client.post("/v1/galleries", files={"gallery_id": b"x"}), 415) == "unsupported_media_type"


def test_a_request_that_says_it_is_too_large(client: httpx.Client, gallery: str) -> None:
    answer = client.post(f"{gallery}/identifications", files={"sample": b"x" * MAX_REQUEST_BYTES})
    assert problem_of(answer, 413) == "request_too_large"


@pytest.mark.parametrize("path", ["/enrolments", "/identifications"])
def test_a_request_that_hides_its_size_is_counted_while_it_arrives(
    client: httpx.Client, gallery: str, path: str
) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="sample"\r\n\r\n'
        for _ in range(MAX_REQUEST_BYTES // 65536 + 2):
            yield b"x" * 65536
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = client.post(f"{gallery}{path}", content=chunks(), headers=headers)
    assert problem_of(answer, 413) == "request_too_large"


def test_a_withdrawn_encounter_stays_withdrawn(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    enrol(b"anna/1", encounter_id="E-1")
    client.patch(f"{gallery}/encounters/E-1", json={"status": "withdrawn"})
    answer = client.patch(f"{gallery}/encounters/E-1", json={"status": "active"})
    assert problem_of(answer, 409) == "encounter_withdrawn"


def test_the_callers_request_id_is_kept(client: httpx.Client) -> None:
    answer = client.get("/v1/galleries/none", headers={"X-Request-ID": "my-id.1_A"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "my-id.1_A"


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a/b", "a\tb"])
def test_a_request_id_of_another_form_is_replaced(client: httpx.Client, given: str) -> None:
    answer = client.get("/healthz", headers={"X-Request-ID": given})
    assert len(answer.headers["x-request-id"]) == 32


def test_answers_without_an_error_have_a_request_id_too(client: httpx.Client, gallery: str) -> None:
    assert client.get(gallery).headers["x-request-id"] != client.get(gallery).headers["x-request-id"]


BAD_FIELDS = {
    "captured_at": ["2026-05-04", "2026-05-04T09:30:00", "1777890600", "0001-01-01T00:00:00+23:59",
                    "9999-12-31T23:59:59-23:59", "2026-02-30T00:00:00Z", "2026-05-04T09:30:00+99:99",
                    "2026-05-04T25:00:00Z", SECRET],
    "site": ["a\x00b", "a\nb", "x" * 129, "\x7f"],
    "operator_ref": ["a\x1bb", "x" * 129],
    "birth_year": ["1", "9" * 5000, "-1", "1e3", "NaN", SECRET],
    "sex": [SECRET, "Female", "\x00"],
    "labels": [SECRET, "[]", "{", '{"a": 1}', '{"": "x"}', '{"a": "\\u0000"}', '{"a": "\\ud800"}',
               json.dumps({str(number): "x" for number in range(33)}), '{"' + "k" * 65 + '": "x"}',
               json.dumps({"a": "x" * 257}), "[" * 100_000],
    "subject_id": ["", "-x", "a b", "ä", "x" * 129, "a/b", "a\x00"],
    "encounter_id": ["_x", "x" * 129, "a\n"],
    "biometric_exception": ["x" * 201, "a\x00"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in BAD_FIELDS.items() for value in values if value],
    ids=lambda text: text[:24].encode("unicode_escape").decode(),
)
def test_a_wrong_field_of_a_form_is_named_and_not_repeated(
    client: httpx.Client, gallery: str, field: str, value: str
) -> None:
    files = {"sample": (None, b"anna/1"), field: (None, value.encode())}
    answer = client.post(f"{gallery}/enrolments", files=files)
    assert problem_of(answer, 422) == "invalid_request"
    assert answer.json()["message"].startswith(f"{field}")
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{", b"\xff\xfe", b'"\\ud800"', b"[" * 100_000, b'{"samples": "x"}',
        b'{"samples": ["eA"]}', b'{"samples": ["eA==\\n"]}', b'{"samples": ["\\u00e9A=="]}', b'{"samples": [1]}',
        b'{"samples": ["eA=="], "birth_year": "1990"}', b'{"samples": ["eA=="], "birth_year": 1990.5}',
        b'{"samples": ["eA=="], "birth_year": 1e999}', b'{"samples": ["eA=="], "birth_year": NaN}',
        b'{"samples": ["eA=="], "birth_year": ' + b"9" * 5000 + b"}", b'{"samples": ["eA=="], "subject_id": "\\u0000"}',
        b'{"samples": ["eA=="], "site": "\\udfff"}', b'{"samples": ["eA=="], "captured_at": 1777890600}',
        b'{"samples": ["eA=="], "labels": "{}"}', b'{"samples": ["eA=="], "labels": {"a": null}}',
        b'{"samples": ["eA=="], "P-4711-secret": 1}',
        b'{"samples": ["eA=="], "labels": {"P-4711-secret": 1}}',
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)  # fmt: skip
def test_wrong_json_is_an_invalid_request(client: httpx.Client, gallery: str, body: bytes) -> None:
    answer = client.post(f"{gallery}/enrolments", content=body, headers={"Content-Type": "application/json"})
    assert problem_of(answer, 422) == "invalid_request"
    assert SECRET not in answer.text


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", "0", "0.9", '"0.1"', "true", "1e-400"])
def test_an_error_rate_is_a_number_in_its_range(client: httpx.Client, value: str) -> None:
    content = f'{{"gallery_id": "rates", "review_fpir": {value}}}'
    answer = client.post("/v1/galleries", content=content, headers={"Content-Type": "application/json"})
    assert problem_of(answer, 422) == "invalid_request"
    assert answer.json()["message"].startswith("review_fpir")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/galleries/UPPER", "gallery_id"),
        ("/v1/galleries/a%00b", "gallery_id"),
        ("/v1/galleries/" + "x" * 65, "gallery_id"),
        ("/v1/galleries/%ff%fe", "gallery_id"),
        ("/v1/galleries/default%0A", "gallery_id"),
        ("/v1/galleries/default/subjects/%20", "subject_id"),
        ("/v1/galleries/default/subjects/%ed%a0%80", "subject_id"),
        ("/v1/galleries/default/cases/" + "9" * 30, "case_id"),
        ("/v1/galleries/default/cases/" + "9" * 5000, "case_id"),
        ("/v1/galleries/default/cases/-1", "case_id"),
        ("/v1/galleries/default/cases/1.5", "case_id"),
        ("/v1/galleries/default/enrolments?limit=0", "limit"),
        ("/v1/galleries/default/enrolments?limit=201", "limit"),
        ("/v1/galleries/default/enrolments?limit=" + "9" * 5000, "limit"),
        ("/v1/galleries/default/enrolments?after=-1", "after"),
        ("/v1/galleries/default/enrolments?after=" + "9" * 30, "after"),
        ("/v1/galleries/default/subjects?after=%00", "after"),
        ("/v1/galleries/default/encounters?subject_id=%ff", "subject_id"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named(client: httpx.Client, path: str, field: str) -> None:
    answer = client.get(path)
    assert problem_of(answer, 422) == "invalid_request"
    assert answer.json()["message"].startswith(f"{field}: ")


@pytest.mark.parametrize("key", ["", "x" * 129, "a b", "ä"])
def test_an_idempotency_key_is_visible_ascii(client: httpx.Client, gallery: str, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode("latin-1"))]
    answer = client.post(f"{gallery}/enrolments", files={"sample": b"anna/1"}, headers=headers)
    assert problem_of(answer, 422) == "invalid_request"


def test_two_idempotency_keys_are_not_one(client: httpx.Client, gallery: str) -> None:
    headers = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
    answer = client.post(f"{gallery}/enrolments", files={"sample": b"anna/1"}, headers=headers)
    assert problem_of(answer, 422) == "invalid_request"


@pytest.mark.parametrize(
    "body",
    [
        {"sample": base64.b64encode(b"anna/1").decode()},
        {"sample": base64.b64encode(b"anna/1").decode(), "subject_id": "S-1",
         "reference_sample": base64.b64encode(b"anna/1").decode()},
        {"subject_id": "S-1"},
    ],
)  # fmt: skip
def test_a_verification_needs_a_sample_and_one_other_side(
    client: httpx.Client, gallery: str, body: dict[str, str]
) -> None:
    assert problem_of(client.post(f"{gallery}/verifications", json=body), 422) == "invalid_request"


def test_a_caller_who_hangs_up_while_sending_does_no_harm(client: httpx.Client, live_url: str, gallery: str) -> None:
    address = urlsplit(live_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    connection.putrequest("POST", f"{gallery}/enrolments")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"{")
    connection.close()
    assert client.get(gallery).json()["counts"]["encounters"] == 0


async def _ask_before_the_start(folder: Path) -> httpx.Response:
    transport = httpx.ASGITransport(fake_app(fake_settings(folder)))  # which does not start the application
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.get("/v1/galleries")


def test_before_the_service_is_there_every_route_says_so(tmp_path: Path) -> None:
    assert problem_of(anyio.run(_ask_before_the_start, tmp_path), 503) == "not_ready"


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(Overloaded("x", retry_after_s=9), 9), (StoreUnavailable("x"), 2), (IndexUnavailable("x"), 2)],
)
def test_when_to_come_back(error: BiodedupError, seconds: int) -> None:
    assert retry_after_s(error) == seconds
