"""Searches all segments of an index with several threads."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar

from service.domain import Embeddings, Hit
from service.gallery.basis import Probes
from service.gallery.coarse_codes import AT_ONCE
from service.gallery.meter import Spent
from service.gallery.open_segment import Found
from service.gallery.rows import Ids, Scores
from service.gallery.upkeep import Look, Segment, searched

_T = TypeVar("_T")
_R = TypeVar("_R")

_MANY = 4  # probes a thread
_BYTES_A_THREAD = 4 << 20  # to be read: a second thread costs 0.2 ms to wake, and needs the interpreter now and then
_PAIRS_AT_ONCE = 1 << 27  # searched before another request has its turn
_LONGEST_PORTION = 1024  # probes


def portion_of(templates: int) -> int:
    """Return how many probes of a long search are searched before another request has its turn."""
    return min(max(_PAIRS_AT_ONCE // max(templates, 1) // AT_ONCE, 1) * AT_ONCE, _LONGEST_PORTION)


class SideBySide:
    """A pool of threads, begun with the first search that needs it."""

    def __init__(self, threads: int) -> None:
        """`threads`: that one search may use."""
        self._threads = threads
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def search(
        self, segments: Sequence[Segment], probes: Embeddings, threshold: float, spent: Spent
    ) -> list[list[Hit]]:
        """Return for each of `probes`, (n, D) float32, what scores at least `threshold`, best first.

        What it took is added to `spent`.
        """
        parts = self._searched(segments, probes, threshold, spent)
        return [_hits(part[number] for part in parts) for number in range(len(probes))]

    def _searched(self, segments: Sequence[Segment], probes: Embeddings, threshold: float, spent: Spent) -> list[Found]:
        """Search the segments side by side for few probes, and each for AT_ONCE of the probes when there are many."""
        if len(probes) < min(self._threads * _MANY, AT_ONCE):
            few, parts = Probes(probes), [part for segment in segments for part in segment.parts(1)]
            threads = self._worth(sum([part.scanned_bytes for part in parts]))
            if threads == 1:
                return [searched(part, few, threshold, spent) for part in parts]
            parts = [part for segment in segments for part in segment.parts(threads)]
            # what takes longest first, so that none of it is left at the end
            parts.sort(key=lambda part: part.scanned_bytes, reverse=True)
            return self._found([part.begin(few, threshold, spent) for part in parts], threads)
        # one segment after the other, so that the threads read the same codes, which then are in the cache
        passes = [Probes(probes[start : start + AT_ONCE]) for start in range(0, len(probes), AT_ONCE)]
        jobs = [(part, some) for segment in segments for part in segment.parts(1) for some in passes]
        found = self._done(lambda job: searched(*job, threshold, spent), jobs)
        firsts = range(0, len(jobs), len(passes))
        return [list(chain.from_iterable(found[first : first + len(passes)])) for first in firsts]

    def _worth(self, scanned_bytes: int) -> int:
        """Return how many threads are worth their beginning for reading so much."""
        return min(max(scanned_bytes // _BYTES_A_THREAD, 1), self._threads)

    def _found(self, looks: Sequence[Look], threads: int) -> list[Found]:
        """Run the looks on so many threads, in their order. The thread that asks also collects what was found, as soon
        as a look has run: that needs the interpreter, for which threads would wait for each other.
        """
        waiting, ready = deque(enumerate(looks)), deque[int]()
        found: dict[int, Found] = {}

        def run_next() -> bool:
            try:
                number, look = waiting.popleft()
            except IndexError:
                return False
            look.run()
            ready.append(number)
            return True

        def run_all() -> None:
            while run_next():
                pass

        def collect() -> None:
            while ready:
                number = ready.popleft()
                found[number] = looks[number].found()

        with self._beside(run_all, waiting, threads):
            while run_next():
                collect()
            collect()
        collect()
        return [found[number] for number in range(len(looks))]

    def _done(self, work: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
        """Return the work of each item, in their order; the thread that asks works too."""
        waiting = deque(enumerate(items))
        results: dict[int, _R] = {}

        def some() -> None:
            while waiting:
                try:
                    number, item = waiting.popleft()
                except IndexError:  # another thread was quicker
                    return
                results[number] = work(item)

        with self._beside(some, waiting, self._threads):
            some()
        return [results[number] for number in range(len(items))]

    @contextmanager
    def _beside(self, work: Callable[[], None], waiting: deque[Any], threads: int) -> Iterator[None]:
        """Let other threads `work` too, until nothing is `waiting`. Raises what they raise."""
        others = [self._begun().submit(work) for _ in range(threads - 1)]
        try:
            yield
            while others:
                if not others[-1].cancel():
                    others[-1].result()
                others.pop()
        finally:
            waiting.clear()
            others.clear()  # one that failed holds its error, which holds this frame, and with it the index

    def _begun(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads - 1, "search")
            return self._pool


def _hits(parts: Iterable[tuple[Ids, Scores]]) -> list[Hit]:
    """Join what the segments found for one probe, best first."""
    hits = [
        Hit(reference_id, score)
        for ids, scores in parts
        if len(ids)
        for reference_id, score in zip(ids.tolist(), scores.tolist(), strict=True)
    ]
    hits.sort(key=lambda hit: (-hit.score, hit.reference_id))
    return hits
