"""API keys: how they are made, and which caller one proves."""

import hmac
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from service.access import Caller, Client, ClientKey
from service.errors import BiodedupError
from service.logs import log_event
from service.ports import Clients

_log = logging.getLogger(__name__)

PREFIX = "bdk_"
"""What every API key begins with; no JSON Web Token does."""

KEPT_S = 2.0
"""For this long a key that held is not looked up again: as long another process's revocation may go unseen here."""

NOTED_EVERY = timedelta(minutes=1)

_MOST_KEPT = 10_000  # clients are made by administrators: only a fault makes more
_KEY = re.compile(r"bdk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NOBODY = ClientKey("", sha256(secrets.token_bytes(32)).digest(), datetime.min, datetime.min)  # noqa: DTZ901  (never compared: no secret has this digest)


def make_key(now: datetime, lifetime: timedelta) -> tuple[str, ClientKey]:
    """Return a new key, which is shown once, and what is kept of it."""
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    return f"{PREFIX}{key_id}_{secret}", ClientKey(key_id, _digest(secret), now, now + lifetime)


def _digest(secret: str) -> bytes:
    """Return what is kept of a secret.

    A secret has 256 random bits, so that nobody finds it by trying, however fast the digest is made. Source: NIST SP
    800-63B, 5.1.2.2: look-up secrets of 112 bits or more are kept under an approved one-way function, without a salt.
    """
    return sha256(secret.encode()).digest()


@dataclass(frozen=True, slots=True)
class _Kept:
    """A key that held when it was looked up."""

    secret_digest: bytes
    caller: Caller
    expires_at: datetime
    until_s: float


class ApiKeys:
    """Proves callers by their keys. May be used by several threads.

    Args:
        clients: the record of them.
        clock: time zone aware.
        seconds: a clock that never goes back.
    """

    def __init__(
        self, clients: Clients, clock: Callable[[], datetime], seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._clients = clients
        self._clock = clock
        self._seconds = seconds
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()
        self._forgotten = 0
        self._notes = ThreadPoolExecutor(1, "key-use")
        self._noting: set[str] = set()

    def remembered(self, text: str) -> Caller | None:
        """Return whose key this is, if that was looked up a moment ago; never reads the record."""
        parts = _KEY.fullmatch(text)
        kept = self._kept.get(parts[1]) if parts else None
        if parts is None or kept is None or self._seconds() >= kept.until_s or self._clock() >= kept.expires_at:
            return None
        return kept.caller if hmac.compare_digest(_digest(parts[2]), kept.secret_digest) else None

    def look_up(self, text: str) -> Caller | None:
        """Return whose key this is by the record; None: of nobody, or not any more.

        An unknown key id and a wrong secret take the same way: one look-up, one digest, one comparison.

        Raises:
            StoreUnavailable
        """
        parts = _KEY.fullmatch(text)
        if parts is None:
            return None
        before, now = self._forgotten, self._clock()
        client = self._clients.of_key(parts[1])
        key = _NOBODY if client is None else client.keys[0]
        is_right = hmac.compare_digest(_digest(parts[2]), key.secret_digest)
        if client is None or not is_right or client.revoked_at is not None or not key.holds_at(now):
            return None
        self._keep(client, key, before)
        self._note_use(key, now)
        return client.caller

    def forget(self) -> None:
        """Look every key up again, also one that is being looked up now."""
        with self._lock:
            self._forgotten += 1
            self._kept.clear()

    def close(self) -> None:
        self._notes.shutdown()

    def _keep(self, client: Client, key: ClientKey, before: int) -> None:
        with self._lock:
            if self._forgotten != before:  # what was read may be older than the revocation
                return
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            until_s = self._seconds() + KEPT_S
            self._kept[key.key_id] = _Kept(key.secret_digest, client.caller, key.expires_at, until_s)

    def _note_use(self, key: ClientKey, now: datetime) -> None:
        """Write down, behind the request, that a key is used; at most once a minute."""
        if key.last_used_at is not None and now - key.last_used_at < NOTED_EVERY:
            return
        with self._lock:
            if key.key_id in self._noting:
                return
            self._noting.add(key.key_id)

        def ended(noting: Future[None]) -> None:
            with self._lock:
                self._noting.discard(key.key_id)
            error = noting.exception()
            if isinstance(error, BiodedupError):  # the next look-up tries again
                log_event(_log, "key_use.unrecorded", level=logging.WARNING, code=error.code)

        self._notes.submit(self._clients.note_use, key.key_id, now).add_done_callback(ended)
