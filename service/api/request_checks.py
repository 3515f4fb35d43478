"""What is refused before anything of a request is worked on: what two programs on its way may read differently."""

import re
from collections import Counter
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import Scope

from service.errors import Forbidden, HeadersTooLarge, RequestMalformed, UnsupportedMediaType

MAX_TARGET_BYTES = 8 * 1024  # path and query; the longest honest ones have a few hundred
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_QUERY_PARAMETERS = 50

# Authorization, X-Purpose and Idempotency-Key are looked at where they are read
_SINGLE = frozenset(
    {
        b"content-encoding", b"content-length", b"content-type", b"host", b"origin",
        b"transfer-encoding", b"x-request-id",
    }
)  # fmt: skip
# an encoded slash, backslash or dot: a proxy may decide by the path as it came, and the service by the decoded one
_TRICK = re.compile(rb"%(2f|5c|2e)", re.IGNORECASE)
_CLIMB = re.compile(rb"(^|/)\.\.?(/|$)|//|\\")


def check(scope: Scope) -> None:
    """Look at the address and the headers of a request.

    Raises:
        RequestMalformed: a header is given twice, Content-Length contradicts Transfer-Encoding, or the path is a trick.
        HeadersTooLarge, UnsupportedMediaType
    """
    _check_target(scope)
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        raise HeadersTooLarge("the address or the headers are too long")
    seen = Counter(name for name, _ in headers if name in _SINGLE)
    for name, times in seen.items():
        if times > 1:
            raise RequestMalformed(f"the header {name.decode()} is given more than once")
    if b"content-length" in seen and b"transfer-encoding" in seen:
        raise RequestMalformed("content-length and transfer-encoding contradict each other: send one")
    found = dict(headers)
    if b"host" not in seen and scope.get("http_version") == "1.1":
        raise RequestMalformed("the header host is missing")
    if found.get(b"content-encoding", b"identity").strip().lower() not in {b"", b"identity"}:
        raise UnsupportedMediaType("send the body as it is: no content-encoding is read")


def _check_target(scope: Scope) -> None:
    path, query = scope.get("raw_path") or scope["path"].encode(), scope["query_string"]
    if len(path) + len(query) > MAX_TARGET_BYTES:
        raise HeadersTooLarge("the address or the headers are too long")
    if query.count(b"&") >= MAX_QUERY_PARAMETERS:
        raise RequestMalformed("the address has too many parameters")
    if _TRICK.search(path) or _CLIMB.search(path):
        raise RequestMalformed("the path holds an encoded slash or dot, or climbs: write it plainly")


def check_local(scope: Scope) -> None:
    """Refuse what a page of somebody else makes a browser on this machine send, where nobody is asked who they are.

    A page can send a form anywhere, and by a name that it lets point to 127.0.0.1 it can read the answers too.

    Raises:
        Forbidden
    """
    headers = dict(scope["headers"])
    for name in (b"host", b"origin"):
        given = headers.get(name)
        if given is not None and not _is_of_this_machine(given.decode("latin-1")):
            raise Forbidden("nobody is asked who they are here, so only this machine's own pages and programs may call")


def _is_of_this_machine(address: str) -> bool:
    try:
        host = urlsplit(address if "://" in address else f"//{address}").hostname
    except ValueError:
        return False
    return host is not None and _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
