"""The part of a gallery index that takes new templates: compared one by one."""

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from service.domain import Embeddings
from service.gallery.basis import Probes
from service.gallery.meter import Spent
from service.gallery.rows import HeldRows, Ids, Scores

_WORTH_A_THREAD = 2048  # templates: fewer are compared in less time than it takes to begin
_FEW = 4  # probes: for each of them FAISS takes half the time of a matrix product
Found = list[tuple[Ids, Scores]]
"""For each probe the references at or above the threshold, in no order."""


class OpenPart:
    """Some templates of an open segment, as they are when a search begins."""

    def __init__(self, rows: Embeddings, ids: Ids, live: npt.NDArray[np.bool_]) -> None:
        self.rows, self.ids, self.live = rows, ids, live

    @property
    def scanned_bytes(self) -> int:
        return self.rows.nbytes

    def begin(self, probes: Probes, threshold: float, spent: Spent) -> "OpenLook":
        """Prepare to compare `probes` with every template."""
        return OpenLook(self, probes.embeddings, threshold, spent)


class OpenLook:
    """`service.gallery.upkeep.Look` at an open segment."""

    def __init__(self, part: OpenPart, probes: Embeddings, threshold: float, spent: Spent) -> None:
        self._part, self._probes, self._threshold, self._spent = part, probes, threshold, spent
        self._found: Found = []

    def run(self) -> None:
        start, part = time.perf_counter(), self._part
        products = _products(self._probes, part.rows)
        self._found = [at_least(scores, self._threshold, part.ids, part.live) for scores in products]
        self._spent.open_s.append(time.perf_counter() - start)

    def found(self) -> Found:
        return self._found


class OpenSegment:
    """Templates compared one by one. One thread changes it at a time (the index's lock); any number search it."""

    def __init__(self, dimension: int, room: int = 1024) -> None:
        self._rows: Embeddings = np.empty((room, dimension), np.float32)
        self._ids: Ids = np.empty(room, np.int64)
        self._live = np.zeros(room, np.bool_)
        self._row_of: dict[int, int] = {}
        # what a search takes in one step, while rows are appended or the arrays replaced by larger ones
        self._view = (self._rows[:0], self._ids[:0], self._live[:0])
        self.first_change: int | None = None  # that added to it

    def __len__(self) -> int:
        return len(self._row_of)

    @property
    def used(self) -> int:
        """Rows in use, those of removed templates too."""
        return len(self._view[1])

    def append(self, ids: Sequence[int], embeddings: Embeddings) -> None:
        start, end = self.used, self.used + len(ids)
        if end > len(self._ids):
            self._grow(max(end, 2 * len(self._ids)))
        self._rows[start:end] = embeddings
        self._ids[start:end] = ids
        self._live[start:end] = True
        self._row_of.update(zip(ids, range(start, end), strict=True))
        self._view = (self._rows[:end], self._ids[:end], self._live[:end])

    def remove(self, ids: Sequence[int]) -> None:
        """Switch references off and overwrite their rows; unknown ones are ignored."""
        rows = [self._row_of.pop(each) for each in ids if each in self._row_of]
        self._live[rows] = False
        self._rows[rows] = 0.0  # erased means erased, in memory too

    def parts(self, count: int) -> list[OpenPart]:
        """Return it in at most `count` parts of about one size, to be searched side by side; none if it is empty."""
        rows, ids, live = self._view
        count = min(count, -(-len(ids) // _WORTH_A_THREAD))
        bounds = np.linspace(0, len(ids), count + 1, dtype=np.int64).tolist()
        return [OpenPart(rows[start:end], ids[start:end], live[start:end]) for start, end in pairwise(bounds)]

    def live_ids(self) -> Ids:
        _, ids, live = self._view
        return ids[live]

    def contents(self) -> tuple[Ids, Embeddings]:
        """Return the live ids and copies of their rows, in one order."""
        rows, ids, live = self._view
        return _copied(rows, ids, live)

    def between(self, after: int, up_to: int) -> tuple[Ids, Embeddings]:
        """Return the live ids above `after` and not above `up_to` and copies of their rows, in one order."""
        rows, ids, live = self._view
        return _copied(rows, ids, live & (ids > after) & (ids <= up_to))

    @property
    def ram_bytes(self) -> int:
        return self._rows.nbytes + self._ids.nbytes + self._live.nbytes

    def _grow(self, room: int) -> None:
        used = self.used
        rows = np.empty((room, self._rows.shape[1]), np.float32)
        ids, live = np.empty(room, np.int64), np.zeros(room, np.bool_)
        rows[:used], ids[:used], live[:used] = self._view
        self._rows, self._ids, self._live = rows, ids, live


def _products(probes: Embeddings, rows: Embeddings) -> Scores:
    """Return all inner products of `probes`, (n, D), and `rows`, (m, D), both contiguous: (n, m)."""
    if len(probes) > _FEW:
        return probes @ rows.T
    if probes.shape[1] != rows.shape[1]:
        raise ValueError("the probes are of another dimension")  # FAISS would read beyond them
    scores = np.empty((len(probes), len(rows)), np.float32)
    library: Any = faiss  # its stubs lack the function
    for probe, own in zip(probes, scores, strict=True):
        library.fvec_inner_products_ny(*(faiss.swig_ptr(each) for each in (own, probe, rows)), *reversed(rows.shape))
    return scores


def _copied(rows: Embeddings, ids: Ids, wanted: npt.NDArray[np.bool_]) -> tuple[Ids, Embeddings]:
    places = np.flatnonzero(wanted)
    return ids[places], HeldRows(rows).take(places)


def at_least(scores: Scores, threshold: float, ids: Ids, live: npt.NDArray[np.bool_]) -> tuple[Ids, Scores]:
    """Return what of a block reaches the threshold and was not removed."""
    places = np.flatnonzero((scores >= threshold) & live)
    return ids[places], scores[places]
