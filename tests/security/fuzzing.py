"""Fuzzing of what callers send: images, forms and JSON, changed at random from the corpus, by hypothesis."""

import json
import struct
from collections.abc import Callable
from typing import Any

import httpx
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.security.corpus import BOUNDARY, forms, images, json_bodies, json_texts

Send = Callable[..., httpx.Response]
"""As `httpx.Client.request`."""

_DEFAULT = "/v1/galleries/default"
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_LONGEST = 40_000  # bytes of a changed text


@st.composite
def changed(draw: st.DrawFn, corpus: tuple[bytes, ...]) -> bytes:
    """Draw a text of the corpus with up to eight changes, each anywhere."""
    found = bytearray(draw(st.sampled_from(corpus)))
    for _ in range(draw(st.integers(0, 8))):
        start = draw(st.integers(0, len(found)))
        kind = draw(st.sampled_from(("set", "number", "insert", "drop", "repeat", "cut", "join")))
        if kind == "set" and start < len(found):
            found[start] = draw(st.integers(0, 255))
        elif kind == "number":
            form = draw(st.sampled_from((">B", ">H", "<H", ">I", "<I")))
            packed = struct.pack(form, draw(st.sampled_from(_NUMBERS)) & (256 ** struct.calcsize(form) - 1))
            found[start : start + len(packed)] = packed
        elif kind == "insert":
            found[start:start] = draw(st.binary(max_size=20))
        elif kind == "drop":
            del found[start : start + draw(st.integers(1, 40))]
        elif kind == "repeat":
            found[start:start] = found[start : start + draw(st.integers(1, 200))] * draw(st.integers(1, 20))
        elif kind == "cut":
            del found[start:]
        else:
            found[start:] = draw(st.sampled_from(corpus))[start:]
    return bytes(found[:_LONGEST])


_JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=200)
    | st.sampled_from(("S-1", "off", "1e9")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def json_requests(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Draw an operation and a body: its own with some fields changed, or a text that is hardly JSON."""
    method, path, body = draw(st.sampled_from(json_bodies()))
    if draw(st.integers(0, 3)) == 0:
        return method, path, draw(changed((*json_texts(), json.dumps(body).encode())))
    whole: dict[str, Any] = dict(body)
    for name in draw(st.lists(st.sampled_from(sorted(body)) if body else st.text(max_size=8), max_size=3)):
        whole[name] = draw(_JSON_VALUES)
    if draw(st.booleans()):
        whole[draw(st.text(max_size=20))] = draw(_JSON_VALUES)
    return method, path, json.dumps(whole).encode()


def fuzz_images(send: Send, examples: int, number: int = 0) -> None:
    """Send changed pictures as samples. Raises AssertionError: an answer is a fault; with the smallest such picture."""

    def check(data: bytes) -> None:
        expect_no_fault(send("POST", f"{_DEFAULT}/identifications", files={"sample": data}))

    _run(changed(images()), check, examples, number)


def fuzz_forms(send: Send, examples: int, number: int = 0) -> None:
    """Send changed forms, some with another boundary than they have. Raises AssertionError."""
    boundaries = st.sampled_from((BOUNDARY,) * 6 + (b"", b'"', b"x" * 80, b"\xff", b"x-boundary; charset=utf-16"))
    routes = st.sampled_from(("enrolments", "identifications", "verifications"))

    def check(drawn: tuple[bytes, bytes, str]) -> None:
        body, boundary, route = drawn
        headers = {"Content-Type": b"multipart/form-data; boundary=" + boundary}
        expect_no_fault(send("POST", f"{_DEFAULT}/{route}", content=body, headers=headers))

    _run(st.tuples(changed(forms()), boundaries, routes), check, examples, number)


def fuzz_json(send: Send, examples: int, number: int = 0) -> None:
    """Send changed JSON to every operation that takes it. Raises AssertionError."""

    def check(drawn: tuple[str, str, bytes]) -> None:
        method, path, body = drawn
        expect_no_fault(send(method, path, content=body, headers={"Content-Type": "application/json"}))

    _run(json_requests(), check, examples, number)


def expect_no_fault(answer: httpx.Response) -> None:
    """Every answer is one of those that are documented: no fault, and JSON."""
    assert answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/json", answer.headers
    if not answer.is_success:
        assert set(answer.json()) == {"code", "message", "request_id"}


def _run(strategy: st.SearchStrategy[Any], check: Callable[[Any], None], examples: int, number: int) -> None:
    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(strategy)
    def fuzz(drawn: Any) -> None:
        check(drawn)

    fuzz()


def grown_mib(resident_mib: Callable[[], float], work: Callable[[], None]) -> float:
    """Return how much memory more is taken after some work than before."""
    before = resident_mib()
    work()
    return resident_mib() - before
