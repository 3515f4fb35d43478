"""Searches all segments of an index with several threads."""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np

from service.domain import Embeddings, Hit
from service.gallery.meter import Spent
from service.gallery.open_segment import Found
from service.gallery.rows import Ids, Scores
from service.gallery.together import MOST
from service.gallery.upkeep import Segment

_MANY = 4  # probes a thread
_PAIRS_AT_ONCE = 1 << 26  # searched before another request has its turn
_PASSES = 32  # probes: two threads with a whole pass over the codes each


def portion_of(templates: int) -> int:
    """Return how many probes of a long search are searched before another request has its turn."""
    return min(max(_PAIRS_AT_ONCE // max(templates, 1) // _PASSES, 1) * _PASSES, MOST)


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
        """Search the segments side by side for few probes, and each for a part of the probes when there are many."""
        if self._threads == 1 or len(segments) == 1:
            return [segment.search(probes, threshold, spent) for segment in segments]
        pool = self._begun()
        if len(probes) < self._threads * _MANY:
            ordered = sorted(segments, key=len, reverse=True)  # the longest first, so that none is left at the end
            return list(pool.map(lambda segment: segment.search(probes, threshold, spent), ordered))
        chunks = np.array_split(probes, self._threads)
        shares = list(pool.map(lambda chunk: [segment.search(chunk, threshold, spent) for segment in segments], chunks))
        return [list(chain.from_iterable(share[number] for share in shares)) for number in range(len(segments))]

    def _begun(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, "search")
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
