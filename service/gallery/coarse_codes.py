"""The first code of a template, 4-bit product-quantised: the codes of all are scanned for a shortlist.

Source: Jégou et al., "Product Quantization for Nearest Neighbor Search", PAMI 33(1), 2011; André et al., "Quicker ADC",
PAMI 43(5), 2021 (FAISS's fast-scan).
"""

from typing import Any, Self

import faiss
import numpy as np
import numpy.typing as npt

from service.domain import Embeddings
from service.gallery.basis import Basis, Probes, group_of
from service.gallery.huge_pages import use_huge_pages
from service.gallery.rows import Ids, Pairs, Scores

PROBES_A_PASS = 16
"""How many probes one pass over the codes should serve: a fifth less time than with what FAISS picks."""
AT_ONCE = 2 * PROBES_A_PASS
"""Probes that are looked for by one call: more would hold too much when a threshold rules out nothing."""
_CENTROIDS = 16  # of a 4-bit code
_ADDED_AT_ONCE = 16_384
_SCORED_AT_ONCE = 8


class CoarseCodes:
    """Codes of n templates by their places 0..n-1. Any number of threads read."""

    def __init__(self, basis: Basis, scan: Any) -> None:
        """Keep the trained and filled index, one list that holds all: only such an index can be asked for everything
        down to a score.
        """
        self.basis, self._scan = basis, scan
        self._count = int(scan.ntotal)
        self.code_bytes = int(scan.code_size)
        """What a scan reads of each template."""
        scan.qbs2 = PROBES_A_PASS
        use_huge_pages(int(faiss.downcast_InvertedLists(scan.invlists).get_codes(0)), len(self) * self.code_bytes)
        centroids = faiss.vector_to_array(scan.pq.centroids).reshape(scan.pq.M, _CENTROIDS, scan.pq.dsub)
        self._mean_code = centroids.mean(axis=1).ravel()

    @classmethod
    def of(cls, basis: Basis, rows: Embeddings, sample: Embeddings) -> Self:
        """Code `rows`, (n, D) float32, trained on `sample`, (k, D)."""
        if len(sample) < _CENTROIDS:  # all but these were removed: FAISS asks for one template a centroid
            sample = np.resize(sample, (_CENTROIDS, sample.shape[1]))
        faiss.omp_set_num_threads(1)
        scan = _untrained(basis)
        scan.train(basis.rotated(sample))
        for start in range(0, len(rows), _ADDED_AT_ONCE):
            scan.add(basis.rotated(rows[start : start + _ADDED_AT_ONCE]))
        return cls(basis, scan)

    @classmethod
    def restored(cls, basis: Basis, data: npt.NDArray[np.uint8]) -> Self:
        """Return the codes of what `stored` returned."""
        return cls(basis, faiss.deserialize_index(data))

    def stored(self) -> npt.NDArray[np.uint8]:
        """Return what to write, (bytes,) uint8."""
        return np.array(faiss.serialize_index(self._scan), np.uint8)

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        return len(self) * (self.code_bytes + 8)  # and its place, which FAISS keeps beside it

    def decoded(self, start: int, end: int) -> Embeddings:
        """Return what the codes `start` to `end` make of their templates, (end - start, D) float32."""
        decoded: Embeddings = self._scan.reconstruct_n(start, end - start) @ self.basis.rotation
        return decoded

    def all_scores(self, probes: Embeddings) -> Scores:
        """Return the scores of probes with all templates as the scan makes them, (k, n)."""
        # a template for which FAISS has no place scores the least there can be
        scores = np.full((len(probes), len(self)), -np.inf, np.float32)
        rotated = self.basis.rotated(probes)
        for start in range(0, len(probes), _SCORED_AT_ONCE):
            shown, places = self._scan.search(rotated[start : start + _SCORED_AT_ONCE], len(self))
            for number, found in enumerate(places):  # one by one: numpy holds the interpreter's lock meanwhile
                is_placed = found >= 0
                scores[start + number, found[is_placed]] = shown[number, is_placed]
        return scores

    def look(self, probes: Probes, cutoff: float) -> "CodeLook":
        """Prepare a look for all pairs whose score by the codes is at least about `cutoff`.

        For a probe whose mean score is higher than that: all templates.

        Args:
            probes: at most AT_ONCE: every pair may come back.
            cutoff: of the score.
        """
        rotated = probes.prepared(self.basis).rotated
        # FAISS finds nothing where even the lowest score there could be is above the cutoff: it is at most the mean
        is_limited = rotated @ self._mean_code < cutoff
        return CodeLook(self._scan, rotated[is_limited], cutoff, is_limited)


class CodeLook:
    """A scan for some probes: `run` once, by any thread, then ask for the `pairs`.

    `run` needs the interpreter's lock for a few microseconds only: threads that run side by side hardly ever wait for
    each other.
    """

    def __init__(self, scan: Any, limited: Embeddings, cutoff: float, is_limited: npt.NDArray[np.bool_]) -> None:
        """Take what FAISS is asked: `limited`, (k, d) float32, contiguous, the rotated probes that are limited."""
        self._scan, self._limited, self._cutoff, self._is_limited = scan, limited, float(cutoff), is_limited
        self._found = faiss.RangeSearchResult(len(limited))
        self._pointer = faiss.swig_ptr(limited)

    def run(self) -> None:
        # OpenMP counts its threads for each calling thread; the index shares the cores out itself
        faiss.omp_set_num_threads(1)
        self._scan.range_search_c(len(self._limited), self._pointer, self._cutoff, self._found, None)

    def __len__(self) -> int:
        """Return how many pairs were found."""
        unlimited = len(self._is_limited) - len(self._limited)
        return int(self._bounds()[-1]) + unlimited * int(self._scan.ntotal)

    def pairs(self) -> Pairs:
        """Return what was found, those of one probe side by side."""
        bounds = self._bounds()
        # a copy, of integers also when there are none
        places = faiss.rev_swig_ptr(self._found.labels, int(bounds[-1])).astype(np.int64)
        numbers = np.repeat(np.flatnonzero(self._is_limited), np.diff(bounds))
        if len(self._limited) == len(self._is_limited):
            return Pairs(numbers, places)
        unlimited, every = np.flatnonzero(~self._is_limited), np.arange(self._scan.ntotal)
        numbers = np.concatenate([numbers, np.repeat(unlimited, len(every))])
        return Pairs(numbers, np.concatenate([places, np.tile(every, len(unlimited))]))

    def _bounds(self) -> Ids:
        bounds: npt.NDArray[np.uint64] = faiss.rev_swig_ptr(self._found.lims, len(self._limited) + 1)
        return bounds.astype(np.int64)


def _untrained(basis: Basis) -> Any:
    kept, group = len(basis.rotation), group_of(basis.dimension)
    # FAISS's stubs do not say what the factory makes
    scan: Any = faiss.index_factory(kept, f"IVF1,PQ{kept // group}x4fs", faiss.METRIC_INNER_PRODUCT)
    scan.cp.min_points_per_centroid = scan.pq.cp.min_points_per_centroid = 1  # no warning of few templates to train on
    return scan
