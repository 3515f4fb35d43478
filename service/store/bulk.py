"""Inserting many rows: SQLAlchemy's own way of putting parameters together takes longer than SQLite's insert."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table


def insert_rows(
    connection: Connection,
    table: Table,
    common: Mapping[str, Any],
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    ignore_known: bool = False,
) -> None:
    """Insert rows that have some values in common.

    Args:
        connection: whose transaction goes on.
        table: to insert into.
        common: values by column that every row has, converted once.
        columns: of the values in each of `rows`, in their order.
        rows: at least one, as the application has them; each value is converted as its column wants it.
        ignore_known: leave out rows whose primary key is taken, instead of failing.
    """
    dialect = connection.dialect
    names = [*common, *columns]
    convert = {name: table.c[name].type.dialect_impl(dialect).bind_processor(dialect) for name in names}

    def converted(name: str, value: Any) -> Any:
        process = convert[name]
        return value if process is None else process(value)

    shared = tuple(converted(name, value) for name, value in common.items())
    changing = [(place, process) for place, name in enumerate(columns) if (process := convert[name]) is not None]
    parameters = []
    for row in rows:
        values = list(row)
        for place, process in changing:
            values[place] = process(values[place])
        parameters.append((*shared, *values))
    mark = "?" if dialect.paramstyle == "qmark" else "%s"
    known = " ON CONFLICT DO NOTHING" if ignore_known else ""
    marks = ", ".join([mark] * len(names))
    # names of our own tables and columns, and no value
    statement = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks}){known}"  # noqa: S608
    connection.exec_driver_sql(statement, parameters)
