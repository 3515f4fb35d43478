"""The counters of rate limits that replicas on one database share. Nothing hangs on them: they live two minutes."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete
from sqlalchemy.dialects import postgresql, sqlite

from service.store.parts import IDS_PER_STATEMENT, in_parts
from service.store.tables import rate_counts

KEPT = timedelta(minutes=3)  # a window is counted for two minutes; clocks of replicas differ


def add_rate_counts(connection: Connection, counts: Mapping[str, int], now: datetime) -> dict[str, int]:
    """Add to each counter, and return what each holds then; those that ended are removed."""
    connection.execute(delete(rate_counts).where(rate_counts.c.expires_at < now))
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    # in one order everywhere: two processes that lock rows crosswise would wait for each other
    rows = [{"counter": key, "total": counts[key], "expires_at": now + KEPT} for key in sorted(counts)]
    sums: dict[str, int] = {}
    for part in in_parts(rows, IDS_PER_STATEMENT // len(rate_counts.columns)):
        added = insert(rate_counts).values(part)
        statement = added.on_conflict_do_update(
            index_elements=["counter"], set_={"total": rate_counts.c.total + added.excluded.total}
        ).returning(rate_counts.c.counter, rate_counts.c.total)
        sums |= {row.counter: row.total for row in connection.execute(statement)}
    return sums
