"""How much a client may ask in a minute: requests, searches, bytes and failed sign-ins, counted over all replicas.

The counting is that of the `limits` library: a sliding window made of two counters, so that no burst at the turn of a
minute doubles what is allowed. What is counted is kept here and, where several processes serve one database, exchanged
with the record once a second: no request waits for the database, and a replica may be a second behind the others.
"""

import hashlib
import ipaddress
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from limits import RateLimitItemPerMinute
from limits.storage.base import SlidingWindowCounterSupport, Storage, TimestampedSlidingWindow
from limits.strategies import SlidingWindowCounterRateLimiter

from service.errors import BiodedupError, RateLimited
from service.logs import log_event

_log = logging.getLogger(__name__)

EXCHANGE_S = 1.0
WINDOW_S = 60
KIB = 1024


class Limited(StrEnum):
    """What is counted."""

    REQUESTS = "requests"
    SEARCHES = "searches"
    BYTES = "bytes"
    SIGN_INS = "sign_ins"  # failed ones, by address


_WORDS = {
    Limited.REQUESTS: "requests",
    Limited.SEARCHES: "searches",
    Limited.BYTES: "bytes",
    Limited.SIGN_INS: "sign-ins that failed",
}


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a client may have in a minute; 0: as much as it likes."""

    requests: int = 0
    searches: int = 0
    mib: int = 0
    failed_sign_ins: int = 0  # of an address

    def of(self, what: Limited) -> int:
        """Return the most of it; bytes are counted in KiB."""
        most = {
            Limited.REQUESTS: self.requests,
            Limited.SEARCHES: self.searches,
            Limited.BYTES: self.mib * KIB,
            Limited.SIGN_INS: self.failed_sign_ins,
        }
        return most[what]


class RateRecord(Protocol):
    """Where replicas add up what they counted."""

    def add_rate_counts(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Add to each counter, and return what each holds then; old ones are removed.

        Raises:
            StoreUnavailable
        """
        ...


class Counters(Storage, SlidingWindowCounterSupport, TimestampedSlidingWindow):
    """The storage that `limits` counts in: this process's counts, and the sums of all where they are exchanged.

    Not the library's own storage in memory, which starts a thread a request and knows nothing of other processes.
    """

    STORAGE_SCHEME = None

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._new: dict[str, int] = {}  # counted here since the last exchange
        self._under_way: dict[str, int] = {}  # being told to the record
        self._sums: dict[str, int] = {}  # of all processes, as the record last said
        self._window = 0

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        with self._lock:
            now = self._clock()
            self._forget_old(now, expiry)
            previous, current = self.sliding_window_keys(key, expiry, now)
            weighted = self._count(previous) * (1 - now / expiry % 1) + self._count(current)
            if math.floor(weighted) + amount > limit:
                return False
            self._new[current] = self._new.get(current, 0) + amount
            self._new.setdefault(previous, 0)  # asked for with the next exchange
            return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        with self._lock:
            now = self._clock()
            previous, current = self.sliding_window_keys(key, expiry, now)
            left = (1 - now / expiry % 1) * expiry
            return self._count(previous), left, self._count(current), left + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        for each in self.sliding_window_keys(key, expiry, self._clock()):
            self.clear(each)

    def exchange(self, record: RateRecord) -> None:
        """Tell the record what was counted, and take over what all counted. Raises StoreUnavailable."""
        with self._lock:
            self._forget_old(self._clock(), WINDOW_S)
            # what others counted of clients that are known here is asked for too, though nothing is to be told
            self._under_way, self._new = dict.fromkeys(self._sums, 0) | self._new, {}
        sums: dict[str, int] = {}
        try:
            if self._under_way:
                sums = record.add_rate_counts(self._under_way)
        except BiodedupError:
            with self._lock:
                for key, count in self._under_way.items():
                    self._new[key] = self._new.get(key, 0) + count
            raise
        finally:
            with self._lock:
                self._under_way = {}
                self._sums.update(sums)

    def _count(self, key: str) -> int:
        return self._sums.get(key, 0) + self._under_way.get(key, 0) + self._new.get(key, 0)

    def _forget_old(self, now: float, expiry: int) -> None:
        window = int(now / expiry)
        if window == self._window:
            return
        self._window = window
        for counts in (self._new, self._sums):
            for key in [key for key in counts if int(key.rpartition("/")[2]) < window - 1]:
                del counts[key]

    # what the library asks of every storage; the sliding window uses none of it
    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        return BiodedupError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:  # noqa: ARG002  (the library's form)
        with self._lock:
            self._new[key] = self._new.get(key, 0) + amount
            return self._count(key)

    def get(self, key: str) -> int:
        with self._lock:
            return self._count(key)

    def get_expiry(self, key: str) -> float:  # noqa: ARG002  (the library's form)
        return self._clock()

    def check(self) -> bool:
        return True

    def reset(self) -> int | None:
        with self._lock:
            self._new, self._sums = {}, {}
            return None

    def clear(self, key: str) -> None:
        with self._lock:
            self._new.pop(key, None)
            self._sums.pop(key, None)


class RateLimits:
    """What each client has left of its minute. Safe for use by many threads."""

    def __init__(
        self,
        allowance: Allowance,
        counters: Counters | None = None,
        *,
        on_limited: Callable[[Limited], None] = lambda _what: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_limited` is told of each refusal."""
        self._allowance = allowance
        self.counters = counters or Counters(clock)
        self._clock = clock
        self._limiter = SlidingWindowCounterRateLimiter(self.counters)
        self._items = {what: RateLimitItemPerMinute(most) for what in Limited if (most := allowance.of(what))}
        self._on_limited = on_limited

    def charge(self, what: Limited, who: str, cost: int = 1) -> None:
        """Count it; raises RateLimited, and counts nothing, where that is too much for this minute."""
        item = self._items.get(what)
        if item is not None and not self._limiter.hit(item, what, _name(who), cost=cost):
            raise self._refusal(what, who)

    def check(self, what: Limited, who: str) -> None:
        """Count nothing; raises RateLimited where nothing is left of this minute."""
        item = self._items.get(what)
        if item is not None and not self._limiter.test(item, what, _name(who)):
            raise self._refusal(what, who)

    def _refusal(self, what: Limited, who: str) -> RateLimited:
        self._on_limited(what)
        item = self._items[what]
        reset = self._limiter.get_window_stats(item, what, _name(who)).reset_time
        wait_s = min(max(math.ceil(reset - self._clock()), 1), item.get_expiry())
        most = self._allowance.of(what) * (KIB if what is Limited.BYTES else 1)
        return RateLimited(f"more than {most} {_WORDS[what]} in a minute; try again later", retry_after_s=wait_s)


class Exchange:
    """A thread that tells the record what this process counted, once a second, until it is closed."""

    def __init__(self, counters: Counters, record: RateRecord, every_s: float = EXCHANGE_S) -> None:
        self._counters, self._record, self._every_s = counters, record, every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rate-limits", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        is_told = False
        while not self._ended.wait(self._every_s):
            try:
                self._counters.exchange(self._record)
                is_told = False
            except BiodedupError as error:
                # each process goes on with what it counted itself; nobody is let in or turned away by a lost database
                if not is_told:
                    log_event(_log, "rate_limits.not_shared", level=logging.WARNING, error=error)
                is_told = True


def address_group(address: str) -> str:
    """Return whom an address stands for: itself, or of IPv6 the /64 network, all of which one customer has."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)


def _name(who: str) -> str:
    """Return a name of fixed length: ids and addresses are not written into the record."""
    return hashlib.blake2b(who.encode(), digest_size=16).hexdigest()
