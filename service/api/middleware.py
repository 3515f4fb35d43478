"""What surrounds every request: its id, its time, its line in the log, the limit of its size."""

import logging
import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import RequestTooLarge
from service.logs import bound_request_id, log_event
from service.metrics import Metrics

_log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"})
_QUIET_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds, by machines
OTHER = "other"  # callers can invent paths and methods, and each label value lives for ever


# ReDoc fetches its makers' logo from their own server unless the browser is told not to
_PAGE_POLICY = (
    b"content-security-policy",
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'",
)
_PAGES = frozenset({"/docs", "/redoc"})


class RequestMiddleware:
    """Pure ASGI: Starlette's BaseHTTPMiddleware costs a task and a queue for each request."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, max_request_bytes: int) -> None:
        self._app = app
        self._metrics = metrics
        self._max_request_bytes = max_request_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500
        with bound_request_id(_given_id(scope)) as request_id:
            scope["request_id"] = request_id
            headers = [(b"x-request-id", request_id.encode())]
            if scope["path"] in _PAGES:
                headers.append(_PAGE_POLICY)

            async def send_with_headers(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    message["headers"] = [*message["headers"], *headers]
                await send(message)

            try:
                await self._app(scope, self._limited(receive), send_with_headers)
            finally:
                self._record(scope, status, time.perf_counter() - start)

    def _limited(self, receive: Receive) -> Receive:
        """Count the body while it arrives: a Content-Length may be absent, or a lie."""
        limit = self._max_request_bytes
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise RequestTooLarge(f"the request is larger than {limit} bytes")
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
