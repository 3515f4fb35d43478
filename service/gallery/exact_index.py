"""An index by plain matrix multiplication: the truth that every other index is held to."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from service.domain import Embeddings, Hit
from service.errors import IndexUnavailable
from service.ports import IndexPart


def next_change(high_water_mark: int, seq: int) -> None:
    """Raise IndexUnavailable unless `seq` is the change right after `high_water_mark`."""
    if seq != high_water_mark + 1:
        raise IndexUnavailable(f"change {seq} came when change {high_water_mark + 1} was due")


@contextmanager
def foreign_errors() -> Iterator[None]:
    """Turn what numpy and FAISS raise into IndexUnavailable, so that an index that failed is thrown away."""
    try:
        yield
    except (RuntimeError, ValueError, AssertionError, MemoryError) as error:
        raise IndexUnavailable("the gallery index failed") from error


class ExactIndex:
    """All embeddings in one array; a search is one product with it.

    Rows are only ever appended, and a removed row is switched off in a new copy of the mask, so a search works on a
    snapshot taken under the lock and computes outside it.
    """

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._lock = threading.Lock()
        self._rows: Embeddings = np.empty((1024, dimension), np.float32)
        self._ids = np.empty(1024, np.int64)
        self._live = np.zeros(1024, np.bool_)
        self._count = 0
        self._row_of: dict[int, int] = {}
        self._high_water_mark = 0

    @property
    def high_water_mark(self) -> int:
        return self._high_water_mark

    @property
    def miss_bound(self) -> float:
        return 0.0

    def __len__(self) -> int:
        return len(self._row_of)

    def add(self, seq: int, reference_ids: Sequence[int], embeddings: Embeddings) -> None:
        with self._lock, foreign_errors():
            next_change(self._high_water_mark, seq)
            self._reserve(len(reference_ids))
            for reference_id, embedding in zip(reference_ids, embeddings, strict=True):
                self._rows[self._count] = embedding
                self._ids[self._count] = reference_id
                self._live[self._count] = True
                self._row_of[reference_id] = self._count
                self._count += 1
            self._high_water_mark = seq

    def remove(self, seq: int, reference_ids: Sequence[int]) -> None:
        with self._lock:
            next_change(self._high_water_mark, seq)
            rows = [self._row_of.pop(reference_id) for reference_id in reference_ids if reference_id in self._row_of]
            if rows:
                live = self._live.copy()
                live[rows] = False
                self._live = live
                self._rows[rows] = 0.0  # erased means erased, in memory too
            self._high_water_mark = seq

    def templates(self, after: int, up_to: int) -> tuple[npt.NDArray[np.int64], Embeddings]:
        with self._lock:
            ids = self._ids[: self._count]
            places = np.flatnonzero(self._live[: self._count] & (ids > after) & (ids <= up_to))
            places = places[np.argsort(ids[places], kind="stable")]
            return ids[places], self._rows[places]

    def parts(self) -> list[IndexPart]:
        with self._lock:
            size = self._rows.nbytes + self._ids.nbytes + self._live.nbytes
            return [IndexPart("open", len(self._row_of), self._count - len(self._row_of), size)]

    def compact(self) -> None:
        """Close the gaps that removed templates left; their rows were overwritten when they went."""
        with self._lock:
            places = np.flatnonzero(self._live[: self._count])
            # new arrays: a search may be at work on the old ones
            self._rows, self._ids, self._live = self._rows[places], self._ids[places], self._live[places]
            self._count = len(places)
            self._row_of = {reference_id: row for row, reference_id in enumerate(self._ids.tolist())}

    def discard(self, reason: str = "differs_from_record") -> None:
        """Do nothing: all of it is in memory."""

    def close(self) -> None:
        """Do nothing: all of it is in memory."""

    def search(self, probes: Embeddings, threshold: float) -> list[list[Hit]]:
        with self._lock:
            rows, ids, live = self._rows[: self._count], self._ids[: self._count], self._live[: self._count]
        found: list[list[Hit]] = []
        with foreign_errors():
            for scores in probes.astype(np.float32) @ rows.T:
                positions = np.flatnonzero((scores >= threshold) & live)
                order = positions[np.argsort(-scores[positions], kind="stable")]
                found.append([Hit(int(ids[row]), float(scores[row])) for row in order])
        return found

    def _reserve(self, more: int) -> None:
        needed = self._count + more
        if needed <= len(self._ids):
            return
        size = max(needed, 2 * len(self._ids))
        rows = np.empty((size, self._dimension), np.float32)
        ids = np.empty(size, np.int64)
        live = np.zeros(size, np.bool_)
        rows[: self._count] = self._rows[: self._count]
        ids[: self._count] = self._ids[: self._count]
        live[: self._count] = self._live[: self._count]
        self._rows, self._ids, self._live = rows, ids, live
