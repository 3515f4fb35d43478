"""Attacks below the meaning of a request: its size, its speed, and where it ends."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import httpx

from service.access import Role
from tests.api.raw import connected, is_closed
from tests.security.target import HERE, MAX_REQUEST_BYTES, Target

HEADER_S, RECEIVE_S, SEND_S = 1.0, 1.0, 1.0
DEADLINES = {"header_timeout_s": HEADER_S, "receive_timeout_s": RECEIVE_S, "send_timeout_s": SEND_S}
"""Settings of a target that is attacked with slow requests."""

_SLOW = 15
PATIENCE_S = 10.0  # of the attack: behind every deadline and its grace, on a busy machine
_TOO_MUCH = 40 * MAX_REQUEST_BYTES
_CHUNK = bytes(64 * 1024)


def oversized_requests(target: Target) -> list[str]:
    """Bodies larger than allowed, told and untold, packed bodies, endless addresses and headers."""
    key = target.key(Role.ENROLLER)
    path = f"/v1/galleries/{HERE}/enrolments"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    )
    found = []
    for name, length in (("told", f"Content-Length: {_TOO_MUCH}"), ("untold", "Transfer-Encoding: chunked")):
        sent, answer = _pour(target.port, f"{head}{length}\r\n\r\n".encode(), is_chunked=name == "untold")
        # what the kernels of both sides keep in between counts as sent
        if not answer.startswith(b"HTTP/1.1 413") or sent >= _TOO_MUCH:
            found.append(f"a body that is {name} to be {_TOO_MUCH} bytes: {sent} are taken, {answer[:12]!r}")
    packed = gzip.compress(b'{"samples": ["' + b"A" * _TOO_MUCH + b'"]}')
    for coding in ("gzip", "deflate", "br", "identity, gzip"):
        headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
        status = target.ask("POST", path, key, content=packed, headers=headers).status_code
        if status != 415:
            found.append(f"a body that is packed by {coding} gets {status}")
    parts = b"".join(b'--x\r\nContent-Disposition: form-data; name="sample"\r\n\r\nanna/1\r\n' for _ in range(2000))
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    if target.ask("POST", path, key, content=parts + b"--x--\r\n", headers=headers).status_code != 422:
        found.append("a form of 2,000 parts is taken")
    many = {f"X-{number}": "a" for number in range(300)}
    for name, status in (
        ("a long address", target.ask("GET", f"/v1/galleries?after={'a' * 20_000}", key).status_code),
        ("a long header", target.ask("GET", "/v1/galleries", key, headers={"X-A": "a" * 40_000}).status_code),
        ("many headers", target.ask("GET", "/v1/galleries", key, headers=many).status_code),
    ):
        if status != 431:
            found.append(f"{name} gets {status}")
    return found


def _pour(port: int, head: bytes, *, is_chunked: bool) -> tuple[int, bytes]:
    """Send a body until it is refused; return how many bytes went, and the beginning of the answer."""
    answer = bytearray()
    with connected(port) as connection:

        def listen() -> None:
            with suppress(OSError):
                while b"\r\n\r\n" not in answer and (data := connection.recv(65536)):
                    answer.extend(data)

        listener = threading.Thread(target=listen)
        listener.start()
        connection.sendall(head)
        sent = 0
        with suppress(OSError):
            while sent < _TOO_MUCH and not answer:
                connection.sendall(b"%x\r\n%s\r\n" % (len(_CHUNK), _CHUNK) if is_chunked else _CHUNK)
                sent += len(_CHUNK)
        listener.join(PATIENCE_S)
    return sent, bytes(answer)


def slow_requests(target: Target) -> list[str]:
    """Headers and bodies a byte at a time, and answers that nobody takes: all end, and others are answered meanwhile.

    The target has the deadlines above.
    """
    key = target.key(Role.ENROLLER)
    body = f"POST /v1/galleries/{HERE}/enrolments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    kinds = {
        "nothing at all": b"",
        "headers": b"GET /healthz HTTP/1.1\r\nX-Slow: ",
        "a body": f"{body}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n".encode(),
        "a body in chunks": f"{body}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n".encode(),
    }
    found = []
    with ExitStack() as held:
        slow = {name: [held.enter_context(connected(target.port)) for _ in range(_SLOW)] for name in kinds}
        for name, each in slow.items():
            for connection in each:
                connection.sendall(kinds[name])
        dripping = threading.Event()

        def drip() -> None:
            while not dripping.wait(0.2):
                for name, each in slow.items():
                    for connection in each if name != "nothing at all" else ():
                        with suppress(OSError):
                            connection.send(b"1")

        dripper = threading.Thread(target=drip)
        dripper.start()
        try:
            found += _others_wait(target, key)
            deadline = time.monotonic() + HEADER_S + RECEIVE_S + PATIENCE_S
            for name, each in slow.items():
                left = sum(not is_closed(connection, max(0.1, deadline - time.monotonic())) for connection in each)
                if left:
                    found.append(f"{left} of {_SLOW} connections that send {name} slowly are held")
        finally:
            dripping.set()
            dripper.join()
    return found + _slow_reader(target)


def _others_wait(target: Target, key: str) -> list[str]:
    try:
        for _ in range(5):
            sample = {"sample": b"anna/1"}
            target.ask("POST", f"/v1/galleries/{HERE}/identifications", key, files=sample, timeout=5).raise_for_status()
    except httpx.HTTPError as error:
        return [f"others are not answered meanwhile: {type(error).__name__}"]
    return []


def _slow_reader(target: Target) -> list[str]:
    key = target.key(Role.OPERATOR)
    with connected(target.port, receive_bytes=4096) as connection:
        connection.settimeout(1)
        with suppress(OSError):
            for _ in range(200):
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        deadline = time.monotonic() + SEND_S + PATIENCE_S
        # what it received is not looked at: reading would help
        while time.monotonic() < deadline:
            if 'reason="slow_reader"' in target.ask("GET", "/metrics", key).text:
                return []
            time.sleep(0.2)
    return ["whoever takes nothing of an answer is held"]


_SMUGGLED = b'{"gallery_id": "smuggled"}'


def smuggled_requests(target: Target) -> list[str]:
    """Requests that two programs read differently: none is worked on, and nothing behind them is taken for another."""
    key = target.key(Role.ADMIN)
    found = []
    for name, request in _ambiguous(key):
        with connected(target.port) as connection:
            connection.settimeout(PATIENCE_S)
            answers = b""
            with suppress(OSError):
                connection.sendall(request)
                while data := connection.recv(65536):
                    answers += data
        if answers.count(b"HTTP/1.1 ") != 1 or not answers.startswith(b"HTTP/1.1 400"):
            statuses = [part[:3].decode() for part in answers.split(b"HTTP/1.1 ")[1:]]
            found.append(f"{name}: {statuses}")
    if target.ask("GET", "/v1/galleries/smuggled", key).status_code != 404:
        found.append("a request inside another one was worked on")
    return found


def _ambiguous(key: str) -> Iterator[tuple[str, bytes]]:
    """Each ends its connection if it is taken for one request, and makes a gallery if it is taken for two."""
    own = f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n".encode()
    inner = b"POST /v1/galleries HTTP/1.1\r\nHost: x\r\n" + own
    inner += b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(_SMUGGLED) + _SMUGGLED
    chunked = b"0\r\n\r\n" + inner

    def post(headers: bytes, body: bytes) -> bytes:
        return b"POST /v1/plans HTTP/1.1\r\nHost: x\r\n" + own + headers + b"\r\n" + body

    length: Callable[[int], bytes] = lambda size: b"Content-Length: %d\r\n" % size  # noqa: E731
    yield "length before chunks", post(length(len(chunked)) + b"Transfer-Encoding: chunked\r\n", chunked)
    yield "chunks before length", post(b"Transfer-Encoding: chunked\r\n" + length(4), chunked)
    yield "two lengths", post(length(0) + length(len(inner)), inner)
    yield "two equal lengths", post(length(2) + length(2), b"{}")
    yield "lengths in one header", post(b"Content-Length: 0, %d\r\n" % len(inner), inner)
    yield "chunks, spelled with a tab", post(b"Transfer-Encoding:\tchunked\r\n" + length(len(chunked)), chunked)
    yield "chunks, another coding behind", post(b"Transfer-Encoding: chunked, identity\r\n", chunked)
    yield "chunks, folded", post(b"Transfer-Encoding:\r\n chunked\r\n" + length(len(chunked)), chunked)
    yield "blank before the colon", post(b"Content-Length : 2\r\n", b"{}")
    yield "a length with a sign", post(b"Content-Length: +2\r\n", b"{}")
    yield "a bare line feed in a chunk", post(b"Transfer-Encoding: chunked\r\n", b"2\n{}\n0\n\n")
    yield "two hosts", b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n"
    yield "an encoded slash", b"GET /v1/galleries%2Fcamp HTTP/1.1\r\nHost: x\r\n" + own + b"Connection: close\r\n\r\n"
    yield "an encoded climb", b"GET /v1/x/%2e%2e/galleries HTTP/1.1\r\nHost: x\r\n" + own + b"Connection: close\r\n\r\n"
