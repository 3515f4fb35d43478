"""Attacks by texts: what is written into logs, headers, files and queries; and addresses that somebody might ask."""

import csv
import io
import json
import socketserver
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from tests.api.credentials import claims, signed
from tests.api.raw import ask
from tests.security.operations import Operation, Place, operations, with_text
from tests.security.rights import harvest, path_ids
from tests.security.target import HERE, PROVIDER_KEY, Target

LINES = (
    "a\r\nX-Planted: yes",
    'a\n{"event":"planted"}',
    "a\x1b[2K\x1b]0;planted\x07",
    "a\u2028planted\u2029",
    "a\x85planted",
    "a\x00planted",
    "\u202eplanted",
    "%0d%0aX-Planted:%20yes",
)
FORMULAS = ("=cmd|'/C calc'!A0", "+1+cmd|'/C calc'!A0", "-2+3", "@SUM(1+1)", "\t=1+1", "\r=1+1")
NO_ANSWER = 599
"""Stands for a connection that was ended without a word, which is no better than a fault."""
QUERIES = (
    "' OR '1'='1",
    "x'; DROP TABLE subjects; --",
    "1 UNION SELECT key_id FROM client_keys",
    '" OR ""="',
    "%' OR 1=1 --",
    "\\'; SELECT pg_sleep(5) --",
    "../../../../etc/passwd",
    "..\\..\\windows\\win.ini",
    "/etc/passwd\0.jpg",
    "${jndi:ldap://127.0.0.1/x}",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "$(touch planted)`touch planted`",
    "\ud800",
    "x" * 5000,
)


class Sender:
    """Sends operations of somebody who may do everything, with a text at one place and nothing else wrong."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.key = target.key()
        self._own = harvest(target, self.key, HERE)

    def send(self, operation: Operation, place: Place, text: str) -> httpx.Response | None:
        """None: HTTP itself cannot carry the text there."""
        ids, request = path_ids(operation, self._own), _request(operation, place, text)
        if request is None:
            return None
        if place[0] == "path":
            ids[place[1]] = quote(text.encode(errors="surrogatepass"), safe="")
        try:
            return self.target.ask(operation.method, operation.path.format(**ids), self.key, **request)
        except httpx.RemoteProtocolError:
            return httpx.Response(NO_ANSWER)

    def list_with(self, header: str, text: str) -> httpx.Response | None:
        """Send a plain request with a text in a header."""
        (listing,) = (each for each in operations() if each.name == "GET /v1/galleries/{gallery_id}/subjects")
        return self.send(listing, ("header", header), text)


def _request(operation: Operation, place: Place, text: str) -> dict[str, Any] | None:
    body = operation.body()
    if place[0] == "query":
        return {"params": {place[1]: text.encode(errors="surrogatepass")}, **({} if body is None else {"json": body})}
    if place[0] == "form":
        return {"files": {"sample": b"anna/9", place[1]: (None, text.encode(errors="surrogatepass"))}}
    if place[0] == "json":
        content = json.dumps(with_text(body or {}, place[1:], text))  # surrogates and controls as escapes
        return {"content": content, "headers": {"Content-Type": "application/json"}}
    if place[0] == "header":
        return {"headers": {place[1]: text.encode()}} if all(ord(sign) >= 32 for sign in text) else None
    return {} if body is None else {"json": body}


def _everywhere(wanted: Iterable[Operation] | None = None) -> Iterator[tuple[Operation, Place]]:
    """Yield every place of every operation that takes a text."""
    for operation in operations() if wanted is None else wanted:
        for place in operation.places():
            yield operation, place


_HEADERS = ("X-Request-Id", "X-Purpose", "Idempotency-Key", "User-Agent", "Referer", "Origin", "Content-Type")


def injected_lines(target: Target) -> list[str]:
    """Ends of lines and signs that drive terminals: not in the log, not in a header, and no formula in a table."""
    sender, found = Sender(target), []
    began = len(target.log.getvalue())
    for number, (operation, place) in enumerate(_everywhere()):
        for text in (LINES[number % len(LINES)], LINES[(number + 1) % len(LINES)], FORMULAS[number % len(FORMULAS)]):
            answer = sender.send(operation, place, text)
            if answer is not None and ("x-planted" in answer.headers or answer.status_code >= 500):
                found.append(f"{operation.name}, {place}: {answer.status_code}, or a header was planted")
    found += _through_headers(sender)
    raw = b"".join((b"GET /v1/galleries/%0d%0aX-Planted:%20yes HTTP/1.1\r\n", b"Host: x\r\nConnection: close\r\n\r\n"))
    if b"\nx-planted" in ask(target.port, raw).lower():
        found.append("a header of the answer was planted by an address")
    found += _log_faults(target.log.getvalue()[began:])
    return found + _table_faults(sender)


def _through_headers(sender: Sender) -> list[str]:
    found = []
    for header in _HEADERS:
        for text in (*LINES, *FORMULAS):
            answer = sender.list_with(header, text)
            if answer is None:
                continue
            if "x-planted" in answer.headers or answer.status_code >= 500:
                found.append(f"{header}: a header of the answer was planted, or broke it ({answer.status_code})")
            if any(ord(sign) < 32 for value in answer.headers.values() for sign in value):
                found.append(f"{header}: comes back with a sign that is no text")
    return found


def _log_faults(log: str) -> list[str]:
    """Every line is one JSON object of this service, in printable ASCII, and no caller's text stands in it."""
    found = []
    for line in log.split("\n")[:-1]:
        try:
            entry = json.loads(line)
        except ValueError:
            found.append(f"a line of the log is no JSON: {line[:80]!r}")
            continue
        if not line.isascii() or any(unicodedata.category(sign) == "Cc" for sign in line):
            found.append(f"the log holds signs that drive a terminal: {line[:80]!r}")
        # its own id is the one text of a caller that is logged, and only as a plain name
        if "planted" in json.dumps({**entry, "request_id": None}) or entry.get("event") == "planted":
            found.append(f"a caller's text is in the log: {line[:80]!r}")
    return list(dict.fromkeys(found))


