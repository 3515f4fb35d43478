"""Each database is set up so that a commit is durable and a writer alone; its errors stay inside."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from service.errors import InvalidRequest, SettingsInvalid, StoreUnavailable
from service.store.sql_store import SqlStore
from tests import postgres
from tests.store.building import Clock, enrol, new_enrolment, new_gallery, open_store


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[SqlStore]:
    for store in open_store("sqlite", tmp_path, Clock()):
        assert isinstance(store, SqlStore)
        yield store


@pytest.fixture
def postgresql_store(tmp_path: Path) -> Iterator[SqlStore]:
    for store in open_store("postgresql", tmp_path, Clock()):
        assert isinstance(store, SqlStore)
        yield store


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://localhost/x", "sqlite://", "sqlite:///:memory:"])
def test_another_url_than_a_file_or_postgresql_is_refused(url: str) -> None:
    with pytest.raises(SettingsInvalid):
        SqlStore(url)


def test_every_sqlite_connection_is_durable_and_erases(sqlite_store: SqlStore) -> None:
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1, "busy_timeout": 30000}

    with sqlite_store.writing("camp") as tx:
        tx.insert_enrolment(new_enrolment("a"))
    with sqlite_store.writing("camp") as tx:
        tx.erase_subject("s-a")  # it empties the log on a connection that must be as before
    with sqlite_store._engine.connect() as one, sqlite_store._engine.connect() as other:
        for connection in (one, other):
            found = {name: connection.execute(text(f"PRAGMA {name}")).scalar() for name in expected}
            assert found == expected


def test_a_sqlite_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    store = SqlStore(f"sqlite:///{tmp_path}/folder")

    with pytest.raises(StoreUnavailable):
        store.ping()


def test_two_processes_stores_on_one_sqlite_file_take_turns(sqlite_store: SqlStore) -> None:
    other = SqlStore(str(sqlite_store._engine.url), Clock())
    holds_lock = threading.Event()

    def write() -> int:
        assert holds_lock.wait(20)
        return enrol(other, new_enrolment("other")).seq

    with ThreadPoolExecutor(1) as pool:
        with sqlite_store.writing("camp") as tx:
            answer = pool.submit(write)
            holds_lock.set()
            assert not answer.done()
            tx.insert_enrolment(new_enrolment("first"))
        assert answer.result(20) == 2
    other.close()


@pytest.mark.postgres
def test_a_postgresql_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    store = SqlStore(f"postgresql://postgres@/nothing?host={tmp_path}")

    with pytest.raises(StoreUnavailable) as caught:
        store.ping()

    assert str(tmp_path) not in caught.value.message


@pytest.mark.postgres
def test_a_connection_that_the_server_dropped_is_replaced(postgresql_store: SqlStore) -> None:
    other = SqlStore(postgres.fresh_database())
    name = postgresql_store._engine.url.database
    with other._engine.connect() as connection:
        dropped = connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name}
        ).all()
    other.close()

    assert len(dropped) >= 1
    assert enrol(postgresql_store, new_enrolment("a")).seq == 1


@pytest.mark.postgres
def test_text_that_postgresql_cannot_hold_is_the_callers_mistake(postgresql_store: SqlStore) -> None:
    with pytest.raises(InvalidRequest):
        postgresql_store.create_gallery(new_gallery("nul\x00"))


@pytest.mark.postgres
@pytest.mark.parametrize(("level", "expected"), [("READ COMMITTED", [1]), ("REPEATABLE READ", None)])
def test_only_read_committed_lets_a_waiting_writer_go_on_with_what_it_missed(
    tmp_path: Path, level: str, expected: list[int] | None
) -> None:
    store = SqlStore(postgres.fresh_database(), Clock(), isolation_level=level)
    store.create_gallery(new_gallery())
    begins = threading.Event()

    def second() -> list[int] | None:
        begins.set()
        try:
            with store.writing("camp") as tx:
                return [each.seq for each in tx.changes_after("camp", 0, 10)]
        except StoreUnavailable:
            return None

    with ThreadPoolExecutor(1) as pool:
        with store.writing("camp") as tx:
            tx.insert_enrolment(new_enrolment("first"))
            answer = pool.submit(second)
            assert begins.wait(20)
            _wait_for_a_blocked_writer(store)
        assert answer.result(20) == expected
    store.close()


def _wait_for_a_blocked_writer(store: SqlStore) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with store._engine.connect() as connection:
        while connection.execute(waiting).scalar() == 0:
            connection.rollback()
