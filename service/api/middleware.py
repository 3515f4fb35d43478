"""What surrounds every request: its id, its time, its line in the log, what it may take, what its answer always has."""

import asyncio
import logging
import re
import time
import uuid

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import request_checks
from service.api.error_responses import to_response
from service.api.request_limits import RequestLimits
from service.api.safe_headers import headers_for, with_safe_headers
from service.errors import BiodedupError, RequestTimedOut, RequestTooLarge
from service.logs import bound_request_id, log_event
from service.metrics import Metrics

_log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"})
_QUIET_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds, by machines
OTHER = "other"  # callers can invent paths and methods, and each label value lives for ever


class RequestMiddleware:
    """Pure ASGI: Starlette's BaseHTTPMiddleware costs a task and a queue for each request."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        limits: RequestLimits,
        max_request_bytes: int,
        receive_timeout_s: float,
        is_local: bool,
    ) -> None:
        """`is_local`: nobody is asked who they are, and every program of this machine may do everything."""
        self._app = app
        self._metrics = metrics
        self._limits = limits
        self._max_request_bytes = max_request_bytes
        self._receive_timeout_s = receive_timeout_s
        self._is_local = is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500
        with bound_request_id(_given_id(scope)) as request_id:
            scope["request_id"] = request_id

            async def send_with_headers(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    self._limits.answered(scope, status)
                    headers = with_safe_headers(message["headers"], headers_for(scope))
                    message["headers"] = [*headers, (b"x-request-id", request_id.encode())]
                await send(message)

            try:
                refusal = self._refusal(scope)
                if refusal is not None:
                    await refusal(scope, receive, send_with_headers)
                else:
                    await self._app(scope, self._limited(scope, receive), send_with_headers)
            finally:
                self._record(scope, status, time.perf_counter() - start)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to what is not worked on."""
        request = Request(scope)
        try:
            request_checks.check(scope)
            if self._is_local:
                request_checks.check_local(scope)
        except BiodedupError as error:
            # where one request ends and the next begins may be in doubt
            return to_response(error, request, {"Connection": "close"})
        try:
            self._limits.before_sign_in(scope)
        except BiodedupError as error:
            return to_response(error, request)
        return None

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Count the body while it arrives: a Content-Length may be absent, or a lie. It has its time as a whole."""
        limit, allowed_s = self._max_request_bytes, self._receive_timeout_s
        received, deadline, is_complete = 0, asyncio.get_running_loop().time() + allowed_s, False

        async def receive_limited() -> Message:
            nonlocal received, is_complete
            try:
                # who has sent all is waited for as long as the answer takes
                async with asyncio.timeout_at(None if is_complete else deadline):
                    message = await receive()
            except TimeoutError:
                raise RequestTimedOut(f"the request did not arrive within {allowed_s:g} s") from None
            size = len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            received += size
            if received > limit:
                raise RequestTooLarge(f"the request is larger than {limit} bytes")
            self._limits.received(scope, size)
            return message

        return receive_limited

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # the pattern, never the path: paths hold subject ids
        route = getattr(scope.get("route"), "path", OTHER)
        method = scope["method"] if scope["method"] in _METHODS else OTHER
        self._metrics.requests.labels(method=method, route=route, status=str(status)).inc()
        self._metrics.request_seconds.labels(route=route).observe(seconds)
        level = logging.DEBUG if route in _QUIET_ROUTES else logging.INFO
        log_event(
            _log,
            "request.answered",
            level=level,
            method=method,
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 1),
        )


def _given_id(scope: Scope) -> str:
    """Return the caller's own request id if it is a plain name, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return uuid.uuid4().hex
