"""The templates of a sealed segment themselves: decrypted one by one from its file, in memory until it has one."""

from typing import Any, NamedTuple, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from service.domain import Embeddings
from service.gallery.segment_files import OpenedSegment

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

_AT_ONCE = 4096  # rows copied or read: one copy of all would hold the interpreter's lock for too long


class Pairs(NamedTuple):
    """Which probes are to be compared with which templates: both (k,) int64, the i-th with the i-th."""

    probes: Ids
    places: Ids


class Rows(Protocol):
    """(n, D) float32 of L2 norm 1, by their places 0..n-1. Any number of threads read."""

    @property
    def ram_bytes(self) -> int: ...

    def take(self, places: Ids) -> Embeddings:
        """Return copies of the rows at `places`, (k,) int64."""
        ...

    def scores(self, probes: Embeddings, pairs: Pairs) -> Scores:
        """Return the inner products of `pairs`, (k,)."""
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
        for start in range(0, len(places), _AT_ONCE):
            part = places[start : start + _AT_ONCE]
            copies[start : start + len(part)] = self.array[part]
        return copies

    def scores(self, probes: Embeddings, pairs: Pairs) -> Scores:
        return inner_products(probes, self.array, pairs)

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
        for start in range(0, len(places), _AT_ONCE):
            part = places[start : start + _AT_ONCE]
            copies[start : start + len(part)] = self._opened.rows(part)
        return copies

    def scores(self, probes: Embeddings, pairs: Pairs) -> Scores:
        scores = np.empty(len(pairs.places), np.float32)
        in_order = np.argsort(pairs.places, kind="stable")  # pairs with one row come side by side
        for start in range(0, len(in_order), _AT_ONCE):
            part = in_order[start : start + _AT_ONCE]
            wanted, read = np.unique(pairs.places[part], return_inverse=True)
            scores[part] = inner_products(probes, self._opened.rows(wanted), Pairs(pairs.probes[part], read))
        return scores

    def erase(self, places: Ids) -> None:
        """Do nothing: none of them is in memory."""


def joined(parts: list[tuple[Ids, Embeddings]]) -> tuple[Ids, Embeddings]:
    """Return ids, and their rows, of all parts, ascending; `parts` is emptied, so that three copies are never held."""
    ids, rows = (np.concatenate(each) for each in zip(*parts, strict=True))
    parts.clear()
    order = np.argsort(ids, kind="stable")
    return ids[order], rows[order]


def inner_products(probes: Embeddings, rows: Embeddings, pairs: Pairs) -> Scores:
    """Return the inner products of `pairs` of `probes` and `rows`, both (any number, D) float32, contiguous."""
    # all at once: a call for each probe would hold the interpreter's lock for as long as the scan takes
    faiss.omp_set_num_threads(1)  # it counts its threads for each calling thread; the index shares the cores out itself
    scores = np.empty(len(pairs.places), np.float32)
    numbers, places = (np.ascontiguousarray(each, np.int64) for each in pairs)
    pointers = (faiss.swig_ptr(each) for each in (probes, numbers, rows, places, scores))
    library: Any = faiss  # its stubs lack the function
    library.pairwise_indexed_inner_product(probes.shape[1], len(scores), *pointers)
    return scores
