"""The use cases about the audit trail, over the store in memory."""

import csv

import pytest

from service.acting import Actor, acting_as
from service.audit_chain import SERVICE_CHAIN, AuditEntry, AuditEvent
from service.audit_check import ChainPoint, check_chain
from service.auditing import BLOCK, AuditService
from service.errors import GalleryNotFound
from tests.fakes import FakeStore
from tests.store.building import Clock, new_gallery

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1")


@pytest.fixture
def store() -> FakeStore:
    store = FakeStore(Clock())
    store.create_gallery(new_gallery())
    return store


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_spreadsheet_takes_no_cell_for_a_formula(store: FakeStore, formula: str) -> None:
    with acting_as(Actor(formula, purpose=formula, agreement_id=formula, request_id=formula)):
        AuditService(store).record(AuditEvent.AUDIT_VIEWED, "camp", outcome=formula)
    *_, row = csv.DictReader(AuditService(store).export("camp", "csv"))
    for name in ("client_id", "purpose", "agreement_id", "request_id", "outcome"):
        assert row[name] == f"'{formula}"


def test_a_long_chain_is_verified_in_parts_and_exported_whole(store: FakeStore) -> None:
    audit = AuditService(store)
    for _ in range(BLOCK + 10):
        audit.record(AuditEvent.AUDIT_VIEWED, "camp")
    first = audit.verify("camp", most=BLOCK)
    assert (first.report.fault, first.report.reached.seq, first.is_finished) == (None, BLOCK, False)
    second = audit.verify("camp", first.report.reached, most=BLOCK)
    # the first verification is an entry too
    assert (second.report.fault, second.report.reached.seq, second.is_finished) == (None, BLOCK + 12, True)
    entries = [AuditEntry.from_line(line) for line in audit.export("camp", "jsonl")]
    assert (len(entries), check_chain(entries).fault) == (BLOCK + 13, None)


def test_an_anchor_behind_a_part_is_left_for_the_next_one(store: FakeStore) -> None:
    audit = AuditService(store)
    for _ in range(5):
        audit.record(AuditEvent.AUDIT_VIEWED, "camp")
    anchors = {99: bytes(32)}
    assert audit.verify("camp", anchors=anchors, most=3).report.fault is None
    fault = audit.verify("camp", anchors=anchors).report.fault
    assert fault is not None
    assert fault.kind == "removed"


def test_who_begins_behind_the_end_is_told_that_it_was_cut_off(store: FakeStore) -> None:
    fault = AuditService(store).verify("camp", ChainPoint(7, bytes(32))).report.fault
    assert fault is not None
    assert (fault.kind, fault.seq) == ("removed", 2)


def test_the_service_is_no_gallery(store: FakeStore) -> None:
    with pytest.raises(GalleryNotFound):
        AuditService(store).verify(SERVICE_CHAIN)
