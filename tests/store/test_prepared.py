"""A prepared statement does what the same statement does without being prepared."""

from collections.abc import Iterator
from datetime import UTC, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import BigInteger, Connection, Text, bindparam, func, insert, select, update

from service.errors import StoreUnavailable
from service.store.keys import insert_or_ignore
from service.store.prepared import Prepared
from service.store.sql_store import SqlStore
from service.store.tables import changes, encounters, galleries, subjects, templates
from tests.store.building import FACTS, SQL_KINDS, START, Clock, enrol, new_enrolment, open_store

CHANGE = {
    "gallery_id": "camp",
    "seq": 7,
    "kind": "enrolment",
    "added_ids": [3, 2**40],
    "removed_ids": (),
    "created_at": START,
}


@pytest.fixture(params=SQL_KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    for store in open_store(request.param, tmp_path, Clock(), is_encrypted=False):
        assert isinstance(store, SqlStore)
        yield store


@pytest.fixture
def connection(store: SqlStore) -> Iterator[Connection]:
    with store._write_transaction() as connection:
        yield connection
        connection.rollback()


def rows_of(connection: Connection) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in connection.execute(select(changes).order_by(changes.c.seq))]


def test_values_go_in_as_without_preparing(connection: Connection) -> None:
    statement = Prepared(insert(changes))
    moments = (START, START.astimezone(timezone(timedelta(hours=5, minutes=30))))
    for seq, moment in enumerate(moments):
        statement.run(connection, CHANGE | {"seq": 10 + seq, "created_at": moment})
        connection.execute(insert(changes), CHANGE | {"seq": 20 + seq, "created_at": moment})

    found = [{**row, "seq": row["seq"] % 10} for row in rows_of(connection)]
    assert found[:2] == found[2:]
    assert found[0] == CHANGE | {"seq": 0, "removed_ids": []}


def test_rows_come_out_as_without_preparing(store: SqlStore, connection: Connection) -> None:
    wanted = connection.execute(select(galleries)).one()._mapping
    statement = Prepared(select(galleries).where(galleries.c.gallery_id == bindparam("wanted")))

    for _ in range(2):
        found = statement.one_or_none(connection, {"wanted": "camp"})
        assert found is not None
        assert found == dict(wanted)
        assert [type(value) for value in found.values()] == [type(value) for value in wanted.values()]
        assert (found["keep_samples"], found["created_at"], found["created_at"].tzinfo) == (True, START, UTC)
    assert statement.one_or_none(connection, {"wanted": "nowhere"}) is None


def test_a_column_that_may_be_null_holds_what_the_next_row_has(store: SqlStore) -> None:
    statement = Prepared(
        select(encounters.c.captured_at, encounters.c.labels).where(encounters.c.encounter_id == bindparam("wanted"))
    )
    enrol(store, new_enrolment("bare"))
    enrol(store, new_enrolment("full", facts=FACTS))
    with store._reading() as connection:
        assert statement.one_or_none(connection, {"wanted": "e-bare"}) == {"captured_at": None, "labels": []}
        assert statement.one_or_none(connection, {"wanted": "e-full"}) == {
            "captured_at": FACTS.captured_at,
            "labels": [list(label) for label in FACTS.labels],
        }


def test_a_statement_gives_back_what_the_database_made(store: SqlStore) -> None:
    enrol(store, new_enrolment("a"))
    statement = Prepared(insert(templates).returning(templates.c.reference_id))
    with store._write_transaction() as connection:
        columns = [column for column in templates.c if column.key != "reference_id"]
        row = connection.execute(select(*columns)).one()._mapping
        made = [statement.run(connection, {**row, "position": position}).scalar_one() for position in (1, 2)]
        assert connection.execute(select(templates.c.reference_id).order_by("reference_id")).scalars().all()[1:] == made


def test_a_row_whose_key_is_taken_is_counted_as_none(connection: Connection) -> None:
    statement = Prepared(lambda dialect_name: insert_or_ignore(dialect_name, subjects))
    row = {"gallery_id": "camp", "subject_id": "s", "created_at": START}
    assert [statement.run(connection, row).rowcount for _ in range(2)] == [1, 0]


def test_values_stand_where_the_statement_names_them(connection: Connection) -> None:
    statement = Prepared(
        update(galleries)
        .where(galleries.c.gallery_id == bindparam("changed"))
        .values(
            model_id=func.coalesce(galleries.c.model_id, bindparam("made_by", type_=Text)),
            template_count=galleries.c.template_count + bindparam("growth") + bindparam("growth"),
            last_seq=bindparam("number", type_=BigInteger),
        )
    )
    for number, made_by in enumerate(["one", None, "two"], start=41):
        statement.run(connection, {"number": number, "growth": 3, "made_by": made_by, "changed": "camp"})

    gallery = connection.execute(select(galleries)).one()
    assert (gallery.last_seq, gallery.template_count, gallery.model_id) == (43, 18, "one")


@pytest.mark.parametrize(
    "wrong",
    [{"created_at": START.replace(tzinfo=None)}, {"added_ids": [float("nan")]}],
    ids=["no time zone", "not a number"],
)
def test_what_a_type_refuses_is_refused(connection: Connection, wrong: dict[str, Any]) -> None:
    # psycopg makes the JSON itself, and so it is its error that SQLAlchemy passes on
    with pytest.raises(Exception, match=r"time zone|JSON"):
        Prepared(insert(changes)).run(connection, CHANGE | wrong)


def test_an_error_of_the_database_is_one_of_ours(store: SqlStore) -> None:
    statement = Prepared(insert(changes))
    with store._write_transaction() as connection:
        statement.run(connection, CHANGE)
    with pytest.raises(StoreUnavailable), store._write_transaction() as connection:
        statement.run(connection, CHANGE)
    with store._reading() as connection:
        assert len(rows_of(connection)) == 1


def test_a_value_that_is_missing_is_a_mistake(connection: Connection) -> None:
    statement = Prepared(insert(changes))
    statement.run(connection, CHANGE)
    with pytest.raises(KeyError):
        statement.run(connection, {name: value for name, value in CHANGE.items() if name != "added_ids"})


@pytest.mark.postgres
def test_one_statement_serves_both_databases(tmp_path: Path) -> None:
    statement = Prepared(insert(changes))
    for kind in ("sqlite", "postgresql"):
        for store in open_store(kind, tmp_path, Clock(), is_encrypted=False):
            assert isinstance(store, SqlStore)
            with store._write_transaction() as connection:
                statement.run(connection, CHANGE)
                assert rows_of(connection) == [CHANGE | {"removed_ids": []}]
