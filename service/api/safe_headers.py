"""Headers that every answer has, so that a browser that is shown one does nothing with it but show it."""

from starlette.types import Scope

Headers = list[tuple[bytes, bytes]]

_CSP = b"content-security-policy"
_NO_STORE = (b"cache-control", b"no-store")
SAFE_HEADERS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (_CSP, b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    _NO_STORE,
]
# ReDoc fetches its makers' logo from their own server unless the browser is told not to
_PAGE_CSP = (
    _CSP,
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'",
)
_PAGES = frozenset({"/docs", "/redoc"})
_OF_HTTPS = (b"strict-transport-security", b"max-age=31536000")


def headers_for(scope: Scope) -> Headers:
    """Return the headers for the answer to a request."""
    headers = SAFE_HEADERS
    if scope["path"] in _PAGES:
        headers = [_PAGE_CSP if name == _CSP else (name, value) for name, value in headers]
    return [*headers, _OF_HTTPS] if scope.get("scheme") == "https" else headers


def with_safe_headers(given: Headers, safe: Headers) -> Headers:
    """Add them to a route's own headers, which come first."""
    own = {name.lower() for name, _ in given}
    return [*given, *((name, value) for name, value in safe if name not in own)]
