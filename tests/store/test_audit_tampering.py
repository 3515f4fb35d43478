"""Whatever is done to one of 10,000 entries is found: the place, and mostly what was done there."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from service.acting import Actor, acting_as
from service.audit_chain import AuditEntry, AuditEvent, NewEntry
from service.audit_check import ORIGIN, ChainPoint, FaultKind, check_chain
from service.store.sql_store import SqlStore
from tests import postgres
from tests.audit_tampering import WAYS, Entries
from tests.store.building import START, new_gallery

TRIALS = 60
LOOK_BEHIND = 3  # entries before the tampered one from where a trial verifies: the rest was verified once


def chain_of(url: str, count: int) -> Entries:
    """Return a chain of so many entries as a store gives it back."""
    store = SqlStore(url, lambda: START)
    store.migrate()
    store.create_gallery(new_gallery())
    events, recorder = list(AuditEvent), store._recorder
    with store._write_transaction() as connection:
        for number in range(1, count):
            actor = Actor(f"client:desk-{number % 7}", "registration" if number % 3 else None, None, f"r-{number}")
            new = NewEntry(events[number % len(events)], "found" if number % 2 else None, {"count": number % 11})
            with acting_as(actor):
                recorder.write(connection, "camp", new, START)
    entries = store.audit_block("camp", 0, count + 1)
    head = store.audit_heads()["camp"]
    store.close()
    assert len(entries) == count
    assert check_chain(entries, end=head).fault is None
    return entries


@pytest.fixture(scope="module")
def ten_thousand(tmp_path_factory: pytest.TempPathFactory) -> Entries:
    return chain_of(f"sqlite:///{tmp_path_factory.mktemp('chain')}/record.sqlite", 10_000)


@pytest.fixture(scope="module")
def of_postgresql() -> Entries:
    return chain_of(postgres.fresh_database(), 500)


def end_of(entries: Entries) -> ChainPoint:
    return ChainPoint(entries[-1].seq, entries[-1].hash)


def try_all(entries: Entries, way: Callable[..., tuple[Entries, int]], trials: int) -> Counter[FaultKind]:
    """Tamper and verify again and again; each must be found, at its place."""
    random, kinds = Random(way.__name__), Counter[FaultKind]()
    for _ in range(trials):
        tampered, place = way(entries, random)
        known = max(place - LOOK_BEHIND, 0)
        start = ChainPoint(known, entries[known - 1].hash) if known else ORIGIN
        fault = check_chain(tampered[known:], start=start, end=end_of(entries)).fault
        assert fault is not None, f"{way.__name__} of entry {place} was not found"
        assert abs(fault.seq - place) <= 1, f"{way.__name__} of entry {place} was found at {fault.seq}"
        kinds[fault.kind] += 1
    return kinds


@pytest.mark.parametrize(("way", "kind"), WAYS, ids=lambda value: getattr(value, "__name__", ""))
def test_any_tampering_with_ten_thousand_entries_is_found(
    ten_thousand: Entries, way: Callable[..., tuple[Entries, int]], kind: FaultKind
) -> None:
    kinds = try_all(ten_thousand, way, TRIALS)
    assert kinds[kind] == TRIALS, kinds


@pytest.mark.postgres
@pytest.mark.parametrize(("way", "kind"), WAYS, ids=lambda value: getattr(value, "__name__", ""))
def test_any_tampering_is_found_on_postgresql(
    of_postgresql: Entries, way: Callable[..., tuple[Entries, int]], kind: FaultKind
) -> None:
    kinds = try_all(of_postgresql, way, 20)
    assert kinds[kind] == 20, kinds


def test_both_ends_of_the_chain_are_watched(ten_thousand: Entries) -> None:
    end = end_of(ten_thousand)
    assert_fault(check_chain(ten_thousand[1:], end=end), FaultKind.REMOVED, 1)
    assert_fault(check_chain(ten_thousand[:-1], end=end), FaultKind.REMOVED, 10_000)
    assert_fault(check_chain([], end=end), FaultKind.REMOVED, 1)
    planted = replace(ten_thousand[-1], seq=10_001, previous=end.hash).sealed()
    assert_fault(check_chain([*ten_thousand, planted], end=end), FaultKind.INSERTED, 10_001)
    other = replace(ten_thousand[-1], outcome="other").sealed()
    assert_fault(check_chain([*ten_thousand[:-1], other], end=end), FaultKind.CHANGED, 10_000)


def assert_fault(report: object, kind: FaultKind, seq: int) -> None:
    fault = getattr(report, "fault", None)
    assert fault is not None
    assert (fault.kind, fault.seq) == (kind, seq)


def rewritten(entries: Entries, place: int) -> Entries:
    """Change an entry and chain all that follow anew, as only somebody who may write everything can."""
    found: list[AuditEntry] = entries[: place - 1]
    for each in entries[place - 1 :]:
        changed = replace(each, client_id="client:nobody") if each.seq == place else each
        found.append(replace(changed, previous=found[-1].hash if found else bytes(32)).sealed())
    return found


def test_who_rewrites_the_whole_chain_is_caught_by_an_anchor_alone(ten_thousand: Entries) -> None:
    anchors = {each.seq: each.hash for each in ten_thousand[999::1000]}
    forged = rewritten(ten_thousand, 4321)

    assert check_chain(forged, end=end_of(forged)).fault is None
    report = check_chain(forged, end=end_of(forged), anchors=anchors)
    assert_fault(report, FaultKind.REWRITTEN, 5000)
    assert report.anchors_met == 4
    assert report.reached.seq == 4000  # what lies between this anchor and the next one is proven by nothing


def test_who_cuts_off_the_end_and_its_head_is_caught_by_an_anchor_alone(ten_thousand: Entries) -> None:
    anchors = {each.seq: each.hash for each in ten_thousand[999::1000]}
    short = ten_thousand[:9500]

    assert check_chain(short, end=end_of(short)).fault is None
    assert_fault(check_chain(short, end=end_of(short), anchors=anchors), FaultKind.REMOVED, 9501)


def test_a_whole_chain_meets_all_its_anchors(ten_thousand: Entries) -> None:
    anchors = {each.seq: each.hash for each in ten_thousand[999::1000]}
    report = check_chain(ten_thousand, end=end_of(ten_thousand), anchors=anchors)
    assert (report.fault, report.anchors_met, report.reached) == (None, 10, end_of(ten_thousand))


def test_a_file_is_found_whole_on_disk(tmp_path: Path, ten_thousand: Entries) -> None:
    file = tmp_path / "export.jsonl"
    file.write_text("".join(f"{each.to_line()}\n" for each in ten_thousand))
    read = [AuditEntry.from_line(line) for line in file.read_text().splitlines()]
    assert check_chain(read, end=end_of(ten_thousand)).fault is None
