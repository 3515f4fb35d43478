"""Idempotency keys: the answers that are remembered for a day."""

from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Connection, Insert, Table, delete
from sqlalchemy.dialects import postgresql, sqlite

from service.store.tables import idempotency_keys

KEY_RETENTION = timedelta(hours=24)  # promised to callers: the same key within this time gives the same answer


@cache
def insert_or_ignore(dialect_name: str, table: Table) -> Insert:
    """Return an INSERT that does nothing where the primary key is taken; see its `rowcount`."""
    statement: Insert
    if dialect_name == "sqlite":
        statement = sqlite.insert(table).on_conflict_do_nothing(index_elements=table.primary_key)
    else:
        statement = postgresql.insert(table).on_conflict_do_nothing(index_elements=table.primary_key)
    # without it SQLAlchemy forgets how many rows an INSERT made
    return statement.execution_options(preserve_rowcount=True)


def purge_keys(connection: Connection, gallery_id: str, now: datetime) -> None:
    """Forget the keys of a gallery that are older than `KEY_RETENTION`."""
    columns = idempotency_keys.c
    connection.execute(
        delete(idempotency_keys).where(columns.gallery_id == gallery_id, columns.created_at < now - KEY_RETENTION)
    )


def insert_key(connection: Connection, row: dict[str, Any]) -> bool:
    """Remember an answer under its key; False when the key belongs to an answer of the last day.

    Args:
        row: columns of `idempotency_keys`, with at least `gallery_id`, `key` and `created_at`.
    """
    statement = insert_or_ignore(connection.dialect.name, idempotency_keys)
    if connection.execute(statement, row).rowcount == 1:
        return True
    # perhaps only a key of yesterday that nobody has purged yet
    purge_keys(connection, row["gallery_id"], row["created_at"])
    return connection.execute(statement, row).rowcount == 1
