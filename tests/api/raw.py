"""Requests byte by byte, as no honest client sends them."""

import json
import socket
import time
from contextlib import suppress
from typing import Any

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connected(port: int, *, receive_bytes: int | None = None) -> socket.socket:
    """Return a connection; `receive_bytes`: what the kernel keeps for whoever does not read."""
    connection = socket.socket()
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", port))
    return connection


def read_to_end(connection: socket.socket, within_s: float = 20.0) -> bytes:
    """Return what comes until the other side closes; fails where it does not."""
    found, deadline = b"", time.monotonic() + within_s
    with suppress(ConnectionError):
        while data := connection.recv(65536):
            found += data
            assert time.monotonic() < deadline, "the connection stays open"
    return found


def ask(port: int, request: bytes, within_s: float = 20.0) -> bytes:
    """Send a request, which must end its connection, and return all that comes back."""
    with connected(port) as connection:
        with suppress(ConnectionError):
            connection.sendall(request)
        return read_to_end(connection, within_s)


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:200]
    return int(answer[9:12])


def body_of(answer: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


def is_closed(connection: socket.socket, within_s: float) -> bool:
    """Whether the other side ends the connection in time; what it sends is read and dropped."""
    connection.settimeout(within_s)
    deadline = time.monotonic() + within_s
    try:
        while time.monotonic() < deadline:
            if not connection.recv(65536):
                return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return False