def _table_faults(sender: Sender) -> list[str]:
    """Purposes, request ids and who decided go into the trail: no cell of its export begins a formula."""
    path = f"/v1/galleries/{HERE}/audit/export"
    for text in (*FORMULAS, "-2.3"):
        for header in ("X-Request-Id", "X-Purpose"):
            sender.list_with(header, text)
    table = sender.target.ask("GET", f"{path}?format=csv", sender.key).raise_for_status().text
    cells = [cell for row in csv.reader(io.StringIO(table)) for cell in row]
    found = [f"a cell of the export is a formula: {cell[:40]!r}" for cell in cells if cell[:1] in "=+-@\t\r" and cell]
    lines = sender.target.ask("GET", path, sender.key).raise_for_status().text.split("\n")[:-1]
    found += [
        f"a line of the export is no entry: {line[:60]!r}" for line in lines if not line.startswith('{"chain":"camp"')
    ]
    return list(dict.fromkeys(found))


def injected_queries(target: Target, wanted: Iterable[Operation] | None = None) -> list[str]:
    """Pieces of SQL, paths, templates and commands in every place: refused, or taken as the text that they are."""
    sender, found = Sender(target), []
    before = _counts(sender)
    for number, (operation, place) in enumerate(_everywhere(wanted)):
        for text in QUERIES[number % 2 :: 2]:  # each place half of them, its neighbour the other half
            answer = sender.send(operation, place, text)
            if answer is None:
                continue
            name = f"{operation.name}, {'/'.join(place)}, {text[:30]!r}"
            if answer.status_code >= 500:
                found.append(f"{name}: {answer.status_code}")
            if any(told in answer.text for told in ("root:x:", "Traceback", "sqlite3.", "syntax error", "psycopg")):
                found.append(f"{name}: tells of what is behind: {answer.text[:80]!r}")
            if place[0] in {"path", "query"} and answer.is_success:
                found.append(f"{name}: is taken for an id")
            if "7*7" in text and "49$" in answer.text:
                found.append(f"{name}: was worked out")
    after = _counts(sender)
    if any(after[name] < count for name, count in before.items()):
        found.append(f"something is gone: {before}, now {after}")
    return found


def _counts(sender: Sender) -> dict[str, int]:
    items = sender.target.ask("GET", "/v1/galleries", sender.key).raise_for_status().json()["items"]
    return {each["gallery_id"]: each["counts"]["subjects"] for each in items}


class _Listener(socketserver.ThreadingTCPServer):
    """Writes down what comes in, and hangs up."""

    daemon_threads = True

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Hearing)


class _Hearing(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Listener)
        self.request.settimeout(2)
        try:
            self.server.heard.append(self.request.recv(200))
        except OSError:
            self.server.heard.append(b"")


@contextmanager
def listening() -> Iterator[tuple[str, list[bytes]]]:
    """Yield the host and port of a listener, and what it hears."""
    with _Listener() as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{listener.server_address[1]}", listener.heard
        finally:
            listener.shutdown()
            thread.join()


_ADDRESS_HEADERS = (
    "Host", "Origin", "Referer", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Original-URL", "X-Rewrite-URL",
    "True-Client-IP", "X-Wap-Profile", "Contact", "Destination", "Callback", "X-Callback-Url",
)  # fmt: skip


def followed_addresses(target: Target) -> list[str]:
    """Addresses of a listener in every place, header and token, and in images: nothing of it is asked."""
    sender, places = Sender(target), list(_everywhere())
    with listening() as (host, heard):
        addresses = (f"http://{host}/a", f"//{host}/b", f"ftp://{host}/c", f"file://{host}/d", f"\\\\{host}\\e")
        for number, (operation, place) in enumerate(places):
            for address in (addresses[0], addresses[1 + number % 4]):
                sender.send(operation, place, address)
        for header in _ADDRESS_HEADERS:
            sender.list_with(header, addresses[0])
        content = claims(target.provider.issuer)
        for name in ("jku", "x5u", "kid", "iss", "jwks_uri"):
            target.ask("GET", "/v1/galleries", signed(PROVIDER_KEY, content, **{"kid": "k1", name: addresses[0]}))
        target.ask("GET", "/v1/galleries", signed(PROVIDER_KEY, {**content, "iss": f"http://{host}"}, kid="k2"))
        for image in _images_with_addresses(addresses[0]):
            target.ask("POST", f"/v1/galleries/{HERE}/identifications", sender.key, files={"sample": image})
        return [f"a listener was asked: {each[:60]!r}" for each in dict.fromkeys(heard)]


def _images_with_addresses(address: str) -> Iterator[bytes]:
    """What some readers of images follow: vector graphics, playlists, metadata. The decoder itself: test_images.py."""
    yield f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{address}"/></svg>'.encode()
    yield f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "{address}">]><x>&e;</x>'.encode()
    yield f"push graphic-context\nfill 'url({address})'\n".encode()
    yield f"#EXTM3U\n#EXTINF:1,\n{address}\n".encode()
    yield address.encode()
