"""An erasure and a view of one person at the same time, on PostgreSQL: no list beside the chain keeps who is gone."""

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import event, select

from service.audit_chain import AuditEvent, NewEntry, SeenSubject
from service.audit_check import check_chain
from service.store.sql_store import SqlStore
from service.store.tables import audit_subjects
from tests import postgres
from tests.store.building import Clock, enrol, new_enrolment, new_gallery, new_ring

pytestmark = pytest.mark.postgres
WAIT_S = 20
VIEWED = NewEntry(AuditEvent.SUBJECT_VIEWED, subjects=(SeenSubject("s-a"),))


@pytest.fixture
def store() -> Iterator[SqlStore]:
    store = SqlStore(postgres.fresh_database(), Clock(), cipher=new_ring())
    store.create_gallery(new_gallery())
    enrol(store, new_enrolment("a"))
    yield store
    store.close()


def test_an_erasure_waits_for_a_view_under_way_and_deletes_what_led_to_the_person(store: SqlStore) -> None:
    is_held, may_go_on = threading.Event(), threading.Event()

    def hold(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        # the view knows that the person is there, holds their row, and is about to take the head
        if threading.current_thread().name == "view" and "FROM audit_chains" in statement:
            is_held.set()
            may_go_on.wait(WAIT_S)

    def erase() -> None:
        with store.writing("camp") as writing:
            writing.erase_subject("s-a")

    event.listen(store._engine, "before_cursor_execute", hold)
    view = threading.Thread(target=store.record, args=(VIEWED, "camp"), name="view")
    erasure = threading.Thread(target=erase, name="erasure")
    view.start()
    assert is_held.wait(WAIT_S)
    erasure.start()
    erasure.join(0.5)
    was_waiting = erasure.is_alive()
    may_go_on.set()
    for thread in (view, erasure):
        thread.join(WAIT_S)
        assert not thread.is_alive()

    assert was_waiting
    entries = store.audit_block("camp", 0, 10)
    assert [each.event for each in entries[-2:]] == ["subject.viewed", "subject.erased"]
    assert check_chain(entries, end=store.audit_heads()["camp"]).fault is None
    with store._engine.connect() as connection:
        assert connection.execute(select(audit_subjects)).all() == []
