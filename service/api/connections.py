"""Connections that take their time: each stage of one has a deadline, and no address has them all.

uvicorn closes a connection that idles after an answer, and no other: whoever sends a header a byte a minute, or takes
nothing of an answer, is held for ever. This subclass of its protocol closes those.
"""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service.api.request_checks import MAX_HEADER_BYTES, MAX_TARGET_BYTES
from service.api.safe_headers import SAFE_HEADERS
from service.errors import HeadersTooLarge, RequestMalformed

# what the application has after the deadline of a body to answer 408 itself
_GRACE_S = 5.0
_MAX_HEAD_BYTES = 4 * (MAX_HEADER_BYTES + MAX_TARGET_BYTES)  # what is a little too long gets the application's answer

SLOW_REQUEST, SLOW_READER, TOO_MANY, HEADERS = "slow_request", "slow_reader", "too_many", "headers_too_large"


@dataclass(slots=True)
class ConnectionRules:
    """What connections may take, and how many there are now. Times in seconds."""

    header_timeout_s: float
    receive_timeout_s: float
    send_timeout_s: float
    max_connections: int
    max_per_address: int
    trusted_proxies: tuple[str, ...] = ()
    on_closed: Callable[[str], None] = lambda _reason: None
    by_address: Counter[str] = field(default_factory=Counter)

    def has_room(self, address: str, open_now: int) -> bool:
        """Whether one more connection may be open, of which `open_now` are."""
        if open_now >= self.max_connections:
            return False
        return self.by_address[address] < self.max_per_address or self._is_proxy(address)

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in ip_network(each) for each in self.trusted_proxies)

    def forget(self, address: str) -> None:
        self.by_address[address] -= 1
        if self.by_address[address] <= 0:
            del self.by_address[address]


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol with deadlines: for the headers, for the body, and for taking the answer."""

    rules: ConnectionRules

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None
        self._head_bytes: int | None = 0  # of the headers that are arriving; None while a body is
        self._address: str | None = None  # counted under it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if not self.rules.has_room(address, len(self.connections) - 1):
            self._hang_up(TOO_MANY)
            return
        self._address = address
        self.rules.by_address[address] += 1
        self._expect_within(self.rules.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        if self._address is not None:
            self.rules.forget(self._address)
            self._address = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # also what begins no message, such as blank lines between two, ends uvicorn's own waiting
        if self._receiving is None and self._head_bytes is not None:
            self._expect_within(self.rules.header_timeout_s)
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes is not None and self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self.rules.on_closed(HEADERS)
            self._refuse(HeadersTooLarge.status, HeadersTooLarge.code, "the address or the headers are too long")

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        self._expect_within(self.rules.receive_timeout_s + _GRACE_S)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  (uvicorn's form; ours says less)
        self._refuse(RequestMalformed.status, RequestMalformed.code, "the request is not valid HTTP")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_reader()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.get_write_buffer_size():  # closing waits for whoever takes nothing, for ever
            self._expect_reader()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self._hang_up(SLOW_READER)
        else:
            super().timeout_keep_alive_handler()

    def _expect_within(self, seconds: float) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
        self._receiving = self.loop.call_later(seconds, self._hang_up, SLOW_REQUEST)

    def _expect_reader(self) -> None:
        if self._sending is None:
            self._sending = self.loop.call_later(self.rules.send_timeout_s, self._look_at_reader)

    def _look_at_reader(self) -> None:
        self._sending = None
        if self.transport.get_write_buffer_size():
            self._hang_up(SLOW_READER)

    def _forget_reader(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _hang_up(self, reason: str) -> None:
        self.rules.on_closed(reason)
        self._cancel()
        self.transport.abort()  # not closed: that would wait until the other side has taken what is left

    def _cancel(self) -> None:
        self._forget_reader()
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer what no application sees, in the one form of errors."""
        request_id = uuid.uuid4().hex
        body = json.dumps({"code": code, "message": message, "request_id": request_id}).encode()
        headers = [
            *self.server_state.default_headers,
            *SAFE_HEADERS,
            (b"x-request-id", request_id.encode()),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + body)
        self._expect_reader()
        self.transport.close()


def protocol_with(rules: ConnectionRules) -> type[PatientProtocol]:
    """Return the protocol class of one server: uvicorn makes an instance for each connection."""
    return type("RuledProtocol", (PatientProtocol,), {"rules": rules})
