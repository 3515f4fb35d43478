"""The key store: wrapped keys in a database of their own, SQLite or PostgreSQL.

Who holds the record, or a dump or backup of it, has no key; who holds the key store has no template, and no key either
without the master key. What is deleted here is gone for good: the files of SQLite are overwritten at once.
"""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    delete,
    func,
    insert,
    inspect,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from service.errors import KeysMissing, StoreUnavailable, VarUnusable
from service.ports import GalleryKey, SubjectKey
from service.store.bulk import insert_rows
from service.store.engine import begin, empty_log, make_engine
from service.store.keys import insert_or_ignore
from service.store.parts import in_parts
from service.store.tables import Identifier, UtcDateTime

keys_metadata = MetaData()

facts = Table("facts", keys_metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

gallery_keys = Table(
    "gallery_keys",
    keys_metadata,
    Column("gallery_id", Identifier, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("master_key_id", Text, nullable=False, index=True),
)

subject_keys = Table(
    "subject_keys",
    keys_metadata,
    Column("key_id", Identifier, primary_key=True),
    Column("gallery_id", Identifier, nullable=False),
    Column("version", Integer, nullable=False),  # of the gallery key
    Column("wrapped", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# so that what cannot be opened since its subject was erased is told from what cannot be opened since a key was lost
destroyed_keys = Table(
    "destroyed_keys",
    keys_metadata,
    Column("key_id", Identifier, primary_key=True),
    Column("destroyed_at", UtcDateTime, nullable=False),
    sqlite_with_rowid=False,
)

_STORE_ID, _MASTER_KEY, _PURGED_AT = "store_id", "master_key_id", "purged_at"
_MAKING_LOCK = 0x62696F6465646B79  # any constant that no other user of the database takes
_SUBJECT_KEYS = select(subject_keys).where(subject_keys.c.key_id.in_(bindparam("wanted", expanding=True)))


class SqlKeyStore:
    """`service.ports.KeyStore` over SQLAlchemy Core.

    Args:
        url: `sqlite:///path` or `postgresql://...`, not the database of the record.
        may_create: whether to make it where there is none yet.

    Raises:
        KeysMissing: there is none, and it must not be made.
        SettingsInvalid: the URL names no file on SQLite and no PostgreSQL database.
        StoreUnavailable, VarUnusable
    """

    def __init__(self, url: str, *, may_create: bool = True) -> None:
        parsed = make_url(url) if url.startswith("sqlite") else None
        if parsed is not None and parsed.database:
            _expect_file(Path(parsed.database), may_create=may_create)
        self._engine = make_engine(url, "READ COMMITTED")
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._store_id = self._open(may_create=may_create)
        # a process that was killed may have left some in SQLite's log
        self._unpurged_since: datetime | None = datetime.now(UTC) if self._is_sqlite else None

    @property
    def store_id(self) -> str:
        return self._store_id

    def close(self) -> None:
        self._engine.dispose()

    def gallery_keys(self, gallery_id: str | None = None) -> list[GalleryKey]:
        """Return the keys of a gallery, or (None) of all, by gallery and version. Raises StoreUnavailable."""
        wanted = select(gallery_keys).order_by(gallery_keys.c.gallery_id, gallery_keys.c.version)
        if gallery_id is not None:
            wanted = wanted.where(gallery_keys.c.gallery_id == gallery_id)
        with self._transaction(writes=False) as connection:
            return [GalleryKey(**row._mapping) for row in connection.execute(wanted)]

    def add_gallery_key(self, key: GalleryKey) -> bool:
        """Keep a new gallery key; see `service.ports.KeyStore`. Raises StoreUnavailable."""
        row = {name: getattr(key, name) for name in key.__slots__}
        with self._transaction(writes=True) as connection:
            # the lock: whoever changes the master key waits until this row is there to be wrapped anew
            first = insert_or_ignore(connection.dialect.name, facts)
            connection.execute(first, {"name": _MASTER_KEY, "value": key.master_key_id})
            wraps_now = select(facts.c.value).where(facts.c.name == _MASTER_KEY).with_for_update()
            if connection.execute(wraps_now).scalar_one() != key.master_key_id:
                return False
            return connection.execute(insert_or_ignore(connection.dialect.name, gallery_keys), row).rowcount > 0

    def set_master_key(self, key_id: str) -> None:
        """From now on this master key wraps; see `service.ports.KeyStore`. Raises StoreUnavailable."""
        fact = {"name": _MASTER_KEY, "value": key_id}
        with self._transaction(writes=True) as connection:
            connection.execute(insert_or_ignore(connection.dialect.name, facts), fact)
            connection.execute(update(facts).where(facts.c.name == _MASTER_KEY).values(value=key_id))

    def rewrap(self, before: GalleryKey, after: GalleryKey) -> bool:
        """Put a gallery key in the place of the same one; False where it changed since. Raises StoreUnavailable."""
        is_before = (
            gallery_keys.c.gallery_id == before.gallery_id,
            gallery_keys.c.version == before.version,
            gallery_keys.c.master_key_id == before.master_key_id,
        )
        values = {"wrapped": after.wrapped, "master_key_id": after.master_key_id}
        with self._transaction(writes=True) as connection:
            return connection.execute(update(gallery_keys).where(*is_before).values(values)).rowcount > 0

    def add_subject_keys(self, keys: Sequence[SubjectKey]) -> None:
        """Raises StoreUnavailable."""
        names = ("key_id", "gallery_id", "version", "wrapped")
        with self._transaction(writes=True) as connection:
            rows = ((each.key_id, each.gallery_id, each.version, each.wrapped) for each in keys)
            insert_rows(connection, subject_keys, {}, names, rows)

    def subject_keys(self, key_ids: Sequence[str]) -> dict[str, SubjectKey]:
        """Return those that are there, by id. Raises StoreUnavailable."""
        found: dict[str, SubjectKey] = {}
        with self._transaction(writes=False) as connection:
            for part in in_parts(key_ids):
                for row in connection.execute(_SUBJECT_KEYS, {"wanted": part}):
                    found[row[0]] = SubjectKey(row[0], row[1], row[2], row[3])
        return found

    def discard(self, key_ids: Sequence[str]) -> None:
        """Delete keys that nothing was sealed with. Raises StoreUnavailable."""
        with self._transaction(writes=True) as connection:
            _delete(connection, key_ids)

    def destroy(self, key_ids: Sequence[str]) -> None:
        """Destroy keys for good and remember that. Raises StoreUnavailable."""
        if not key_ids:
            return
        with self._transaction(writes=True) as connection:
            _delete(connection, key_ids)
            now = self._now(connection)  # after the deletion: a purge that has begun by then waits for this transaction
            rows = [{"key_id": each, "destroyed_at": now} for each in key_ids]
            connection.execute(insert_or_ignore(connection.dialect.name, destroyed_keys), rows)
        if self._is_sqlite:
            self._unpurged_since = self._unpurged_since or now
            self.purge()

    def all_destroyed(self) -> dict[str, datetime]:
        """Return every key that `destroy` destroyed, and when. Raises StoreUnavailable."""
        with self._transaction(writes=False) as connection:
            return {row.key_id: row.destroyed_at for row in connection.execute(select(destroyed_keys))}

    def unpurged_since(self) -> datetime | None:
        """Return since when a destroyed key may lie in the files, see `service.ports.KeyStore`."""
        if self._is_sqlite:
            return self._unpurged_since
        with self._transaction(writes=False) as connection:
            purged = connection.execute(select(facts.c.value).where(facts.c.name == _PURGED_AT)).scalar_one_or_none()
            since = datetime.fromisoformat(purged) if purged else datetime.min.replace(tzinfo=UTC)
            later = select(func.min(destroyed_keys.c.destroyed_at)).where(destroyed_keys.c.destroyed_at > since)
            oldest: datetime | None = connection.execute(later).scalar_one()
            return oldest

    def purge(self) -> None:
        """Leave nothing of destroyed keys in the files: SQLite's log is emptied, PostgreSQL's table is written anew.

        PostgreSQL overwrites nothing, and VACUUM alone leaves the bytes in the free room of its pages. While it writes
        the table anew, whoever needs keys waits: a second for some hundred thousand.

        Raises:
            StoreUnavailable: all is as before.
        """
        if self._is_sqlite:
            if empty_log(self._engine):
                self._unpurged_since = None
            return
        with self._transaction(writes=False) as connection:
            began = self._now(connection)
        try:
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM FULL subject_keys")
        except SQLAlchemyError as error:
            raise StoreUnavailable("the key store does not answer") from error
        fact = {"name": _PURGED_AT, "value": began.isoformat()}
        with self._transaction(writes=True) as connection:
            connection.execute(insert_or_ignore(connection.dialect.name, facts), fact)
            connection.execute(update(facts).where(facts.c.name == _PURGED_AT).values(value=fact["value"]))

    def _now(self, connection: Connection) -> datetime:
        """Return the time: one clock for all processes that share the database, whatever their machines say."""
        if self._is_sqlite:
            return datetime.now(UTC)
        now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)

    def destroyed(self, key_ids: Sequence[str]) -> set[str]:
        """Return those of the keys that `destroy` destroyed. Raises StoreUnavailable."""
        with self._transaction(writes=False) as connection:
            return {
                key_id
                for part in in_parts(key_ids)
                for key_id in connection.execute(
                    select(destroyed_keys.c.key_id).where(destroyed_keys.c.key_id.in_(part))
                ).scalars()
            }

    def _open(self, *, may_create: bool) -> str:
        """Make what is missing and return the id of the store."""
        with self._transaction(writes=True) as connection:
            if not self._is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MAKING_LOCK})
            if not may_create and not inspect(connection).has_table(facts.name):
                raise _missing()
            keys_metadata.create_all(connection)
            wanted = select(facts.c.value).where(facts.c.name == _STORE_ID)
            known: str | None = connection.execute(wanted).scalar_one_or_none()
            if known is not None:
                return known
            if not may_create:
                raise _missing()
            drawn = secrets.token_hex(16)
            connection.execute(insert(facts), {"name": _STORE_ID, "value": drawn})
            return drawn

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                begin(connection, writes=writes)
                yield connection
                connection.commit()
        except SQLAlchemyError as error:
            raise StoreUnavailable("the key store does not answer") from error


def _delete(connection: Connection, key_ids: Sequence[str]) -> None:
    for part in in_parts(key_ids):
        connection.execute(delete(subject_keys).where(subject_keys.c.key_id.in_(part)))


def _expect_file(path: Path, *, may_create: bool) -> None:
    """Make the file, for its owner only, whatever the umask; SQLite gives its log the same rights."""
    if path.exists():
        return
    if not may_create:
        raise _missing()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise VarUnusable(f"the key store cannot be made: {error.strerror or 'no access'}") from error


def _missing() -> KeysMissing:
    return KeysMissing(
        "the record is encrypted, and its key store is not there: restore it from its newest backup, or point "
        "BIODEDUP_KEY_DATABASE_URL to it; nothing was written"
    )
