"""After an erasure or a withdrawal no table, and no byte of the SQLite file, holds what was erased."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select

from service.domain import CaseKind, EncounterFacts, EncounterStatus
from service.store.rows import to_bytes
from service.store.sql_store import SqlStore
from service.store.tables import metadata
from tests.store.building import (
    SQL_KINDS,
    AnyStore,
    Clock,
    candidate_of,
    embedding_of,
    enrol,
    new_enrolment,
    new_template,
    open_store,
)

PLANTED_FACTS = EncounterFacts(
    captured_at=datetime(1987, 6, 5, tzinfo=UTC),
    site="planted site",
    operator_ref="planted operator",
    birth_year=1234,
    sex="planted sex",
    labels=(("planted label", "planted value"),),
)
IMAGE = b"planted image " * 800  # longer than a page, so that it reaches SQLite's overflow pages


@pytest.fixture(params=SQL_KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyStore]:
    # not encrypted: what is left must be seen
    yield from open_store(request.param, tmp_path, Clock(), is_encrypted=False)


def _plant(store: AnyStore, crowd: int = 30) -> None:
    """Enrol a crowd, and among it a subject whose every value says `planted`; it is a candidate and has one."""
    for number in range(crowd):
        enrol(store, new_enrolment(f"before-{number}", key=f"before-{number}"))
    neighbour = enrol(store, new_enrolment("neighbour"))
    planted = enrol(
        store,
        new_enrolment(
            "planted",
            templates=[new_template("planted", 0, IMAGE)],
            candidates=[candidate_of(neighbour)],
            cases=[CaseKind.DUPLICATE],
            facts=PLANTED_FACTS,
            biometric_exception="planted exception",
            key="planted key",
        ),
    )
    for number in range(crowd):
        found = [candidate_of(planted)] if number % 5 == 0 else []
        enrol(store, new_enrolment(f"after-{number}", candidates=found, cases=[CaseKind.DUPLICATE] if found else []))


def _values(store: SqlStore) -> list[str]:
    """Every value of every table, as text."""
    engine = create_engine(store._engine.url)
    with engine.connect() as connection:
        found = [
            repr(value)
            for table in metadata.sorted_tables
            for row in connection.execute(select(table))
            for value in row
        ]
    engine.dispose()
    return found


def test_no_table_holds_anything_of_an_erased_subject(store: SqlStore) -> None:
    _plant(store)
    traces = ("planted", new_enrolment("planted").content_digest, repr(to_bytes(embedding_of("planted")))[2:40])
    assert all(any(trace in value for value in _values(store)) for trace in traces)

    with store.writing("camp") as tx:
        tx.erase_subject("s-planted")

    assert [value for value in _values(store) for trace in traces if trace in value] == []


def test_no_table_holds_a_template_sample_or_fact_of_a_withdrawn_encounter(store: SqlStore) -> None:
    _plant(store)

    with store.writing("camp") as tx:
        tx.set_encounter_status("e-planted", EncounterStatus.WITHDRAWN)

    ids = {"'s-planted'", "'e-planted'", "'n-planted'", "'planted key'"}
    assert {value for value in _values(store) if "planted" in value} == ids
    assert repr(to_bytes(embedding_of("planted"))) not in _values(store)
    assert "1234" not in _values(store)


@pytest.mark.parametrize("crowd", [3, 60, 300])
def test_no_byte_of_an_erased_subject_is_left_in_the_sqlite_files(tmp_path: Path, crowd: int) -> None:
    for store in open_store("sqlite", tmp_path, Clock(), is_encrypted=False):
        _plant(store, crowd)
        embedding = to_bytes(embedding_of("planted"))
        digest = new_enrolment("planted").content_digest.encode()
        file = tmp_path / "record.sqlite"
        with sqlite3.connect(file) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        assert all(trace in file.read_bytes() for trace in (b"planted", embedding, digest))

        with store.writing("camp") as tx:
            tx.erase_subject("s-planted")

        for path in tmp_path.iterdir():
            data = path.read_bytes()
            for trace in (b"planted", embedding[:64], embedding[-64:], digest):
                assert trace not in data, f"{trace[:20]!r} in {path.name}"
