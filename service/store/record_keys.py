"""Which key store a record belongs to, and whether that has the keys of the record."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, insert, select, update

from service.errors import KeysMissing
from service.ports import SubjectCipher
from service.store.sealing import facts_context
from service.store.tables import encounters, galleries, key_stores, subjects


def key_store_id(connection: Connection) -> str | None:
    """Return the id of the key store that the record was encrypted with, None where it was not yet."""
    return connection.execute(select(key_stores.c.key_store_id)).scalar_one_or_none()


def adopt(connection: Connection, store_id: str) -> None:
    """Remember the key store. Raises KeysMissing: another process was a moment earlier, with another one."""
    known = key_store_id(connection)
    if known is None:
        connection.execute(insert(key_stores), {"key_store_id": store_id, "purge_due": False})
    elif known != store_id:
        raise KeysMissing(
            "another process encrypts this record with another key store: point BIODEDUP_KEY_DATABASE_URL of all to one"
        )


def set_purge_due(connection: Connection, *, is_due: bool) -> None:
    connection.execute(update(key_stores).values(purge_due=is_due))


def is_purge_due(connection: Connection) -> bool:
    return bool(connection.execute(select(key_stores.c.purge_due)).scalar())


def check_keys(connection: Connection, cipher: SubjectCipher) -> None:
    """Raise KeysMissing where a key of a few subjects is not there: the key store is an older backup, or a part.

    The key drawn last of all, since ids of keys sort by time; and of each gallery the first encounter, one in the
    middle and the last. Each is a row or two of an index.
    """
    columns = subjects.c.gallery_id, subjects.c.subject_id
    newest = select(*columns).where(subjects.c.key_id.is_not(None)).order_by(subjects.c.key_id.desc()).limit(1)
    for row in connection.execute(newest).all():
        _expect_keys(
            connection, cipher, encounters.c.gallery_id == row.gallery_id, encounters.c.subject_id == row.subject_id
        )
    for gallery_id, last_seq in connection.execute(select(galleries.c.gallery_id, galleries.c.last_seq)).all():
        is_its, seq = encounters.c.gallery_id == gallery_id, encounters.c.seq
        _expect_keys(connection, cipher, is_its)
        _expect_keys(connection, cipher, is_its, seq >= last_seq // 2)
        _expect_keys(connection, cipher, is_its, order=seq.desc())


def _expect_keys(
    connection: Connection,
    cipher: SubjectCipher,
    *wanted: ColumnElement[bool],
    order: ColumnElement[Any] = encounters.c.seq,
) -> None:
    """Open what the first encounter of those that are wanted holds. Raises KeysMissing."""
    row = connection.execute(
        select(encounters.c.gallery_id, encounters.c.encounter_id, encounters.c.sealed_facts)
        .where(*wanted, encounters.c.sealed_facts.is_not(None))
        .order_by(order)
        .limit(1)
    ).one_or_none()
    if row is not None:
        cipher.open_all(row.gallery_id, [(row.sealed_facts, facts_context(row.gallery_id, row.encounter_id))])
