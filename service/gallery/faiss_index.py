"""An index by FAISS's exact inner product."""

import itertools
import threading
from collections.abc import Sequence

import faiss
import numpy as np
import numpy.typing as npt

from service.domain import Embeddings, Hit
from service.gallery.exact_index import foreign_errors, next_change
from service.ports import IndexPart


class FaissIndex:
    """`IndexFlatIP` under an id map. FAISS forbids searching while adding, so one lock guards both."""

    def __init__(self, dimension: int) -> None:
        self._lock = threading.Lock()
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))
        self._high_water_mark = 0

    @property
    def high_water_mark(self) -> int:
        return self._high_water_mark

    @property
    def miss_bound(self) -> float:
        return 0.0

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, seq: int, reference_ids: Sequence[int], embeddings: Embeddings) -> None:
        with self._lock, foreign_errors():
            next_change(self._high_water_mark, seq)
            if len(reference_ids):
                self._index.add_with_ids(
                    np.ascontiguousarray(embeddings, np.float32), np.asarray(reference_ids, np.int64)
                )
            self._high_water_mark = seq

    def remove(self, seq: int, reference_ids: Sequence[int]) -> None:
        with self._lock, foreign_errors():
            next_change(self._high_water_mark, seq)
            if len(reference_ids):
                self._index.remove_ids(faiss.IDSelectorBatch(np.asarray(reference_ids, np.int64)))
            self._high_water_mark = seq

    def templates(self, after: int, up_to: int) -> tuple[npt.NDArray[np.int64], Embeddings]:
        with self._lock, foreign_errors():
            if not self._index.ntotal:
                return np.empty(0, np.int64), np.empty((0, self._index.d), np.float32)
            ids = faiss.vector_to_array(self._index.id_map).astype(np.int64)
            places = np.flatnonzero((ids > after) & (ids <= up_to))
            places = places[np.argsort(ids[places], kind="stable")]
            rows = faiss.downcast_index(self._index.index).reconstruct_n(0, self._index.ntotal)
            return ids[places], rows[places]

    def parts(self) -> list[IndexPart]:
        count = len(self)
        return [IndexPart("open", count, 0, count * (4 * self._index.d + 8))]

    def compact(self) -> None:
        """Do nothing: FAISS moves the last rows into the place of what is removed."""

    def discard(self, reason: str = "differs_from_record") -> None:
        """Do nothing: all of it is in memory."""

    def close(self) -> None:
        """Do nothing: all of it is in memory."""

    def search(self, probes: Embeddings, threshold: float) -> list[list[Hit]]:
        # OpenMP counts its threads for each calling thread, and idle ones spin: a search of 300 templates took 4 ms of
        # processor time instead of 0.1 while other requests waited for the cores
        faiss.omp_set_num_threads(1)
        # range_search returns scores strictly above its radius
        radius = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))
        with self._lock, foreign_errors():
            if not self._index.ntotal:
                return [[] for _ in probes]
            limits, scores, ids = self._index.range_search(np.ascontiguousarray(probes, np.float32), radius)
        return [
            sorted(
                (Hit(int(i), float(s)) for i, s in zip(ids[start:end], scores[start:end], strict=True)),
                key=lambda hit: (-hit.score, hit.reference_id),
            )
            for start, end in itertools.pairwise(limits)
        ]
