"""Copies of the key store: as it was at one moment, into a file of SQLite, and back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, func, insert, inspect, make_url, select
from sqlalchemy.exc import SQLAlchemyError

from service.errors import KeysMissing, StoreUnavailable
from service.store.engine import begin, make_engine
from service.store.key_store import facts, gallery_keys, keys_metadata, subject_keys

_ROWS = 5000  # a megabyte


def copy_keys(source_url: str, target_url: str) -> int:
    """Copy a key store as it is now into an empty database, in one transaction; return how many subject keys it has.

    The service may go on meanwhile.

    Raises:
        KeysMissing: the source is no key store, or the target has keys already.
        SettingsInvalid: a URL cannot be read.
        StoreUnavailable
    """
    file = make_url(source_url).database if source_url.startswith("sqlite") else None
    if file is not None and not Path(file).is_file():
        raise _nothing_there()  # to connect would make it
    source, target = make_engine(source_url, "REPEATABLE READ"), make_engine(target_url, "READ COMMITTED")
    try:
        with _answering(), source.connect() as here, target.connect() as there:
            begin(here, writes=False)
            begin(there, writes=True)
            _expect_keys(here)
            _expect_nothing(there)
            for table in keys_metadata.sorted_tables:
                rows = here.execution_options(stream_results=True, yield_per=_ROWS).execute(select(table))
                for part in rows.partitions(_ROWS):
                    there.execute(insert(table), [dict(row._mapping) for row in part])
            count = there.execute(select(func.count()).select_from(subject_keys)).scalar_one()
            there.commit()
            return count
    finally:
        _close(source, target)


def _expect_keys(connection: Connection) -> None:
    if not inspect(connection).has_table(facts.name):
        raise _nothing_there()


def _nothing_there() -> KeysMissing:
    return KeysMissing("there is no key store to copy")


def _expect_nothing(connection: Connection) -> None:
    keys_metadata.create_all(connection)
    for table in (facts, gallery_keys, subject_keys):
        if connection.execute(select(func.count()).select_from(table)).scalar_one():
            raise KeysMissing("there are keys already where the copy is to go: nothing was overwritten")


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreUnavailable("the key store does not answer") from error


def _close(*engines: Engine) -> None:
    for engine in engines:
        engine.dispose()


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"
