"""A provider of the tests' own, whose every answer they choose, and tokens as no library would make them."""

import base64
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa


class Pages:
    """What it answers, and what it was asked."""

    def __init__(self, keys: list[dict[str, Any]]) -> None:
        self.keys: Any = keys
        self.asked: list[str] = []
        self.issuer = ""
        self.changed: dict[str, Any] = {}
        self.redirects: dict[str, str] = {}
        self.go_on = threading.Event()
        self.go_on.set()

    def answer(self, path: str) -> bytes:
        if path == "/jwks":
            return json.dumps({"keys": self.keys}).encode()
        return json.dumps({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks", **self.changed}).encode()


@contextmanager
def serving(pages: Pages) -> Iterator[Pages]:
    """Answer on loopback while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pages.asked.append(self.path)
            pages.go_on.wait(10)
            content = pages.answer(self.path)
            self.send_response(302 if self.path in pages.redirects else 200)
            if self.path in pages.redirects:
                self.send_header("Location", pages.redirects[self.path])
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        pages.issuer = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield pages
        finally:
            server.shutdown()
            thread.join()


def jwk(key: Any, kid: str | None = "k1", **facts: Any) -> dict[str, Any]:
    algorithms = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256", ed25519.Ed25519PrivateKey: "EdDSA"}
    (name,) = (name for kind, name in algorithms.items() if isinstance(key, kind))
    found = json.loads(jwt.get_algorithm_by_name(name).to_jwk(key.public_key()))
    return {name: value for name, value in {**found, "kid": kid, **facts}.items() if name != "key_ops" and value}


def by_hand(header: dict[str, Any], content: dict[str, Any], key: rsa.RSAPrivateKey | bytes) -> str:
    """A token as no library would make it: signed by HMAC with bytes, by RS256 with a key, whatever the header says."""
    signed_part = b".".join(_encoded(json.dumps(part).encode()) for part in (header, content))
    if isinstance(key, bytes):
        signature = hmac.new(key, signed_part, sha256).digest()
    else:
        signature = jwt.get_algorithm_by_name("RS256").sign(signed_part, key)
    return (signed_part + b"." + _encoded(signature)).decode()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
