"""Sweep: compare a gallery with itself or with another, block by block, to find the duplicates of the past."""

import threading
import time
from dataclasses import dataclass

from service.domain import Gallery, JobState, Lease, Page, Probes, Sweep, SweepStep
from service.errors import IndexUnavailable
from service.matching import IndexSearch, Matcher, SearchAgain
from service.metrics import Metrics
from service.packs import Packs
from service.ports import Reading, Store
from service.sweep_pairs import hits_of, pairs_of
from service.wide_search import check_comparable

BLOCK_SIZE = 4096  # references searched and recorded together
# fewer in a large gallery: a kill loses a block, which must end well within its lease; an index that makes all scores
# at once takes 2 GiB for these
BLOCK_COMPARISONS, _LEAST_BLOCK = 2**29, 128
_TIMED_PROBES = 64  # searched to estimate how long a sweep takes
_ATTEMPTS = 5
_LAST_REFERENCE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What a sweep would do, before it begins."""

    gallery_id: str
    other_gallery_id: str | None  # None: the gallery itself
    templates: int
    comparisons: int  # N (N - 1) / 2, or N times the templates of the other gallery
    allowed_false_pairs: int
    fmr: float
    threshold: float
    extrapolated: bool
    expected_fnir: float
    expected_fnir_population: str
    estimated_s: float
    left_out: int  # templates that only a standby pack has: their people are not compared


@dataclass(frozen=True, slots=True)
class _Block:
    """References that were searched and are not yet recorded."""

    probes: Probes
    found: IndexSearch | None  # None where there was no probe
    is_last: bool
    start: float  # of the work on it


class SweepService:
    """The use cases about sweeps. Somebody else calls `advance` again and again: `service.job_runner`.

    A sweep takes the references in the order of their ids as probes and keeps what it finds on either side of them: the
    index is approximate, so that a pair may be found from one side only. It is counted once and has one case. It ends
    with the last reference there was when it began, on both sides: who came later was compared when enrolled, or
    belongs to the next sweep. The index is brought at least up to that beginning first, so that no newcomer is left to
    compare.
    """

    def __init__(
        self,
        store: Store,
        matcher: Matcher,
        packs: Packs,
        metrics: Metrics,
        *,
        block_size: int = BLOCK_SIZE,
        block_comparisons: int = BLOCK_COMPARISONS,
    ) -> None:
        self._store = store
        self._matcher = matcher
        self._packs = packs
        self._metrics = metrics
        self._block_size = block_size
        self._block_comparisons = block_comparisons
        self.news = threading.Event()
        """Set when a sweep was begun."""

    def plan(self, gallery_id: str, allowed_false_pairs: int, other_gallery_id: str | None = None) -> SweepPlan:
        """Return what a sweep of the gallery as it is now would do; a few probes are searched to time it.

        Raises:
            GalleryNotFound, GalleriesNotComparable, PackNotLoaded, StoreUnavailable, IndexUnavailable
        """
        other_gallery_id = _other(gallery_id, other_gallery_id)
        with self._store.reading() as reading:
            gallery, searched = _galleries(reading, gallery_id, other_gallery_id)
            first = reading.probes_after(gallery_id, 0, _LAST_REFERENCE, _TIMED_PROBES, gallery.pack_id)
        calibration = self._packs.rule(gallery).calibration
        fmr = sweep_fmr(gallery, searched, allowed_false_pairs)
        threshold = calibration.threshold(fmr)
        seconds = self._time(searched, first, threshold)
        return SweepPlan(
            gallery_id=gallery_id,
            other_gallery_id=other_gallery_id,
            templates=gallery.template_count,
            comparisons=comparisons_of(gallery, searched),
            allowed_false_pairs=allowed_false_pairs,
            fmr=fmr,
            threshold=threshold,
            extrapolated=calibration.is_extrapolated(threshold),
            expected_fnir=calibration.expected_fnir(threshold),
            expected_fnir_population=calibration.mated_population,
            estimated_s=seconds * gallery.template_count / len(first) if first else 0.0,
            left_out=gallery.standby_only_count + (searched.standby_only_count if other_gallery_id else 0),
        )

    def start(self, gallery_id: str, allowed_false_pairs: int, other_gallery_id: str | None = None) -> Sweep:
        """Queue a sweep.

        Raises:
            GalleryNotFound, GalleriesNotComparable, PackNotLoaded, SweepUnderway, StoreUnavailable
        """
        other_gallery_id = _other(gallery_id, other_gallery_id)
        with self._store.sweeping(gallery_id, other_gallery_id) as sweeping:
            gallery, searched = _galleries(sweeping, gallery_id, other_gallery_id)
            calibration = self._packs.rule(gallery).calibration
            threshold = calibration.threshold(sweep_fmr(gallery, searched, allowed_false_pairs))
            sweep = sweeping.begin_sweep(allowed_false_pairs, threshold)
        self._metrics.sweep_progress.labels(gallery=gallery_id).set(0.0)
        self.news.set()
        return sweep

    def sweep(self, gallery_id: str, job_id: int) -> Sweep:
        """Raises GalleryNotFound, SweepNotFound."""
        return self._store.sweep(gallery_id, job_id)

    def sweeps(self, gallery_id: str, after: str | None, limit: int) -> Page[Sweep]:
        """Raises GalleryNotFound."""
        return self._store.sweeps(gallery_id, after, limit)

    def unfinished(self) -> list[Sweep]:
        return self._store.unfinished_sweeps()

    def end(self, sweep: Sweep, state: JobState, error_code: str | None = None) -> Sweep:
        """Cancel it or let it fail; one that ended already stays as it is. What it found stays too.

        Raises:
            GalleryNotFound, SweepNotFound, StoreUnavailable
        """
        with self._store.sweeping(sweep.gallery_id) as sweeping:
            ended = sweeping.end_sweep(sweep.job_id, state, error_code)
        if not sweep.state.has_ended and ended.state is state:
            self._metrics.sweeps_ended.labels(state=state.value).inc()
        return ended

    def fail(self, sweep: Sweep, error_code: str) -> Sweep:
        """Raises GalleryNotFound, SweepNotFound, StoreUnavailable."""
        return self.end(sweep, JobState.FAILED, error_code)

    def take(self, sweep: Sweep, lease: Lease) -> Sweep | None:
        """Return the sweep as it stands, to work on it; None where it ended or somebody else is at it."""
        with self._store.sweeping(sweep.gallery_id) as sweeping:
            return sweeping.lease_sweep(sweep.job_id, lease)

    def release(self, sweep: Sweep, owner: str) -> None:
        with self._store.sweeping(sweep.gallery_id) as sweeping:
            sweeping.release_sweep(sweep.job_id, owner)

    def advance(self, sweep: Sweep, lease: Lease) -> Sweep | None:
        """Compare the next block; its cases and the new cursor are recorded in one transaction.

        Returns:
            The sweep after it; None where it ended meanwhile or is somebody else's.

        Raises:
            PackNotLoaded, PackMismatch, GalleriesNotComparable, StoreUnavailable, IndexUnavailable
        """
        for _ in range(_ATTEMPTS):
            block = self._search_block(sweep)
            try:
                with self._store.sweeping(sweep.gallery_id, sweep.other_gallery_id) as sweeping:
                    self._check(sweeping, sweep, block)
                    moved = sweeping.advance_sweep(sweep.job_id, lease, self._step(sweeping, sweep, block))
            except SearchAgain:
                continue
            if moved is not None:
                self._count(sweep, moved)
            return moved
        raise IndexUnavailable("the gallery changes faster than its index can follow; try again")

    def _search_block(self, sweep: Sweep) -> _Block:
        start = time.perf_counter()
        self._matcher.catch_up(sweep.searched_gallery_id)
        with self._store.reading() as reading:
            _, searched = _galleries(reading, sweep.gallery_id, sweep.other_gallery_id)
            limit = min(self._block_size, block_size_of(searched, self._block_comparisons))
            bounds = sweep.cursor, sweep.last_reference_id
            probes = reading.probes_after(sweep.gallery_id, *bounds, limit, searched.pack_id)
        found = self._search(searched, probes, sweep.threshold) if probes else None
        return _Block(probes, found, is_last=len(probes) < limit, start=start)

    def _search(self, gallery: Gallery, probes: Probes, threshold: float) -> IndexSearch:
        # a threshold above every score says that nothing is sure enough: no index is asked for more than a score can be
        return self._matcher.search(gallery, probes.embeddings, min(threshold, 1.0), phase="sweep")

    def _time(self, gallery: Gallery, probes: Probes, threshold: float) -> float:
        """Return the seconds that a search of the probes takes."""
        if not probes:
            return 0.0
        self._matcher.catch_up(gallery.gallery_id)  # else a first search would fill the index
        start = time.perf_counter()
        self._search(gallery, probes, threshold)
        return time.perf_counter() - start

    def _check(self, reading: Reading, sweep: Sweep, block: _Block) -> None:
        """Raises SearchAgain."""
        if block.found is None:
            return
        self._matcher.check(reading.gallery(sweep.searched_gallery_id), block.found)
        if block.found.high_water_mark < sweep.started_seq:
            raise SearchAgain

    def _step(self, reading: Reading, sweep: Sweep, block: _Block) -> SweepStep:
        calibration = self._packs.rule(reading.gallery(sweep.gallery_id)).calibration
        probe_ids = block.probes.reference_ids
        hits = hits_of(sweep, probe_ids, block.found.found) if block.found else []
        # read again under the lock: who was erased or taken out meanwhile is named nowhere
        references = reading.references(sweep.gallery_id, sorted({probe_id for probe_id, _ in hits}))
        others = {hit.reference_id for _, hit in hits}
        references |= reading.references(sweep.searched_gallery_id, sorted(others))
        count, pairs = pairs_of(sweep, hits, references, calibration)
        return SweepStep(
            after=sweep.cursor,
            cursor=sweep.last_reference_id if block.is_last else probe_ids[-1],
            done=len(probe_ids),
            found_pairs=count,
            pairs=pairs,
            worked_s=time.perf_counter() - block.start,
            is_last=block.is_last,
        )

    def _count(self, before: Sweep, after: Sweep) -> None:
        self._metrics.sweep_pairs.inc(after.found_pairs - before.found_pairs)
        self._metrics.sweep_cases.inc(after.cases_opened - before.cases_opened)
        self._metrics.sweep_progress.labels(gallery=after.gallery_id).set(progress_of(after))
        if after.state is JobState.DONE:
            self._metrics.sweeps_ended.labels(state=after.state.value).inc()


def comparisons_of(gallery: Gallery, searched: Gallery) -> int:
    if gallery.gallery_id != searched.gallery_id:
        return gallery.template_count * searched.template_count
    return gallery.template_count * (gallery.template_count - 1) // 2


def block_size_of(searched: Gallery, comparisons: int = BLOCK_COMPARISONS) -> int:
    """Return how many references make a block of some seconds at most."""
    return max(_LEAST_BLOCK, comparisons // max(searched.template_count, 1))


def sweep_fmr(gallery: Gallery, searched: Gallery, allowed_false_pairs: int) -> float:
    """Return the false match rate at which a sweep is expected to find that many pairs of different people.

    Never laxer than a 1:1 comparison in this gallery: in a small one, any two would be a pair.
    """
    comparisons = max(comparisons_of(gallery, searched), 1)
    return min(allowed_false_pairs / comparisons, gallery.verification_fmr)


def progress_of(sweep: Sweep) -> float:
    """Return the share (0..1) of the gallery that was compared."""
    if sweep.state is JobState.DONE or not sweep.total:
        return 1.0
    return min(sweep.done / sweep.total, 1.0)  # one encounter more may have become active


def seconds_left(sweep: Sweep) -> float | None:
    """Return the seconds of work that are left, None while nothing was compared."""
    if sweep.state.has_ended:
        return 0.0
    return sweep.worked_s / sweep.done * max(sweep.total - sweep.done, 0) if sweep.done else None


def _other(gallery_id: str, other_gallery_id: str | None) -> str | None:
    """Return the other gallery, None where that is the gallery itself."""
    return None if other_gallery_id == gallery_id else other_gallery_id


def _galleries(reading: Reading, gallery_id: str, other_gallery_id: str | None) -> tuple[Gallery, Gallery]:
    """Return the gallery and the one whose references are searched.

    Raises:
        GalleryNotFound, GalleriesNotComparable
    """
    gallery = reading.gallery(gallery_id)
    if other_gallery_id is None:
        return gallery, gallery
    other = reading.gallery(other_gallery_id)
    check_comparable(gallery, other)
    return gallery, other
