"""The gallery index for millions: new templates in an open segment, the rest in sealed ones, kept tidy by a thread."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Protocol

import numpy as np
from scipy.special import betaincinv

from service.domain import Embeddings, Hit
from service.errors import VarUnusable
from service.gallery.exact_index import foreign_errors, next_change
from service.gallery.segments import Found, Ids, OpenSegment, Scores, SealedSegment, Tally, seal
from service.gallery.snapshots import SnapshotFolder
from service.logs import log_event

_log = logging.getLogger(__name__)

SEAL_AT = 16_384  # templates: compared exactly in a few milliseconds; fewer are not worth training codes on
MAX_SEGMENT = 262_144  # two threads share a million as four segments, and one is made anew within seconds
MERGE_COUNT = 4  # sealed segments of about one size become one
COMPACT_FROM = 0.1  # share of a segment's rows that were removed
AUDIT_EVERY_S = 10.0  # one search in this time is repeated exactly: a percent of one core at a million templates
_CONFIDENCE = 0.95


class Segment(Protocol):
    """What both kinds of segment can do."""

    def __len__(self) -> int: ...

    def search(self, probes: Embeddings, threshold: float) -> Found:
        """Return for each probe the references at or above `threshold`."""
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


class SegmentedIndex:
    """`service.ports.GalleryIndex` in segments. Safe for use by many threads.

    A change is made to the segments under one lock and seen by every search that begins after it. Sealing, merging and
    compaction happen on a thread of their own: the new segment is built beside the old ones and takes their place in
    one step, with what was removed meanwhile removed from it too.
    """

    def __init__(
        self,
        dimension: int,
        *,
        threads: int = 0,
        seal_at: int = SEAL_AT,
        max_segment: int = MAX_SEGMENT,
        make_sealed: Callable[[Ids, Embeddings], SealedSegment] = seal,
        snapshots: SnapshotFolder | None = None,
        last_seq: int = 0,
    ) -> None:
        """Make an index of what the snapshots hold, an empty one without them.

        Args:
            dimension: of the embeddings, a multiple of 4.
            threads: that one search may use; 0: one a core.
            seal_at: templates of an open segment from which it is sealed.
            max_segment: templates of a sealed segment that is not made larger.
            make_sealed: for tests.
            snapshots: where sealed segments are kept on disk; None: nowhere.
            last_seq: the record's last change; snapshots that are ahead of it are not used.

        Raises:
            VarUnusable: the folder of the snapshots cannot be written.
        """
        self._dimension = dimension
        self._threads = threads or len(os.sched_getaffinity(0))
        self._seal_at, self._max_segment, self._make_sealed = seal_at, max_segment, make_sealed
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._open = OpenSegment(dimension)
        self._snapshots, self._files_lock = snapshots, threading.Lock()
        restored, self._high_water_mark = snapshots.load(last_seq) if snapshots is not None else ([], 0)
        self._segments: tuple[Segment, ...] = (*restored, self._open)
        self._pool: ThreadPoolExecutor | None = None
        self._caretaker: threading.Thread | None = None
        self._next_audit = 0.0

    @property
    def high_water_mark(self) -> int:
        return self._high_water_mark

    @property
    def miss_bound(self) -> float:
        """Upper 95 % bound on the share of pairs at or above a threshold that a search misses; 0: all is exact.

        From the audits of the sealed segments. Source: Clopper and Pearson, Biometrika 26(4), 1934.
        """
        tallies = [each.tally for each in self._segments if isinstance(each, SealedSegment)]
        return _upper_bound(Tally(sum(each.pairs for each in tallies), sum(each.missed for each in tallies)))

    def __len__(self) -> int:
        return sum(len(segment) for segment in self._segments)

    def add(self, seq: int, reference_ids: Sequence[int], embeddings: Embeddings) -> None:
        with self._lock, foreign_errors():
            next_change(self._high_water_mark, seq)
            if len(reference_ids):
                if self._open.first_change is None:
                    self._open.first_change = seq
                self._open.append([int(each) for each in reference_ids], embeddings)
            self._high_water_mark = seq
            if self._open.used >= self._seal_at:
                self._begin_another()

    def remove(self, seq: int, reference_ids: Sequence[int]) -> None:
        with self._lock, foreign_errors():
            next_change(self._high_water_mark, seq)
            for segment in self._segments:
                segment.remove(reference_ids)
            self._high_water_mark = seq
            self._wake()

    def search(self, probes: Embeddings, threshold: float) -> list[list[Hit]]:
        segments = self._segments  # one step: a segment that is replaced meanwhile is searched as it was
        probes = np.ascontiguousarray(probes, np.float32)
        with foreign_errors():
            parts = self._searched(segments, probes, threshold)
        self._audit_now_and_then(segments, probes, threshold)
        return [_hits(part[number] for part in parts) for number in range(len(probes))]

    def discard(self) -> None:
        """Keep nothing on disk from now on, and let nobody use what is there."""
        with self._files_lock:
            if self._snapshots is not None:
                self._snapshots.forget()
                self._snapshots = None

    def settle(self) -> None:
        """Wait until nothing is left to seal, merge or compact, or until that failed."""
        with self._lock:
            self._changed.wait_for(lambda: self._caretaker is None)

    def _searched(self, segments: tuple[Segment, ...], probes: Embeddings, threshold: float) -> list[Found]:
        """Search all segments: side by side for few probes, each for a part of the probes when there are many."""
        if self._threads == 1 or len(segments) == 1:
            return [segment.search(probes, threshold) for segment in segments]
        pool = self._threads_pool()
        if len(probes) < self._threads * 4:
            ordered = sorted(segments, key=len, reverse=True)  # the longest first, so that none is left at the end
            return list(pool.map(lambda segment: segment.search(probes, threshold), ordered))
        chunks = np.array_split(probes, self._threads)
        shares = list(pool.map(lambda chunk: [segment.search(chunk, threshold) for segment in segments], chunks))
        return [list(chain.from_iterable(share[number] for share in shares)) for number in range(len(segments))]

    def _audit_now_and_then(self, segments: tuple[Segment, ...], probes: Embeddings, threshold: float) -> None:
        """Repeat this search exactly, on a thread of its own, if the last such audit is long ago."""
        sealed = [segment for segment in segments if isinstance(segment, SealedSegment)]
        now = time.monotonic()
        if not sealed or not len(probes) or now < self._next_audit:
            return
        self._next_audit = now + AUDIT_EVERY_S
        audited = probes[:1].copy()
        threading.Thread(target=_audit, args=(sealed, audited, threshold), name="audit", daemon=True).start()

    def _threads_pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, "search")
            return self._pool

    def _begin_another(self) -> None:
        """Leave the open segment to be sealed and begin the next; with the lock held."""
        self._open = OpenSegment(self._dimension)
        self._segments = (*self._segments, self._open)
        self._wake()

    def _wake(self) -> None:
        """Start the thread that keeps the segments tidy, unless it runs; with the lock held."""
        if self._caretaker is None and self._next_work():
            self._caretaker = threading.Thread(target=self._take_care, name="segments", daemon=True)
            self._caretaker.start()

    def _next_work(self) -> tuple[Segment, ...]:
        """Return the segments that should become one, or none, nothing if all is well; with the lock held."""
        full = [each for each in self._segments if isinstance(each, OpenSegment) and each is not self._open]
        if full:
            return _up_to(full, self._max_segment)
        sealed = [each for each in self._segments if isinstance(each, SealedSegment)]
        for segment in sealed:
            if len(segment) <= segment.used * (1 - COMPACT_FROM):
                return (segment,)
        tiers: dict[int, list[Segment]] = {}
        for segment in sealed:
            if len(segment) * MERGE_COUNT <= self._max_segment:
                tiers.setdefault(_tier(len(segment), self._seal_at), []).append(segment)
        return next((tuple(tier[:MERGE_COUNT]) for tier in tiers.values() if len(tier) >= MERGE_COUNT), ())

    def _take_care(self) -> None:
        """Seal, merge and compact until nothing is left to do; the thread then ends and holds nothing."""
        try:
            while work := self._claimed_work():
                self._replace(work)
                self._write_snapshot()
        except (RuntimeError, ValueError, MemoryError) as error:
            # searches stay right, only slower: the old segments are still there
            log_event(_log, "index.sealing_failed", level=logging.ERROR, error=error)
            with self._lock:
                self._caretaker = None
                self._changed.notify_all()

    def _claimed_work(self) -> tuple[Segment, ...]:
        with self._lock:
            work = self._next_work()
            if not work:
                self._caretaker = None
                self._changed.notify_all()
            return work

    def _replace(self, old: tuple[Segment, ...]) -> None:
        """Build one sealed segment of what is live in `old` and put it in their place."""
        # without the lock: what is removed while it is copied is found out below
        contents = [segment.contents() for segment in old]
        ids = np.concatenate([ids for ids, _ in contents])
        rows = np.concatenate([rows for _, rows in contents])
        del contents
        order = np.argsort(ids, kind="stable")
        new = self._make_sealed(ids[order], rows[order]) if len(ids) else None
        with self._lock:
            if new is not None:
                still = np.concatenate([segment.live_ids() for segment in old])
                new.remove(np.setdiff1d(ids, still).tolist())
            kept = tuple(segment for segment in self._segments if segment not in old)
            self._segments = (new, *kept) if new is not None else kept

    def _write_snapshot(self) -> None:
        """Bring the files up to the segments. Where that fails a start reads more of the record, and nothing else."""
        segments = self._segments
        sealed = [segment for segment in segments if isinstance(segment, SealedSegment)]
        with self._files_lock:
            if self._snapshots is None:
                return
            try:
                for segment in sealed:
                    segment.file = segment.file or self._snapshots.save(segment)
                with self._lock:
                    files = [(segment.file, segment.removed_ids()) for segment in sealed if segment.file is not None]
                    covered = self._covered(segments)
                self._snapshots.commit(files, covered)
            except VarUnusable as error:
                log_event(_log, "index.snapshot_failed", level=logging.ERROR, error=error)

    def _covered(self, segments: tuple[Segment, ...]) -> int:
        """Return the last change whose templates are all in sealed segments; with the lock held."""
        firsts = [each.first_change for each in (*segments, self._open) if isinstance(each, OpenSegment)]
        waiting = [first for first in firsts if first is not None]
        return min(waiting) - 1 if waiting else self._high_water_mark


def _audit(sealed: Sequence[SealedSegment], probes: Embeddings, threshold: float) -> None:
    missed = sum(segment.audit(probes, threshold) for segment in sealed)
    if missed:
        log_event(_log, "index.candidates_missed", level=logging.WARNING, count=missed)


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


def _tier(size: int, smallest: int) -> int:
    tier = 0
    while size >= smallest * MERGE_COUNT:
        size //= MERGE_COUNT
        tier += 1
    return tier


def _hits(parts: Iterable[tuple[Ids, Scores]]) -> list[Hit]:
    """Join what the segments found for one probe, best first."""
    hits = [
        Hit(reference_id, score)
        for ids, scores in parts
        for reference_id, score in zip(ids.tolist(), scores.tolist(), strict=True)
    ]
    hits.sort(key=lambda hit: (-hit.score, hit.reference_id))
    return hits


def _upper_bound(tally: Tally) -> float:
    if not tally.pairs:
        return 0.0
    if tally.missed == tally.pairs:
        return 1.0
    return float(betaincinv(tally.missed + 1, tally.pairs - tally.missed, _CONFIDENCE))
