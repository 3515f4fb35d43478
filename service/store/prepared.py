"""Statements that every enrolment runs, compiled once.

SQLAlchemy looks up the compiled form of a statement, and lays out its values, anew each time: for so small statements
that takes several times as long as the database does.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, CursorResult, Dialect, Insert, Select, Update
from sqlalchemy.sql.compiler import SQLCompiler

Statement = Select[*tuple[Any, ...]] | Insert | Update
Values = Mapping[str, Any]
_Process = Callable[[Any], Any] | None
"""What a type makes of a value, on its way in or out; None: it stays as it is."""


class Prepared:
    """A statement that gets each of its values by name when it runs. Safe for use by many threads.

    It is compiled for the first engine of each dialect that runs it: all of one dialect are made alike
    (`service.store.engine`). The values go through their columns' types, as with `Connection.execute`.
    """

    def __init__(self, statement: Statement | Callable[[str], Statement]) -> None:
        """`statement`, or what makes it by the name of a dialect. An INSERT fills the columns that get a value."""
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def run(self, connection: Connection, values: Values) -> CursorResult[Any]:
        """Run it; what it returns is as the driver gives it."""
        return self._for(connection.dialect, values).run(connection, values)

    def one_or_none(self, connection: Connection, values: Values) -> dict[str, Any] | None:
        """Run it and return its only row by the names of the columns, None where it returns none."""
        return self._for(connection.dialect, values).one_or_none(connection, values)

    def _for(self, dialect: Dialect, values: Values) -> "_Compiled":
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            statement = self._statement(dialect.name) if callable(self._statement) else self._statement
            compiled = self._compiled[dialect.name] = _Compiled(statement, dialect, values)
        return compiled


class _Compiled:
    """What one dialect needs to run a statement."""

    def __init__(self, statement: Statement, dialect: Dialect, values: Values) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=sorted(values))
        assert isinstance(compiled, SQLCompiler)
        self._text = compiled.string
        processes: dict[str, _Process] = {
            name: bound.type.dialect_impl(dialect).bind_processor(dialect) for name, bound in compiled.binds.items()
        }
        names = compiled.positiontup or list(processes)
        self._order = [(name, processes[name]) for name in names]
        self._names = None if compiled.positional else names
        self._columns = [(str(column.key), column.type.dialect_impl(dialect)) for column in statement.exported_columns]
        self._readers: list[tuple[str, _Process]] | None = None

    def run(self, connection: Connection, values: Values) -> CursorResult[Any]:
        given = [values[name] if process is None else process(values[name]) for name, process in self._order]
        return connection.exec_driver_sql(
            self._text, tuple(given) if self._names is None else dict(zip(self._names, given, strict=True))
        )

    def one_or_none(self, connection: Connection, values: Values) -> dict[str, Any] | None:
        result = self.run(connection, values)
        if self._readers is None:
            # only the driver's answer tells what kind of number a column of PostgreSQL holds
            kinds = [described[1] for described in result.cursor.description]
            self._readers = [
                (key, kind.result_processor(connection.dialect, number))
                for (key, kind), number in zip(self._columns, kinds, strict=True)
            ]
        row = result.one_or_none()
        if row is None:
            return None
        return {
            name: value if process is None else process(value)
            for (name, process), value in zip(self._readers, row, strict=True)
        }
