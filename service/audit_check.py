"""Whether a chain of audit entries is whole: the first place where it is not, and what was done there."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from service.audit_chain import NO_HASH, AuditEntry

_FAR = 10_000  # numbers by which an entry may have been moved and is still recognised: some hundredths of a second


class FaultKind(StrEnum):
    """What was done to a chain, as far as it can be told from what is left."""

    CHANGED = "changed"
    REMOVED = "removed"
    INSERTED = "inserted"
    REORDERED = "reordered"
    REWRITTEN = "rewritten"  # every hash is right, and an anchor says that there were others


@dataclass(frozen=True, slots=True)
class ChainPoint:
    """How far a chain is: the number of an entry and its hash."""

    seq: int = 0
    hash: bytes = NO_HASH


ORIGIN = ChainPoint()


@dataclass(frozen=True, slots=True)
class Fault:
    """The first entry that is not as it was written, or is not there."""

    kind: FaultKind
    seq: int


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What a check found."""

    reached: ChainPoint
    """Up to here everything is right. Where a chain was written anew, that is the last anchor that was met."""
    fault: Fault | None
    anchors_met: int


def check_chain(
    entries: Iterable[AuditEntry],
    *,
    start: ChainPoint = ORIGIN,
    end: ChainPoint | None = None,
    anchors: Mapping[int, bytes] | None = None,
) -> ChainReport:
    """Follow a chain from an entry that is known to be right, up to its end or its first fault.

    Args:
        entries: those behind `start`, in the order in which they are kept; read lazily.
        start: an entry that was checked before.
        end: what the head of the chain says; None: nothing is known of the end but the anchors.
        anchors: hashes by number, as they were written down elsewhere. Those behind the last entry tell that the
            end was cut off, so a check of a part is given those of the part.
    """
    left = iter(entries)
    reached, vouched, met = start, start, 0
    anchors = anchors or {}
    for entry in left:
        fault = _fault_at(entry, left, reached, end)
        if fault is not None:
            return ChainReport(reached, fault, met)
        anchored = anchors.get(entry.seq)
        if anchored is not None:
            if anchored != entry.hash:
                return ChainReport(vouched, Fault(FaultKind.REWRITTEN, entry.seq), met)
            met, vouched = met + 1, ChainPoint(entry.seq, entry.hash)
        reached = ChainPoint(entry.seq, entry.hash)
    return ChainReport(reached, _fault_at_end(reached, end, anchors), met)


def _fault_at_end(reached: ChainPoint, end: ChainPoint | None, anchors: Mapping[int, bytes]) -> Fault | None:
    last = max([*anchors, 0 if end is None else end.seq])
    if last > reached.seq:
        return Fault(FaultKind.REMOVED, reached.seq + 1)
    if end is not None and end.seq == reached.seq and end.hash != reached.hash:
        return Fault(FaultKind.CHANGED, reached.seq)
    return None


def _fault_at(
    entry: AuditEntry, left: Iterator[AuditEntry], reached: ChainPoint, end: ChainPoint | None
) -> Fault | None:
    expected = reached.seq + 1
    if end is not None and entry.seq > end.seq and reached.seq >= end.seq:
        return Fault(FaultKind.INSERTED, entry.seq)
    if entry.seq > expected:
        is_further_on = any(each.seq == expected for each in itertools.islice(left, _FAR))
        return Fault(FaultKind.REORDERED if is_further_on else FaultKind.REMOVED, expected)
    if entry.seq < expected:
        return Fault(FaultKind.INSERTED, expected)
    if entry.hash != entry.own_hash():
        return _explained(entry, next(left, None), reached)
    if entry.previous != reached.hash:
        # it is as it was written, and vouches for another predecessor than the one that stands there
        return Fault(FaultKind.CHANGED, max(reached.seq, 1))
    return None


def _explained(entry: AuditEntry, following: AuditEntry | None, reached: ChainPoint) -> Fault:
    """Say what was done where an entry's hash is wrong: perhaps it is right for another number."""
    behind = None if following is None else _moved_by(following)
    moved = _moved_by(entry)
    if following is not None and behind == 1 and following.previous == reached.hash and moved != -1:
        return Fault(FaultKind.INSERTED, entry.seq)  # the next one stood here
    if moved is None:
        return Fault(FaultKind.CHANGED, entry.seq)
    if following is None or behind == moved:
        # all that follow were moved alike: up into a gap, or down behind a newcomer whose own hash was right
        return Fault(FaultKind.REMOVED, entry.seq) if moved < 0 else Fault(FaultKind.INSERTED, max(reached.seq, 1))
    return Fault(FaultKind.REORDERED, entry.seq)


def _moved_by(entry: AuditEntry) -> int | None:
    """Return by how much its number is greater than the one it was written with; None: by nothing that is known."""
    hash_as = entry.hash_as
    for distance in range(1, _FAR):
        for moved in (distance, -distance):
            if entry.seq > moved and hash_as(entry.seq - moved) == entry.hash:
                return moved
    return None
