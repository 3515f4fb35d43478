"""The gallery index for millions: new templates in an open segment, the rest in sealed ones, kept tidy by a thread."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain

import numpy as np

from service.domain import Embeddings, Hit
from service.errors import IndexUnavailable, VarUnusable
from service.gallery.audits import Auditor, miss_bound
from service.gallery.basis import Basis
from service.gallery.damage import SnapshotDamaged, index_damaged
from service.gallery.exact_index import foreign_errors, next_change
from service.gallery.meter import Meter, Spent
from service.gallery.open_segment import OpenSegment
from service.gallery.rows import Ids, joined
from service.gallery.sealed_segment import SealedSegment
from service.gallery.sealing import seal
from service.gallery.segment_files import SegmentFile
from service.gallery.side_by_side import SideBySide, portion_of
from service.gallery.snapshots import SnapshotFolder
from service.gallery.together import Together, Turn, leave_cores_to_others
from service.gallery.upkeep import (
    Segment,
    Work,
    covered,
    described,
    is_stale,
    next_work,
    sealed_of,
    shared_basis,
    unsealed,
)
from service.logs import log_event
from service.ports import IndexPart

_log = logging.getLogger(__name__)

SEAL_AT = 16_384  # templates: compared exactly in a few milliseconds; fewer are not worth training codes on
MAX_SEGMENT = 262_144  # two threads share a million as four segments, and one is made anew within seconds


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
        make_sealed: Callable[[Ids, Embeddings, Basis | None], SealedSegment] = seal,
        snapshots: SnapshotFolder | None = None,
        last_seq: int = 0,
        meter: Meter | None = None,
    ) -> None:
        """Make an index of what the snapshots hold, an empty one without them.

        Args:
            dimension: of the embeddings, even, from 256 on a multiple of 16.
            threads: that one search may use; 0: one a core.
            seal_at: templates of an open segment from which it is sealed.
            max_segment: templates of a sealed segment that is not made larger.
            make_sealed: for tests.
            snapshots: where sealed segments are kept on disk; None: nowhere.
            last_seq: the record's last change; snapshots that are ahead of it are not used.
            meter: told what searches and sealing cost.

        Raises:
            VarUnusable: the folder of the snapshots cannot be written.
        """
        self._dimension, self._meter = dimension, meter
        self._side_by_side = SideBySide(threads or len(os.sched_getaffinity(0)))
        self._seal_at, self._max_segment, self._make_sealed = seal_at, max_segment, make_sealed
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._open = OpenSegment(self._dimension)
        self._snapshots, self._files_lock = snapshots, threading.Lock()
        restored, self._high_water_mark = snapshots.load(last_seq) if snapshots else ([], 0)
        self._segments: tuple[Segment, ...] = (*restored, self._open)
        self._compact_to = -1  # change up to which nothing that was removed may be left
        self._working_since: int | None = None  # the last change when the segment that is being made was begun
        self._caretaker: threading.Thread | None = None
        self._is_closed = self._is_damaged = False
        self._auditor, self._together = Auditor(), Together()
        self._turn = Turn(self._together)

    @property
    def high_water_mark(self) -> int:
        return self._high_water_mark

    @property
    def miss_bound(self) -> float:
        """Upper 95 % bound on the share of pairs at or above a threshold that a search misses; 0: all is exact."""
        return miss_bound(sealed_of(self._segments))

    def __len__(self) -> int:
        return sum(len(segment) for segment in self._segments)

    def add(self, seq: int, reference_ids: Sequence[int], embeddings: Embeddings) -> None:
        with self._turn as is_patient, self._lock, foreign_errors():
            # what is not sealed yet takes memory, and slows searches: who adds without pause waits for all of it
            self._changed.wait_for(lambda: self._has_room(0 if is_patient else 2 * self._max_segment))
            next_change(self._high_water_mark, seq)
            if len(reference_ids):
                if self._open.first_change is None:
                    self._open.first_change = seq
                self._open.append([int(each) for each in reference_ids], embeddings)
            self._high_water_mark = seq
            if self._open.used >= self._seal_at:
                self._open = OpenSegment(self._dimension)
                self._segments = (*self._segments, self._open)
                self._wake()

    def remove(self, seq: int, reference_ids: Sequence[int]) -> None:
        with self._lock, foreign_errors():
            next_change(self._high_water_mark, seq)
            for segment in self._segments:
                before = len(segment)
                segment.remove(reference_ids)
                if isinstance(segment, SealedSegment) and segment.first_removal is None and len(segment) < before:
                    segment.first_removal = seq
            self._high_water_mark = seq
            self._wake()

    def search(self, probes: Embeddings, threshold: float) -> list[list[Hit]]:
        # in portions, so that another request waits a fraction of a second for a sweep, not for its whole block
        portion = portion_of(len(self))
        parts = [probes[start : start + portion] for start in range(0, len(probes), portion)]
        return list(chain.from_iterable(self._together.search(self._search, part, threshold) for part in parts))

    def templates(self, after: int, up_to: int) -> tuple[Ids, Embeddings]:
        with self._reading(), self._lock, foreign_errors():
            return joined([segment.between(after, up_to) for segment in self._segments])

    def parts(self) -> list[IndexPart]:
        with self._lock:
            return [described(segment, self._open) for segment in self._segments]

    def compact(self) -> None:
        """Make each sealed segment with anything removed anew, and replace its file; returns when that is done.

        Raises:
            IndexUnavailable: it could not be; every answer is right nevertheless.
        """
        with self._lock:
            wanted = self._compact_to = self._high_water_mark
            self._wake()
            self._changed.wait_for(lambda: self._caretaker is None or self._is_compact(wanted))
            failed = not self._is_compact(wanted)
        if failed or not self._write_snapshot(tidy=True):
            raise IndexUnavailable("the index could not be compacted: the log says why. Searches are right as before")

    def discard(self, reason: str = "differs_from_record") -> None:
        """Keep nothing on disk from now on, and let nobody use what is there."""
        with self._files_lock:
            if self._snapshots is not None:
                self._snapshots.forget(reason)
                self._snapshots = None

    def close(self) -> None:
        with self._lock:
            self._is_closed = True  # no more work is begun; what is under way is lost
        with self._files_lock:  # a file that is being written is finished
            self._snapshots = None

    def settle(self) -> None:
        """Wait until nothing is left to seal, merge or compact, or until that failed."""
        with self._lock:
            self._changed.wait_for(lambda: self._caretaker is None)

    def _search(self, probes: Embeddings, threshold: float) -> list[list[Hit]]:
        segments, spent = self._segments, Spent()  # one step: what is replaced meanwhile is searched as it was
        with self._reading(), foreign_errors():
            hits = self._side_by_side.search(segments, np.ascontiguousarray(probes, np.float32), threshold, spent)
        if self._meter is not None:
            self._meter.searched(len(probes), spent)
        self._auditor.now_and_then(segments, probes, threshold, self._reading)
        return hits

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Let nobody use the files, or this index, any more once one cannot be read. Raises IndexUnavailable."""
        try:
            if self._is_damaged:
                raise index_damaged()
            yield
        except SnapshotDamaged as error:
            self._is_damaged = True
            self.discard(error.reason)
            raise index_damaged() from error

    def _is_compact(self, compact_to: int) -> bool:
        # a segment begun before that change may hold the code of what it removed
        is_coming = self._working_since is not None and self._working_since < compact_to
        return not is_coming and not any(
            is_stale(each, compact_to) for each in self._segments if each is not self._open
        )

    def _wake(self) -> None:
        """Start the caretaker, unless it runs; with the lock held."""
        if self._caretaker is None and self._next_work():
            self._caretaker = threading.Thread(target=self._take_care, name="segments", daemon=True)
            self._caretaker.start()

    def _next_work(self) -> Work | None:  # with the lock held
        work = next_work(self._segments, self._open, self._seal_at, self._max_segment, self._compact_to)
        return None if self._is_closed or self._is_damaged else work

    def _take_care(self) -> None:
        """Seal, merge and compact until nothing is left to do; the thread then ends and holds nothing."""
        try:
            leave_cores_to_others()
            while self._did_work():
                self._write_snapshot()
        except (RuntimeError, ValueError, MemoryError, IndexUnavailable) as error:
            # searches stay right, only slower: the old segments are still there
            log_event(_log, "index.sealing_failed", level=logging.ERROR, error=error)
        finally:
            with self._lock:
                if self._caretaker is threading.current_thread():  # nobody may wait for a thread that is gone
                    self._caretaker = self._working_since = None
                    self._changed.notify_all()

    def _did_work(self) -> bool:
        work = self._claimed_work()
        if work is not None:
            with self._meter.building(work.kind) if self._meter is not None else nullcontext(), self._reading():
                self._replace(work.segments)
        return work is not None

    def _claimed_work(self) -> Work | None:
        with self._lock:
            work = self._next_work()
            self._working_since = self._high_water_mark if work else None
            if not work:
                self._caretaker = None
                self._changed.notify_all()
            return work

    def _replace(self, old: tuple[Segment, ...]) -> None:
        """Put one sealed segment of what is live in `old` in their place, without what is removed meanwhile."""
        ids, rows = joined([segment.contents() for segment in old])
        basis = shared_basis(self._segments, len(ids), at_least=self._seal_at // 2)
        new = self._make_sealed(ids, rows, basis) if len(ids) else None
        with self._lock:
            if new is not None:
                new.remove(np.setdiff1d(ids, np.concatenate([segment.live_ids() for segment in old])).tolist())
                if len(new) < new.used:
                    new.first_removal = (self._working_since or 0) + 1
            kept = tuple(segment for segment in self._segments if segment not in old)
            self._segments = (new, *kept) if new is not None else kept
            self._working_since = None
            self._changed.notify_all()

    def _write_snapshot(self, *, tidy: bool = False) -> bool:
        """Bring the files up to the segments, and tell whether they are: if not, a start reads more of the record.

        If `tidy`, also delete what was set aside, which may hold templates that were erased since.
        """
        with self._files_lock:
            if self._snapshots is None:
                return True
            try:
                self._snapshots.commit(*self._saved(self._snapshots))
                if tidy:
                    self._snapshots.delete_set_aside()
            except (VarUnusable, SnapshotDamaged) as error:
                log_event(_log, "index.snapshot_failed", level=logging.ERROR, error=error)
                return False
        return True

    def _saved(self, snapshots: SnapshotFolder) -> tuple[list[tuple[SegmentFile, list[int]]], int]:
        """Write the segments that have no file; return all files with what was removed, and what they cover."""
        while True:
            with self._lock:
                # in one step: a segment that is no longer in its place does not learn of the next removal
                sealed = sealed_of(self._segments)
                files = [(each.file, each.removed_ids()) for each in sealed if each.file is not None]
                if len(files) == len(sealed):
                    return files, covered(self._segments, self._high_water_mark)
            for segment in sealed:
                if segment.file is None:
                    file, rows = snapshots.save(segment)
                    with self._lock:  # not while something is removed from it
                        segment.file, segment.rows = file, rows

    def _has_room(self, most: int) -> bool:
        return self._caretaker is None or unsealed(self._segments, self._open) <= most
