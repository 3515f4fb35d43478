"""The counters that replicas share hold on both databases what they hold in memory."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from service.store.sql_store import SqlStore
from tests import postgres
from tests.store.building import SQL_KINDS, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=SQL_KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[SqlStore]:
    url = f"sqlite:///{tmp_path}/record.sqlite" if request.param == "sqlite" else postgres.fresh_database()
    store = SqlStore(url, clock)
    store.migrate()
    yield store
    store.close()


def test_counts_add_up_and_are_told(store: SqlStore) -> None:
    assert store.add_rate_counts({"a": 3, "b": 0}) == {"a": 3, "b": 0}
    assert store.add_rate_counts({"a": 4, "c": 1}) == {"a": 7, "c": 1}
    assert store.add_rate_counts({"a": 0}) == {"a": 7}
    assert store.add_rate_counts({}) == {}


def test_more_clients_than_one_statement_takes_are_counted(store: SqlStore) -> None:
    many = {f"k{number}": number for number in range(22_000)}  # PostgreSQL takes 65,535 parameters, three of each
    assert store.add_rate_counts(many) == many
    assert store.add_rate_counts(many) == {key: 2 * count for key, count in many.items()}


def test_processes_at_once_lose_nothing(store: SqlStore) -> None:
    def tell(number: int) -> None:
        keys = [f"k{(number + step) % 5}" for step in range(5)]
        for _ in range(20):
            store.add_rate_counts(dict.fromkeys(keys, 1))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(tell, range(4)))
    assert store.add_rate_counts({f"k{number}": 0 for number in range(5)}) == {f"k{number}": 80 for number in range(5)}


def test_old_counters_are_removed(store: SqlStore, clock: Clock) -> None:
    store.add_rate_counts({"old": 5})
    clock.now += timedelta(minutes=4)
    store.add_rate_counts({"new": 1})
    with store._engine.connect() as connection:
        assert connection.execute(text("SELECT counter FROM rate_counts")).scalars().all() == ["new"]
