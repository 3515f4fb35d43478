"""The part of a gallery index that takes new templates: compared one by one."""

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.domain import Embeddings
from service.gallery.meter import Spent
from service.gallery.rows import HeldRows, Ids, Scores

Found = list[tuple[Ids, Scores]]
"""For each probe the references at or above the threshold, in no order."""


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

    def search(self, probes: Embeddings, threshold: float, spent: Spent | None = None) -> Found:
        """Compare `probes`, (n, D) float32, with every template; add to `spent` what it took."""
        start = time.perf_counter()
        rows, ids, live = self._view
        found = [at_least(scores, threshold, ids, live) for scores in probes @ rows.T]
        if spent is not None:
            spent.open_s.append(time.perf_counter() - start)
        return found

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


def _copied(rows: Embeddings, ids: Ids, wanted: npt.NDArray[np.bool_]) -> tuple[Ids, Embeddings]:
    places = np.flatnonzero(wanted)
    return ids[places], HeldRows(rows).take(places)


def at_least(scores: Scores, threshold: float, ids: Ids, live: npt.NDArray[np.bool_]) -> tuple[Ids, Scores]:
    """Return what of a block reaches the threshold and was not removed."""
    places = np.flatnonzero((scores >= threshold) & live)
    return ids[places], scores[places]
