"""SQLite reads a few rows of a gallery for a person, never all of them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from service.domain import CaseKind, EncounterStatus
from service.store.planner_statistics import LARGE
from service.store.sql_store import SqlStore
from tests.store.building import START, Clock, candidate_of, enrol, new_enrolment, open_store

_WHOLE_GALLERY = re.compile(rf"(SCAN|SEARCH) ({'|'.join(LARGE)})\b(?!.*\(((other_)?gallery_id=\? AND|rowid))")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    for store in open_store("sqlite", tmp_path, Clock()):
        assert isinstance(store, SqlStore)
        yield store


@contextmanager
def plans(store: SqlStore) -> Iterator[dict[str, list[str]]]:
    """Note how SQLite goes about each statement that is run."""
    found: dict[str, list[str]] = {}

    def explain(
        connection: Connection, _cursor: object, statement: str, parameters: Any, _context: object, _many: bool
    ) -> None:
        if statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE")):
            rows = connection.connection.cursor().execute("EXPLAIN QUERY PLAN " + statement, parameters).fetchall()
            found[statement] = [str(row[3]) for row in rows]

    event.listen(store._engine, "before_cursor_execute", explain)
    yield found
    event.remove(store._engine, "before_cursor_execute", explain)


def whole_gallery(found: dict[str, list[str]]) -> list[str]:
    assert found
    return [
        f"{step}: {statement}" for statement, steps in found.items() for step in steps if _WHOLE_GALLERY.match(step)
    ]


def test_what_concerns_one_person_reads_no_whole_gallery(store: SqlStore) -> None:
    first = enrol(store, new_enrolment("a", key="k"))
    enrol(store, new_enrolment("b", "s-a"))
    reference_ids = [each.reference_id for each in first.samples if each.reference_id is not None]

    with plans(store) as found:
        with store.reading() as reading:
            assert len(reading.references_of("camp", ["s-a", "s-b", "s-c"], "opencv-zoo")) == 2
            assert len(reading.references_of("camp", ["s-a", "s-b", "s-c"])) == 2
            assert len(reading.subject_references("camp", "s-a")) == 2
            assert len(reading.subject_references("camp", "s-a", inactive=True, pack_id="opencv-zoo")) == 2
            assert list(reading.references("camp", reference_ids, "opencv-zoo")) == reference_ids
            assert list(reading.references("camp", reference_ids)) == reference_ids
            assert reading.without_counterpart("camp", reference_ids, "buffalo_s") == set(reference_ids)
            assert reading.changes_after("camp", 0, 10)
            assert reading.earlier_request("camp", "k", "e-a", START) is not None
        with store.writing("camp") as tx:
            tx.insert_enrolment(new_enrolment("c", "s-a", candidates=[candidate_of(first)], cases=[CaseKind.DUPLICATE]))
        with store.writing("camp") as tx:
            tx.set_encounter_status("e-b", EncounterStatus.INACTIVE)
        with store.writing("camp") as tx:
            tx.erase_subject("s-a")

    assert whole_gallery(found) == []


def test_a_record_without_statistics_gets_them_at_the_next_start(store: SqlStore) -> None:
    with store._engine.begin() as connection:
        connection.execute(text("DELETE FROM sqlite_stat1 WHERE tbl = 'templates'"))
    store._engine.dispose()

    store.migrate()

    store._engine.dispose()
    with plans(store) as found, store.reading() as reading:
        reading.references_of("camp", ["s-a", "s-b", "s-c"], "opencv-zoo")
    assert whole_gallery(found) == []
