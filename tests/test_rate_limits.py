"""What a client may ask in a minute: counted by a sliding window, and over all processes."""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.errors import RateLimited, StoreUnavailable
from service.rate_limits import Allowance, Counters, Exchange, Limited, RateLimits, address_group


class Now:
    """A clock that stands still until it is moved; at the beginning of a minute."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


class Record:
    """Adds up, as the database does."""

    def __init__(self) -> None:
        self.sums: Counter[str] = Counter()
        self.is_away = False

    def add_rate_counts(self, counts: Mapping[str, int]) -> dict[str, int]:
        if self.is_away:
            raise StoreUnavailable("the record does not answer")
        self.sums.update(counts)
        return {key: self.sums[key] for key in counts}


def limits(now: Now, refused: list[Limited] | None = None, **allowance: int) -> RateLimits:
    return RateLimits(
        Allowance(**allowance), on_limited=(refused if refused is not None else []).append, clock=now
    )  # fmt: skip


def charge(limits: RateLimits, times: int, who: str = "client:a", what: Limited = Limited.REQUESTS) -> None:
    for _ in range(times):
        limits.charge(what, who)


def test_a_client_may_have_what_it_is_allowed_and_no_more() -> None:
    refused: list[Limited] = []
    limited = limits(Now(), refused, requests=5)
    charge(limited, 5)
    with pytest.raises(RateLimited, match="more than 5 requests in a minute"):
        limited.charge(Limited.REQUESTS, "client:a")
    assert refused == [Limited.REQUESTS]


def test_one_client_takes_nothing_from_another_and_one_kind_nothing_from_another() -> None:
    limited = limits(Now(), requests=5, searches=5)
    charge(limited, 5)
    charge(limited, 5, "client:b")
    charge(limited, 5, what=Limited.SEARCHES)


def test_what_is_not_limited_is_never_refused() -> None:
    charge(limits(Now(), searches=1), 1000)


def test_bytes_are_told_in_bytes_and_counted_in_kib() -> None:
    limited = limits(Now(), mib=1)
    limited.charge(Limited.BYTES, "client:a", 1024)
    with pytest.raises(RateLimited, match="more than 1048576 bytes"):
        limited.charge(Limited.BYTES, "client:a", 1)


def test_the_window_slides_so_that_the_turn_of_a_minute_doubles_nothing() -> None:
    now = Now()
    limited = limits(now, requests=60)
    now.seconds += 59
    charge(limited, 60)
    now.seconds += 2
    with pytest.raises(RateLimited) as refusal:
        charge(limited, 3)  # of the 60 a second ago 59 count yet
    assert 1 <= (refusal.value.retry_after_s or 0) <= 60
    now.seconds += 29.5
    charge(limited, 28)
    now.seconds += 120
    charge(limited, 60)


def test_looking_counts_nothing() -> None:
    limited = limits(Now(), requests=1)
    for _ in range(5):
        limited.check(Limited.REQUESTS, "client:a")
    charge(limited, 1)
    with pytest.raises(RateLimited):
        limited.check(Limited.REQUESTS, "client:a")


def test_counters_of_past_minutes_are_forgotten() -> None:
    now = Now()
    limited = limits(now, requests=5)
    for minute in range(50):
        now.seconds += 60
        charge(limited, 1, f"client:{minute}")
    assert len(limited.counters._new) <= 6


def test_processes_share_what_they_counted() -> None:
    now, record = Now(), Record()
    one, other = limits(now, requests=10), limits(now, requests=10)
    charge(one, 6)
    charge(other, 2)
    for each in (one, other, one):
        each.counters.exchange(record)
    charge(one, 2)
    with pytest.raises(RateLimited):
        one.charge(Limited.REQUESTS, "client:a")
    charge(other, 2)
    for each in (one, other):
        each.counters.exchange(record)
    with pytest.raises(RateLimited):
        other.charge(Limited.REQUESTS, "client:a")


def test_what_another_process_counted_the_minute_before_counts_too() -> None:
    now, record = Now(), Record()
    one, other = limits(now, requests=10), limits(now, requests=10)
    now.seconds += 50
    charge(one, 10)
    one.counters.exchange(record)
    now.seconds += 10.5
    charge(other, 1)  # it knows nothing of the minute before
    other.counters.exchange(record)
    with pytest.raises(RateLimited):
        other.charge(Limited.REQUESTS, "client:a")


def test_a_lost_database_loses_no_count_and_stops_nobody() -> None:
    now, record = Now(), Record()
    one = limits(now, requests=10)
    charge(one, 4)
    record.is_away = True
    with pytest.raises(StoreUnavailable):
        one.counters.exchange(record)
    charge(one, 4)
    record.is_away = False
    one.counters.exchange(record)
    assert max(record.sums.values()) == 8
    charge(one, 2)
    with pytest.raises(RateLimited):
        charge(one, 1)


def test_the_record_is_told_no_names() -> None:
    now, record = Now(), Record()
    one = limits(now, requests=10)
    charge(one, 1, "client:camp-7")
    one.counters.exchange(record)
    assert record.sums
    assert not any("camp" in key for key in record.sums)


def test_many_threads_get_no_more_than_one() -> None:
    limited = limits(Now(), requests=500)

    def ask(_: int) -> int:
        got = 0
        for _ in range(200):
            try:
                limited.charge(Limited.REQUESTS, "client:a")
                got += 1
            except RateLimited:
                pass  # counted by what was let through
        return got

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(ask, range(8))) == 500


def test_the_exchange_goes_on_after_a_failure_and_ends_when_closed() -> None:
    now, record = Now(), Record()
    one = limits(now, requests=1000)
    record.is_away = True
    exchange = Exchange(one.counters, record, every_s=0.01)
    charge(one, 3)
    for _ in range(500):
        if record.is_away:
            record.is_away = False
        if max(record.sums.values(), default=0) == 3:
            break
        exchange._ended.wait(0.01)
    exchange.close()
    assert max(record.sums.values()) == 3
    assert not exchange._thread.is_alive()


def test_a_network_of_one_customer_counts_as_one_address() -> None:
    assert address_group("2001:db8:1:2:aaaa::1") == address_group("2001:db8:1:2::ffff")
    assert address_group("2001:db8:1:2::1") != address_group("2001:db8:1:3::1")
    assert address_group("::ffff:192.0.2.1") == address_group("192.0.2.1") == "192.0.2.1"
    assert address_group("not an address") == "unknown"


def test_counters_alone_hold_nothing() -> None:
    assert Counters(Now()).get("anything") == 0
