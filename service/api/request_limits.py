"""Applies the limits of clients to requests: what each counts as, and whose it is."""

import hashlib
import re
import secrets
import time
from collections import OrderedDict

from starlette.types import Scope

from service.access import Caller
from service.errors import RateLimited
from service.rate_limits import KIB, Limited, RateLimits, address_group

_SEARCH = re.compile(r"/v1/galleries/[^/]+/(enrolments|identifications|verifications|sweeps)")
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
        scope.setdefault("state", {})["charged_client"] = caller.client_id
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
        address = _address(scope)
        try:
            self._limits.check(Limited.SIGN_INS, address)
        except RateLimited:
            credential = self._credential(scope, address)
            if credential is None or self._proven.get(credential, 0.0) < time.monotonic():
                raise

    def answered(self, scope: Scope, status: int) -> None:
        """Learn from an answer whether the credential held."""
        address = _address(scope)
        if status == _UNAUTHENTICATED:
            try:
                self._limits.charge(Limited.SIGN_INS, address)
            except RateLimited:
                return  # this answer is on its way; the next request is refused
        elif "charged_client" in scope.get("state", {}) and (credential := self._credential(scope, address)):
            self._proven[credential] = time.monotonic() + _PROVEN_S
            self._proven.move_to_end(credential)
            if len(self._proven) > _MAX_PROVEN:
                self._proven.popitem(last=False)

    def _charge_bytes(self, client_id: str, size: int) -> None:
        self._limits.charge(Limited.BYTES, client_id, max(1, -(-size // KIB)))

    def _credential(self, scope: Scope, address: str) -> bytes | None:
        given = dict(scope["headers"]).get(b"authorization")
        if given is None:
            return None
        return hashlib.blake2b(address.encode() + b"\0" + given, key=self._salt, digest_size=16).digest()


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return address_group(client[0]) if client else "unknown"
