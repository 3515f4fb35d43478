"""Connections to SQLite and PostgreSQL, each set up so that a commit is durable and a write holds its lock."""

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from sqlite3 import OperationalError
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from service.errors import InvalidRequest, SettingsInvalid, StoreUnavailable

LOCK_TIMEOUT_S = 30  # longer than any write transaction; then the caller hears 503 instead of waiting for ever
CONNECT_TIMEOUT_S = 5
POOL_SIZE = 10  # kept open
POOL_OVERFLOW = 30  # the service runs requests in up to 40 threads, each with at most one connection
_JSON = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def make_engine(url: str, isolation_level: str) -> Engine:
    """Return an engine for `sqlite:///path` or `postgresql://...`.

    Args:
        url: the database; nothing is opened yet.
        isolation_level: of write transactions on PostgreSQL. Only READ COMMITTED lets a transaction that waited for the
            gallery's lock see what its predecessor committed; SQLite writers are alone anyway.

    Raises:
        SettingsInvalid: not the address of a file on SQLite or of a PostgreSQL database.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingsInvalid("the store's URL cannot be read") from error
    if parsed.get_backend_name() == "sqlite":
        return _make_sqlite_engine(parsed)
    if parsed.get_backend_name() == "postgresql":
        return _make_postgresql_engine(parsed, isolation_level)
    raise SettingsInvalid("the store's URL must begin with sqlite:/// or postgresql://")


def _make_sqlite_engine(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise SettingsInvalid("the store's SQLite URL must name a file")
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url.set(drivername="sqlite+pysqlite"),
        connect_args={"timeout": LOCK_TIMEOUT_S},
        # the connection used last still has the pages in its cache: another's write empties the caches of the others
        pool_use_lifo=True,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        hide_parameters=True,
        json_serializer=_to_json,
    )
    event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: SqliteConnection, _entry: ConnectionPoolEntry) -> None:
    # the driver's own BEGIN comes late and is never IMMEDIATE: `begin` says it instead
    connection.isolation_level = None
    # of a new file: a page of 4 KB holds one template of 512 dimensions and stays half empty, one of 8 KB holds three
    connection.execute("PRAGMA page_size=8192")
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous=FULL")
    # the log is emptied by `checkpoints`; should that fail again and again, SQLite does it itself at 80 MB
    connection.execute("PRAGMA wal_autocheckpoint=10000")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")


def _switch_to_wal(connection: SqliteConnection) -> None:
    # the first switch of a new file needs it alone, and for that SQLite does not wait by itself
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def begin(connection: Connection, *, writes: bool) -> None:
    """Begin a transaction; on SQLite, one that writes is alone from its first statement.

    A transaction that reads first and writes later could fail half-way with SQLITE_BUSY. An event listener would do
    this too, and costs a sixth of each statement's time.
    """
    connection.begin()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def empty_log(engine: Engine) -> bool:
    """Empty SQLite's write-ahead log, where erased rows would lie until it is used again; return whether it is.

    It is not while another connection reads an older state.
    """
    is_empty = False
    with closing(engine.raw_connection()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA busy_timeout=1000")
        # the erasure is committed: a log that cannot be emptied now must not turn its answer into an error
        with suppress(OperationalError):
            is_busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            is_empty = not is_busy
        cursor.execute(f"PRAGMA busy_timeout={LOCK_TIMEOUT_S * 1000}")
    return is_empty


def _to_json(value: object) -> str:
    """Return compact JSON. Raises ValueError on NaN and infinity, which PostgreSQL would refuse."""
    return _JSON.encode(value)


def _make_postgresql_engine(url: URL, isolation_level: str) -> Engine:
    options = [str(url.query.get("options", "")), "-c timezone=UTC", f"-c lock_timeout={LOCK_TIMEOUT_S * 1000}"]
    connect_args: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S, "options": " ".join(options).strip()}
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        isolation_level=isolation_level,
        connect_args=connect_args,
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_pre_ping=True,
        hide_parameters=True,
        json_serializer=_to_json,
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the database throws into our errors, without its words: they can hold SQL and values.

    Raises:
        InvalidRequest: a value has no place in the database, such as a NUL character in a text.
        StoreUnavailable: everything else.
    """
    try:
        yield
    except (DataError, UnicodeEncodeError) as error:
        raise InvalidRequest("a value cannot be stored") from error
    except SQLAlchemyError as error:
        raise StoreUnavailable("the record does not answer") from error
