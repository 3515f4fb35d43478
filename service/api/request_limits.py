"""Applies the limits of clients to requests: what each counts as, and whose it is."""

import hashlib
import re
import secrets
import time
from collections import OrderedDict
from contextlib import suppress

from starlette.requests import Request
from starlette.types import Scope

from service.access import Caller
from service.errors import RateLimited
from service.rate_limits import KIB, Limited, RateLimits, address_group

_SEARCH = re.compile(
    r"/v1/(galleries/[^/]+/(enrolments|identifications|verifications|sweeps)|agreements/[^/]+/identifications)"
)
_LIMITED = "/v1/"  # not what machines ask every few seconds: /metrics, /readyz; a wrong credential counts there too
_UNAUTHENTICATED = 401
_PROVEN_S = 15 * 60.0
_MAX_PROVEN = 10_000


class RequestLimits:
    """What is left to whom. Used on the event loop alone."""

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits
        self._proven: OrderedDict[bytes, float] = OrderedDict()  # by address and credential, until when
        self._salt = secrets.token_bytes(16)

    def admit(self, scope: Scope, caller: Caller) -> None:
        """Count a request of a caller who proved who it is, before its body is read. Raises RateLimited."""
        scope.setdefault("state", {})["is_proven"] = True
        if not scope["path"].startswith(_LIMITED):
            return
        scope["state"]["charged_client"] = caller.client_id
        self._limits.charge(Limited.REQUESTS, caller.client_id)
        if scope["method"] == "POST" and _SEARCH.fullmatch(scope["path"]):
            self._limits.charge(Limited.SEARCHES, caller.client_id)
        announced = dict(scope["headers"]).get(b"content-length", b"")
        if announced.isdigit():
            scope["state"]["bytes_charged"] = True
            self._charge_bytes(caller.client_id, int(announced))

    def received(self, scope: Scope, size: int) -> None:
        """Count what arrives of a body whose length was not announced. Raises RateLimited."""
        state = scope.get("state", {})
        if size and "charged_client" in state and "bytes_charged" not in state:
            self._charge_bytes(state["charged_client"], size)

    def before_sign_in(self, scope: Scope) -> None:
        """Refuse to look at another credential from an address that sent too many wrong ones.

        Not those that held from there a while ago: one broken tablet must not lock out the desks beside it.

        Raises:
            RateLimited
        """
        credential = self._credential(scope)
        if credential is not None and self._proven.get(credential, 0.0) < time.monotonic():
            self._limits.check(Limited.SIGN_INS, _address(scope))

    def answered(self, scope: Scope, status: int) -> None:
        """Learn from an answer whether the credential held."""
        credential = self._credential(scope)
        if credential is None:
            return
        if status == _UNAUTHENTICATED:
            self._proven.pop(credential, None)  # it was revoked
            with suppress(RateLimited):  # this answer is on its way; the next request is refused
                self._limits.charge(Limited.SIGN_INS, _address(scope))
        elif "is_proven" in scope.get("state", {}):  # at /metrics and /readyz too, that count as no request
            self._proven[credential] = time.monotonic() + _PROVEN_S
            self._proven.move_to_end(credential)
            if len(self._proven) > _MAX_PROVEN:
                self._proven.popitem(last=False)

    def _charge_bytes(self, client_id: str, size: int) -> None:
        self._limits.charge(Limited.BYTES, client_id, max(1, -(-size // KIB)))

    def _credential(self, scope: Scope) -> bytes | None:
        """Return a digest of the credential and the address it comes from, None where there is none."""
        given = dict(scope["headers"]).get(b"authorization")
        if given is None:
            return None
        text = _address(scope).encode() + b"\0" + given
        return hashlib.blake2b(text, key=self._salt, digest_size=16).digest()


def limits_of(request: Request) -> RequestLimits:
    found = request.app.state.limits
    assert isinstance(found, RequestLimits)
    return found


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return address_group(client[0]) if client else "unknown"
