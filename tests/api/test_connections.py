"""Slow, greedy and endless connections against a real server: they are ended, and the others are answered meanwhile."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests.api.live import fake_settings, served, wait_until_ready
from tests.api.raw import GET, ask, body_of, connected, is_closed, read_to_end, status_of

HEADER_S, RECEIVE_S, SEND_S = 1.5, 1.0, 1.0
SLOW = 200


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    settings = fake_settings(
        tmp_path_factory.mktemp("slow") / "var",
        header_timeout_s=HEADER_S,
        receive_timeout_s=RECEIVE_S,
        send_timeout_s=SEND_S,
    )
    with served(settings) as port:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_until_ready(client)
        yield port


def closed(port: int, reason: str) -> float:
    """How many connections the service says it closed for a reason."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    name = f'biodedup_connections_closed_total{{reason="{reason}"}} '
    return float(next((line[len(name) :] for line in text.splitlines() if line.startswith(name)), "0"))


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /healthz HTTP/1.1\r\nX-Slow: ",
        b"POST /v1/galleries HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
    ],
    ids=["headers", "body"],
)
def test_two_hundred_slow_connections_hinder_nobody_and_are_ended(port: int, beginning: bytes) -> None:
    before = closed(port, "slow_request")
    with ExitStack() as held:
        slow = [held.enter_context(connected(port)) for _ in range(SLOW)]
        for each in slow:
            each.sendall(beginning)
        dripping = threading.Event()

        def drip() -> None:
            while not dripping.wait(0.2):
                for each in slow:
                    with suppress(OSError):
                        each.send(b"x")

        dripper = threading.Thread(target=drip)
        dripper.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
                answers = [
                    client.post("/v1/galleries/default/identifications", files={"sample": b"anna/1"}).status_code
                    for _ in range(20)
                ]
            assert answers == [200] * 20
            assert all(is_closed(each, within_s=20) for each in slow)
        finally:
            dripping.set()
            dripper.join()
    if b"X-Slow" in beginning:
        assert closed(port, "slow_request") - before == SLOW


def test_a_body_that_takes_too_long_is_told_so(port: int) -> None:
    head = b"POST /v1/galleries HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: 99\r\n\r\n{"
    answer = ask(port, request)
    assert status_of(answer) == 408
    assert body_of(answer)["code"] == "request_timed_out"
    assert b"connection: close" in answer.lower()


def test_a_body_that_nobody_reads_holds_no_connection(port: int) -> None:
    """The answer is there at once; uvicorn alone would wait for the rest of the body for ever."""
    with connected(port) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        ended, deadline = False, time.monotonic() + 20
        while not ended and time.monotonic() < deadline:
            connection.settimeout(0.2)
            try:
                connection.send(b"x")
                ended = not connection.recv(65536)
            except TimeoutError:
                continue
            except ConnectionError:
                ended = True
    assert ended


def test_a_connection_that_says_nothing_is_ended(port: int) -> None:
    with connected(port) as connection:
        assert is_closed(connection, within_s=10)


def test_blank_lines_after_an_answer_hold_no_connection(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(GET)
        assert status_of(connection.recv(65536)) == 200
        connection.sendall(b"\r\n")
        assert is_closed(connection, within_s=10)


def test_a_second_request_on_a_connection_has_its_own_time(port: int) -> None:
    with connected(port) as connection:
        for _ in range(4):
            connection.sendall(GET)
            assert status_of(connection.recv(65536)) == 200
            time.sleep(HEADER_S / 2)


def test_who_takes_nothing_of_an_answer_is_hung_up_on(port: int) -> None:
    before = closed(port, "slow_reader")
    with connected(port, receive_bytes=4096) as connection:
        connection.settimeout(2)
        with suppress(OSError):
            for _ in range(200):
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        deadline = time.monotonic() + 20
        while closed(port, "slow_reader") == before and time.monotonic() < deadline:
            time.sleep(0.1)
        assert closed(port, "slow_reader") == before + 1
        assert is_closed(connection, within_s=10)


def test_headers_without_end_are_refused(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        with suppress(OSError):
            for _ in range(100):
                connection.sendall(b"X-Long: " + b"x" * 8000 + b"\r\n")
        answer = read_to_end(connection)
    # where data was on its way while the answer was written, the kernel may drop the answer with the connection
    assert answer == b"" or (status_of(answer), body_of(answer)["code"]) == (431, "headers_too_large")
    assert closed(port, "headers_too_large") >= 1


def test_one_address_has_no_more_than_its_connections(tmp_path: Path) -> None:
    with served(fake_settings(tmp_path / "var", max_connections_per_address=5)) as port, ExitStack() as held:
        kept = [held.enter_context(connected(port)) for _ in range(5)]
        for each in kept:
            each.sendall(GET)
            assert status_of(each.recv(65536)) == 200
        further = held.enter_context(connected(port))
        assert is_closed(further, within_s=5)
        kept[0].sendall(GET)
        assert status_of(kept[0].recv(65536)) == 200
        kept[0].close()
        assert _is_answered_soon(port)


def test_a_trusted_proxy_may_have_all_but_there_is_an_end(tmp_path: Path) -> None:
    settings = fake_settings(
        tmp_path / "var", max_connections_per_address=2, max_connections=6, trusted_proxies="127.0.0.0/8"
    )
    with served(settings) as port, ExitStack() as held:
        for _ in range(6):
            each = held.enter_context(connected(port))
            each.sendall(GET)
            assert status_of(each.recv(65536)) == 200
        assert is_closed(held.enter_context(connected(port)), within_s=5)


def _is_answered_soon(port: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with connected(port) as connection, suppress(ConnectionError):
            connection.sendall(GET)
            if connection.recv(65536).startswith(b"HTTP/1.1 200"):
                return True
        time.sleep(0.05)
    return False
