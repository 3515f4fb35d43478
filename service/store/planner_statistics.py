"""What SQLite's planner is told of the tables, so that no statement reads a whole gallery to find a few rows.

SQLite knows nothing of what an index holds until it is told. It then takes a gallery for ten rows, fewer than three
subjects have, and looks through all of its templates for those of three. Measuring it with ANALYZE would depend on how
large the gallery happened to be when somebody did. So the figures are set by hand, for a large gallery, as SQLite
describes it: https://www.sqlite.org/optoverview.html#manual_control_of_query_plans_using_sqlite_stat_tables
"""

from sqlalchemy import Connection, text

from service.store.tables import metadata

ROWS = 1_000_000
"""Of each of these tables, all in one gallery."""

LARGE = (
    "subjects",
    "encounters",
    "samples",
    "templates",
    "enrolments",
    "candidates",
    "candidates_elsewhere",
    "cases",
    "case_pairs",
    "changes",
    "idempotency_keys",
    "audit_entries",
    "audit_subjects",
)
# rows with one value of a column; of any other column: `_FEW`
_ROWS_OF = {
    "gallery_id": ROWS,
    "chain": ROWS,
    "event": ROWS // 10,
    "other_gallery_id": ROWS,
    "status": ROWS // 10,
    "kind": ROWS // 10,
    "verdict": ROWS // 10,
    "job_id": ROWS // 100,
    "created_at": 100,
}
_FEW = 2


def tell_planner(connection: Connection) -> None:
    """Write the statistics where they are missing or others; connections that are opened from then on know them."""
    wanted = {index: each for table in LARGE for index, each in _statistics(connection, table).items()}
    if _known(connection) == wanted:
        return
    connection.execute(text("ANALYZE sqlite_schema"))  # it makes the table of the statistics
    connection.execute(text("DELETE FROM sqlite_stat1"))
    connection.execute(
        text("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (:table, :index, :rows)"),
        [{"table": table, "index": index, "rows": rows} for (table, index), rows in wanted.items()],
    )
    connection.execute(text("ANALYZE sqlite_schema"))  # it reads them


def _known(connection: Connection) -> dict[tuple[str, str], str]:
    if connection.execute(text("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_stat1'")).first() is None:
        return {}
    return {(row.tbl, row.idx): row.stat for row in connection.execute(text("SELECT tbl, idx, stat FROM sqlite_stat1"))}


def _statistics(connection: Connection, table: str) -> dict[tuple[str, str], str]:
    """Return by index: the table's rows, then how many have one value of its first column, of its first two, ..."""
    found = {}
    for index in connection.execute(text('SELECT name, "unique", origin FROM pragma_index_list(:t)'), {"t": table}):
        columns = connection.execute(
            text("SELECT name FROM pragma_index_info(:i) ORDER BY seqno"), {"i": index.name}
        ).scalars()
        rows = [ROWS]
        for column in columns:
            rows.append(min(rows[-1], _ROWS_OF.get(column, _FEW)))
        if index.unique:
            rows[-1] = 1
        # SQLite calls the key of a table without row numbers by the table's name
        is_key = index.origin == "pk" and not metadata.tables[table].dialect_options["sqlite"]["with_rowid"]
        name = table if is_key else index.name
        found[table, name] = " ".join(map(str, rows))
    return found
