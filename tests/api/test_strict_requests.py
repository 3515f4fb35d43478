"""Requests that are made to be misread get a clear 4xx, and every answer has the headers that keep browsers calm."""

import http.client
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.api.error_responses import EXAMPLES
from service.errors import BiodedupError
from tests.api.conftest import Enrol
from tests.api.live import fake_settings, served, wait_until_ready
from tests.api.problems import problem_of
from tests.api.raw import ask, body_of, status_of

HOST = b"Host: x\r\n"
CLOSE = b"Connection: close\r\n\r\n"
SAFE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a server as `biodedup serve` runs it."""
    with served(fake_settings(tmp_path_factory.mktemp("strict") / "var")) as port:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_until_ready(client)
        yield port


def get(path: bytes, headers: bytes = HOST) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + headers + CLOSE


def post(headers: bytes, body: bytes = b"") -> bytes:
    return b"POST /v1/galleries HTTP/1.1\r\n" + HOST + headers + b"Content-Type: application/json\r\n" + CLOSE + body


BODY = b'{"gallery_id": "smuggled"}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
MISREAD = {
    "two lengths": post(LENGTH + LENGTH, BODY),
    "two different lengths": post(LENGTH + b"Content-Length: 5\r\n", BODY),
    "length and chunks": post(LENGTH + b"Transfer-Encoding: chunked\r\n", b"1a\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunks twice": post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "unknown transfer encoding": post(b"Transfer-Encoding: gzip\r\n", b""),
    "negative length": post(b"Content-Length: -1\r\n"),
    "length in words": post(b"Content-Length: ten\r\n"),
    "length with a sign": post(b"Content-Length: +26\r\n", BODY),
    "chunk size in words": post(b"Transfer-Encoding: chunked\r\n", b"zz\r\n"),
    "two hosts": get(b"/healthz", HOST + b"Host: y\r\n"),
    "no host": get(b"/healthz", b""),
    "two content types": post(LENGTH + b"Content-Type: text/plain\r\n", BODY),
    "two origins": get(b"/v1/galleries", HOST + b"Origin: a\r\nOrigin: b\r\n"),
    "encoded climb": get(b"/v1/%2e%2e/metrics"),
    "encoded slash": get(b"/v1/galleries/default%2Fsubjects"),
    "encoded backslash": get(b"/v1/galleries/default%5csubjects"),
    "climb": get(b"/v1/../metrics"),
    "climb at the end": get(b"/v1/galleries/.."),
    "double slash": get(b"//v1/galleries"),
    "backslash": get(b"/v1\\galleries"),
    "no http at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(30) + b"\r\n\r\n",
    "unknown version": b"GET /healthz HTTP/9.9\r\n" + HOST + CLOSE,
    "space before the colon": get(b"/healthz", HOST + b"X-A : b\r\n"),
    "NUL in a header": get(b"/healthz", HOST + b"X-A: a\x00b\r\n"),
    "NUL in the path": get(b"/health\x00z"),
    "a lone carriage return": get(b"/healthz", HOST + b"X-A: a\rb\r\n"),
    "parameters without end": get(b"/v1/galleries?" + b"&".join(b"a=%d" % number for number in range(60))),
}


@pytest.mark.parametrize("request_bytes", MISREAD.values(), ids=MISREAD.keys())
def test_what_could_be_misread_is_refused(port: int, request_bytes: bytes) -> None:
    answer = ask(port, request_bytes)
    assert status_of(answer) == 400, answer[:300]
    assert body_of(answer)["code"] == "request_malformed"
    assert b"connection: close" in answer.lower()
    for name, value in SAFE.items():
        assert f"{name}: {value}".encode() in answer


@pytest.mark.parametrize(
    "request_bytes",
    [get(b"/v1/galleries/" + b"a" * 9000), get(b"/v1/galleries?after=" + b"a" * 9000),
     get(b"/healthz", HOST + b"X-Long: " + b"a" * 33_000 + b"\r\n"),
     get(b"/healthz", HOST + b"".join(b"X-%d: a\r\n" % number for number in range(101)))],
    ids=["path", "query", "header", "many headers"],
)  # fmt: skip
def test_what_is_too_long_is_refused(port: int, request_bytes: bytes) -> None:
    answer = ask(port, request_bytes)
    assert (status_of(answer), body_of(answer)["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/galleries", 200),
        ("GET", "/healthz", 200),
        ("GET", "/v1/galleries/none", 404),
        ("PUT", "/v1/galleries", 405),
        ("GET", "/v1/galleries?limit=x", 422),
        ("POST", "/v1/galleries", 415),
        ("GET", "/v1/galleries/a%2Fb", 400),
    ],
)
def test_every_answer_has_the_safe_headers(client: httpx.Client, method: str, path: str, status: int) -> None:
    found = client.request(method, path)
    assert found.status_code == status
    assert {name: found.headers.get(name) for name in SAFE} == SAFE
    assert "default-src 'none'" in found.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in found.headers["content-security-policy"]
    assert "camera=()" in found.headers["permissions-policy"]
    assert "strict-transport-security" not in found.headers


def test_a_fault_of_ours_has_them_too_and_shows_no_trace(client: httpx.Client, gallery: str) -> None:
    found = client.post(f"{gallery}/identifications", files={"sample": b"crash"})
    assert problem_of(found, 500) == "internal_error"
    assert {name: found.headers.get(name) for name in SAFE} == SAFE
    assert found.json()["message"] == EXAMPLES[BiodedupError]
    assert not any(word in found.text for word in ("Traceback", "File ", "RuntimeError", "anna"))


def test_the_pages_may_run_their_own_scripts_and_nothing_elses(client: httpx.Client) -> None:
    policy = client.get("/docs").headers.get_list("content-security-policy")
    assert len(policy) == 1
    assert "default-src 'self'" in policy[0]


def test_no_answer_names_the_server(port: int) -> None:
    found = httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=10)
    assert found.status_code == 200
    assert "server" not in found.headers


@pytest.mark.parametrize(
    "body",
    [
        b'{"gallery_id": "twice", "gallery_id": "other"}',
        b'{"gallery_id": "nan", "review_fpir": NaN}',
        b'{"gallery_id": "inf", "review_fpir": -Infinity}',
        b"[" * 100_000,
        b'{"gallery_id": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"gallery_id": "big", "review_fpir": ' + b"9" * 5000 + b"}",
        b'{"gallery_id": "\\ud800"}',
        b'{"gallery_id": "a\\u0000b"}',
        '{"gallery_id": "utf16"}'.encode("utf-16"),
        b'{"gallery_id": "trailing"} {}',
        b"",
        b"null",
    ],
    ids=lambda body: body[:24].decode("latin-1"),
)
def test_json_that_readers_understand_differently_is_refused(client: httpx.Client, body: bytes) -> None:
    found = client.post("/v1/galleries", content=body, headers={"Content-Type": "application/json"})
    assert problem_of(found, 422) == "invalid_request"
    for name in ("twice", "other", "nan", "inf"):
        assert client.get(f"/v1/galleries/{name}").status_code == 404


@pytest.mark.parametrize(
    "headers",
    [{"Content-Type": "text/plain"}, {"Content-Type": "application/json; charset=utf-16"}, {"Content-Type": ""},
     {"Content-Type": "application/json", "Content-Encoding": "gzip"}, {"Content-Type": "application/jsonx"}],
    ids=str,
)  # fmt: skip
def test_other_content_types_are_refused(client: httpx.Client, headers: dict[str, str]) -> None:
    found = client.post("/v1/galleries", content=BODY, headers=headers)
    assert problem_of(found, 415) == "unsupported_media_type"


@pytest.mark.parametrize(
    "query", ["?nonsense=1", "?limit=5&nonsense=1", "?limit=5&limit=6", "?Limit=5"]
)  # fmt: skip
def test_a_misspelt_or_doubled_parameter_is_refused(client: httpx.Client, gallery: str, query: str) -> None:
    found = client.get(f"{gallery}/subjects{query}")
    assert problem_of(found, 422) == "invalid_request"
    assert client.get(f"{gallery}/subjects?limit=5").status_code == 200


def test_an_enrolment_takes_no_unknown_parameter(client: httpx.Client, gallery: str, enrol: Enrol) -> None:
    found = client.post(f"{gallery}/enrolments?dry_run=true", files={"sample": b"anna/1"})
    assert problem_of(found, 422) == "invalid_request"
    assert client.get(f"{gallery}/subjects").json()["items"] == []
    enrol(b"anna/1")


def test_chunks_that_are_whole_are_read(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(
        "POST", "/v1/galleries", iter([b'{"gallery_id":', b' "chunks"}']), {"Content-Type": "application/json"}
    )
    assert connection.getresponse().status == 201
    connection.close()


@pytest.mark.parametrize(
    ("limit", "path", "allowed"),
    [("requests", "/v1/galleries", 5), ("searches", "/v1/galleries/default/identifications", 3)],
)
def test_a_client_that_asks_too_much_is_told_when_to_come_back(
    tmp_path: Path, limit: str, path: str, allowed: int
) -> None:
    settings = fake_settings(tmp_path / "var", limit_requests_per_minute=5, limit_searches_per_minute=3)
    with served(settings) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        wait_until_ready(client)
        sample = {"sample": b"anna/1"} if limit == "searches" else None
        method = "GET" if sample is None else "POST"
        answers = [client.request(method, path, files=sample) for _ in range(allowed + 1)]
        assert [each.status_code for each in answers] == [200] * allowed + [429]
        assert problem_of(answers[-1], 429) == "rate_limited"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert client.get("/readyz").status_code == 200  # never limited: machines ask it
        assert f'biodedup_rate_limited_total{{kind="{limit}"}} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_client_that_sends_too_much_is_told_so(tmp_path: Path, *, is_chunked: bool) -> None:
    settings = fake_settings(
        tmp_path / "var", limit_mib_per_minute=1, max_request_bytes=600_000, max_sample_bytes=600_000
    )
    body = b" " * 500_000

    def content() -> Iterator[bytes] | bytes:
        return iter([body]) if is_chunked else body

    with served(settings) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        wait_until_ready(client)
        statuses = [
            client.post("/v1/galleries", content=content(), headers={"Content-Type": "application/json"}).status_code
            for _ in range(3)
        ]
    assert statuses == [422, 422, 429]
