"""A record as an earlier version left it: what the code of today writes, in the columns that there were then."""

from alembic import command
from sqlalchemy import MetaData, delete, insert, select

from service.store.migrations.upgrade import _config
from service.store.sql_store import SqlStore
from service.store.tables import metadata


def migrate_to(store: SqlStore, revision: str) -> None:
    with store._engine.connect() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()


def copy_rows(newest: SqlStore, older: SqlStore) -> None:
    """Copy what `newest` holds into the tables and columns of `older`."""
    known = MetaData()
    with newest._engine.connect() as read, older._engine.connect() as write:
        known.reflect(write)
        for table in metadata.sorted_tables:
            if table.name not in known.tables:
                continue
            columns = [table.c[column.name] for column in known.tables[table.name].columns]
            rows = [dict(row._mapping) for row in read.execute(select(*columns))]
            write.execute(delete(table))  # what a migration itself put there, such as the service's chain
            if rows:
                write.execute(insert(table), rows)
        write.commit()
