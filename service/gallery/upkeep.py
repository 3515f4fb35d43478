"""What of an index should become one segment next: full open ones are sealed, small ones merged, holes closed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.domain import Embeddings
from service.gallery.basis import Basis, Probes
from service.gallery.meter import Spent
from service.gallery.open_segment import Found, OpenSegment
from service.gallery.rows import Ids
from service.gallery.sealed_segment import SealedSegment
from service.ports import IndexPart, PartState

MERGE_COUNT = 4  # sealed segments of about one size become one
FULL, OVERFULL = 0.75, 1.25  # of the largest size: a segment that is not merged any more, and the largest made so
_LARGEST_SHARE = 2 / 3  # of a merged one: each merge makes a segment half as large again, or it would be made too often
_MUCH_LARGER = 2  # times: a segment with a basis of its own, which later ones share; no full one is so to another
COMPACT_FROM = 0.1  # share of a segment's rows that were removed


class Look(Protocol):
    """A search of a part: prepared, `run` once by any thread, then asked once for what it found.

    Only `run` reads every template, and hardly needs the interpreter's lock; all else is short and needs it.
    """

    def run(self) -> None: ...

    def found(self) -> Found:
        """Return for each probe the references at or above the threshold."""
        ...


class Part(Protocol):
    """What can be searched by one thread."""

    @property
    def scanned_bytes(self) -> int:
        """What a search of one probe reads at least."""
        ...

    def begin(self, probes: Probes, threshold: float, spent: Spent) -> Look:
        """Prepare a search for few probes, which will add to `spent` what it took."""
        ...


class Segment(Protocol):
    """What both kinds of segment can do."""

    def __len__(self) -> int: ...

    @property
    def used(self) -> int:
        """Rows in use, those of removed templates too."""
        ...

    def parts(self, count: int) -> Sequence[Part]:
        """Return it in at most `count` parts that take about one time to search."""
        ...

    def remove(self, ids: Sequence[int]) -> None:
        """Switch references off; unknown ones are ignored."""
        ...

    def live_ids(self) -> Ids:
        """Return the ids of what was not removed, in no order."""
        ...

    def contents(self) -> tuple[Ids, Embeddings]:
        """Return the live ids and copies of their rows, in one order."""
        ...

    def between(self, after: int, up_to: int) -> tuple[Ids, Embeddings]:
        """Return the live ids above `after` and not above `up_to` and copies of their rows, in one order."""
        ...


@dataclass(frozen=True, slots=True)
class Work:
    """Segments that should become one; `kind` is seal, merge or compaction."""

    kind: str
    segments: tuple[Segment, ...]


def next_work(
    segments: Sequence[Segment], filling: Segment, seal_at: int, max_segment: int, compact_to: int
) -> Work | None:
    """Return what to do next, None if all is well.

    Args:
        segments: all of the index.
        filling: the open segment that still takes templates.
        seal_at: templates of an open segment from which it is sealed.
        max_segment: templates of a sealed segment that is not made larger.
        compact_to: segments with anything removed up to this change are made anew; -1: none.
    """
    full = [each for each in segments if isinstance(each, OpenSegment) and each is not filling]
    if full:
        return Work("seal", _up_to(full, max_segment))
    sealed = sealed_of(segments)
    for segment in sealed:
        if is_stale(segment, compact_to) or len(segment) <= segment.used * (1 - COMPACT_FROM):
            return Work("compaction", (segment,))
    filled = _filled(sealed, max_segment)
    if filled:
        return Work("merge", filled)
    tiers: dict[int, list[Segment]] = {}
    for segment in sealed:
        if len(segment) * MERGE_COUNT <= max_segment:
            tiers.setdefault(_tier(len(segment), seal_at), []).append(segment)
    crowded = next((tier for tier in tiers.values() if len(tier) >= MERGE_COUNT), None)
    return Work("merge", tuple(crowded[:MERGE_COUNT])) if crowded else None


def searched(part: Part, probes: Probes, threshold: float, spent: Spent) -> Found:
    """Search one part from its beginning to its end."""
    look = part.begin(probes, threshold, spent)
    look.run()
    return look.found()


def sealed_of(segments: Sequence[Segment]) -> list[SealedSegment]:
    return [segment for segment in segments if isinstance(segment, SealedSegment)]


def shared_basis(segments: Sequence[Segment], size: int, *, at_least: int) -> Basis | None:
    """Return the basis for a new segment of `size` templates: that of the largest one; None: a new one.

    A segment much larger than all others is a better sample of the gallery. One of few templates shares its basis with
    no other: it could tell of them when they are erased.
    """
    largest = max(sealed_of(segments), key=lambda segment: segment.used, default=None)
    if largest is None or largest.used < at_least or size > _MUCH_LARGER * largest.used:
        return None
    return largest.codes.basis


def is_stale(segment: Segment, compact_to: int) -> bool:
    """Whether anything was removed from it up to change `compact_to`; of one to be sealed: at any time."""
    if isinstance(segment, SealedSegment):
        return segment.first_removal is not None and segment.first_removal <= compact_to
    return compact_to >= 0 and len(segment) < segment.used


def covered(segments: Sequence[Segment], last: int) -> int:
    """Return the last change, of all up to `last`, whose templates are in sealed segments."""
    firsts = [each.first_change for each in segments if isinstance(each, OpenSegment)]
    waiting = [first for first in firsts if first is not None]
    return min(waiting) - 1 if waiting else last


def unsealed(segments: Sequence[Segment], filling: Segment) -> int:
    """Return how many templates wait to be sealed; `filling` is the open segment that still takes templates."""
    return sum(each.used for each in segments if isinstance(each, OpenSegment) and each is not filling)


def described(segment: Segment, filling: Segment) -> IndexPart:
    """Return what a segment is and takes; `filling` is the open one that still takes templates."""
    if isinstance(segment, SealedSegment):
        file = segment.file
        disk_bytes, name = (file.byte_length, file.name) if file is not None else (0, None)
        removed = segment.used - len(segment)
        return IndexPart("sealed", len(segment), removed, segment.ram_bytes, disk_bytes, name)
    assert isinstance(segment, OpenSegment)
    state: PartState = "open" if segment is filling else "sealing"
    return IndexPart(state, len(segment), segment.used - len(segment), segment.ram_bytes)


def _up_to(segments: Sequence[Segment], most: int) -> tuple[Segment, ...]:
    """Return the first of `segments`, at least one, that together hold at most `most` templates."""
    taken: list[Segment] = []
    room = most
    for segment in segments:
        room -= len(segment)
        if taken and room < 0:
            break
        taken.append(segment)
    return tuple(taken)


def _filled(sealed: Sequence[Segment], max_segment: int) -> tuple[Segment, ...]:
    """Return the smallest segments, as many as make a full one; none if that would be too large or too uneven."""
    if not sealed:
        return ()
    ascending = sorted(sealed, key=len)
    group = _up_to(ascending, max_segment)
    if sum(len(each) for each in group) < FULL * max_segment:
        unfilled = [each for each in ascending if len(each) < FULL * max_segment]
        group = _up_to(unfilled[: len(group) + 1], int(OVERFULL * max_segment))
    total = sum(len(each) for each in group)
    is_full = total >= FULL * max_segment and len(group[-1]) <= _LARGEST_SHARE * total
    return group if is_full else ()


def _tier(size: int, smallest: int) -> int:
    tier = 0
    while size >= smallest * MERGE_COUNT:
        size //= MERGE_COUNT
        tier += 1
    return tier
