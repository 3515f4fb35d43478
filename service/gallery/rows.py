"""The templates of a sealed segment: held in memory, or decrypted one by one from its file as they are needed."""

import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Protocol

import faiss
import numpy as np
import numpy.typing as npt

from service.domain import Embeddings
from service.gallery.segment_files import OpenedSegment

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

BLOCK = 16_384  # rows compared at once: their scores stay in the cache
_COPIED_AT_ONCE = 4096  # rows: one copy of all would hold the interpreter's lock for too long
_READ_AT_ONCE = 4096  # rows, of a file


class Rows(Protocol):
    """(n, D) float32 of L2 norm 1, by their places 0..n-1. Any number of threads read."""

    @property
    def ram_bytes(self) -> int: ...

    def take(self, places: Ids) -> Embeddings:
        """Return copies of the rows at `places`, (k,) int64."""
        ...

    def blocks(self) -> Iterator[Embeddings]:
        """Return all rows in order, at most BLOCK at once."""
        ...

    def scores(self, probes: Embeddings, places: Ids) -> Scores:
        """Return inner products of each of `probes`, (n, D), with its own `places`, (n, k); -inf where that is -1."""
        ...

    def erase(self, places: Ids) -> None:
        """Overwrite rows in memory. A file holds them until compaction."""
        ...


class HeldRows:
    """`Rows` in memory."""

    def __init__(self, array: Embeddings) -> None:
        """Keep `array`, not a copy."""
        self.array = array

    @property
    def ram_bytes(self) -> int:
        return self.array.nbytes

    def take(self, places: Ids) -> Embeddings:
        copies = np.empty((len(places), self.array.shape[1]), np.float32)
        for start in range(0, len(places), _COPIED_AT_ONCE):
            part = places[start : start + _COPIED_AT_ONCE]
            copies[start : start + len(part)] = self.array[part]
        return copies

    def blocks(self) -> Iterator[Embeddings]:
        for start in range(0, len(self.array), BLOCK):
            yield self.array[start : start + BLOCK]

    def scores(self, probes: Embeddings, places: Ids) -> Scores:
        return _inner_products(probes, self.array, places)

    def erase(self, places: Ids) -> None:
        self.array[places] = 0.0


class FiledRows:
    """`Rows` of an encrypted file. Reading raises SnapshotDamaged where the file is not what was written."""

    def __init__(self, opened: OpenedSegment) -> None:
        self._opened = opened

    @property
    def ram_bytes(self) -> int:
        return 0

    def take(self, places: Ids) -> Embeddings:
        copies = np.empty((len(places), self._opened.dimension), np.float32)
        for start in range(0, len(places), _READ_AT_ONCE):
            part = places[start : start + _READ_AT_ONCE]
            copies[start : start + len(part)] = self._opened.rows(part)
        return copies

    def blocks(self) -> Iterator[Embeddings]:
        yield from self._opened.row_blocks()

    def scores(self, probes: Embeddings, places: Ids) -> Scores:
        scores = np.empty(places.shape, np.float32)
        step = max(1, _READ_AT_ONCE // max(1, places.shape[1]))  # probes: what they ask for fits the cache
        for start in range(0, len(probes), step):
            part = places[start : start + step]
            wanted = np.unique(part[part >= 0])
            rows = self._opened.rows(wanted)
            read = np.where(part >= 0, np.searchsorted(wanted, part), -1)
            scores[start : start + step] = _inner_products(probes[start : start + step], rows, read)
        return scores

    def erase(self, places: Ids) -> None:
        """Do nothing: none of them is in memory."""


class RowMemory:
    """How many bytes of templates the sealed segments of all galleries of a process hold in memory together.

    Only what has a file to be read from instead is counted. Threads may share it.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        """`limit_bytes`: None for no limit."""
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._let_go: deque[int] = deque()  # bytes; a finaliser may run anywhere, even here, and must not wait
        self._lock = threading.Lock()

    def has_room(self, byte_count: int) -> bool:
        with self._lock:
            return self._has_room(byte_count)

    def hold(self, rows: HeldRows) -> bool:
        """Count `rows` until nobody holds them any more; False if there is no room for them."""
        with self._lock:
            if not self._has_room(rows.ram_bytes):
                return False
            self._held_bytes += rows.ram_bytes
        weakref.finalize(rows, self._let_go.append, rows.ram_bytes)
        return True

    def _has_room(self, byte_count: int) -> bool:  # with the lock held
        while self._let_go:
            self._held_bytes -= self._let_go.popleft()
        return self._limit_bytes is None or self._held_bytes + byte_count <= self._limit_bytes


def _inner_products(probes: Embeddings, rows: Embeddings, places: Ids) -> Scores:
    # all at once: a call for each probe would hold the interpreter's lock for as long as the scan takes
    scores = np.empty(places.shape, np.float32)
    places = np.ascontiguousarray(places)
    faiss.fvec_inner_products_by_idx(  # type: ignore[attr-defined]  # of FAISS's own extra functions
        *(faiss.swig_ptr(each) for each in (scores, probes, rows, places)), rows.shape[1], *places.shape
    )
    return scores
