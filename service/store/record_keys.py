"""Which key store a record belongs to, and whether that has the keys of the record."""

from sqlalchemy import Connection, func, insert, select, update

from service.errors import KeysMissing
from service.ports import SubjectCipher
from service.store.sealing import facts_context
from service.store.tables import encounters, key_stores, subjects


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


def check_newest_key(connection: Connection, cipher: SubjectCipher) -> None:
    """Raise KeysMissing where the key drawn last is not there: the key store is an older backup.

    Ids of keys sort by time, so that this is one row of an index.
    """
    newest = connection.execute(select(func.max(subjects.c.key_id))).scalar_one_or_none()
    if newest is None:
        return
    row = connection.execute(
        select(encounters.c.gallery_id, encounters.c.encounter_id, encounters.c.sealed_facts)
        .select_from(subjects.join(encounters))
        .where(subjects.c.key_id == newest, encounters.c.sealed_facts.is_not(None))
        .limit(1)
    ).one_or_none()
    if row is not None:
        cipher.open_all(row.gallery_id, [(row.sealed_facts, facts_context(row.gallery_id, row.encounter_id))])
