"""The first code of a template, 4-bit product-quantised: the codes of all are scanned for a shortlist.

Source: Jégou et al., "Product Quantization for Nearest Neighbor Search", PAMI 33(1), 2011; André et al., "Quicker ADC",
PAMI 43(5), 2021 (FAISS's fast-scan).
"""

from typing import Any, Self

import faiss
import numpy as np
import numpy.typing as npt

from service.domain import Embeddings
from service.gallery.rows import Pairs, Scores

PROBES_A_PASS = 16
"""How many probes one pass over the codes should serve: a fifth less time than with what FAISS picks."""
AT_ONCE = 2 * PROBES_A_PASS
"""Probes that are looked for by one call: more would hold too much when a threshold rules out nothing."""
_ROTATED_FROM = 256  # dimensions: below, all are coded, in pairs
_CENTROIDS = 16  # of a 4-bit code
_SCORED_AT_ONCE = 8


class CoarseCodes:
    """Codes of n templates by their places 0..n-1. Any number of threads read."""

    def __init__(self, index: faiss.Index) -> None:
        """Keep the trained and filled index."""
        self._index = index
        # FAISS's stubs do not say what a wrapped index is; one list that holds all: only such an index can be asked
        # for everything down to a score
        scan: Any = index
        self._rotation: Any = None
        if isinstance(index, faiss.IndexPreTransform):
            self._rotation, scan = scan.chain.at(0), faiss.downcast_index(index.index)
        self._scan = scan
        scan.qbs2 = PROBES_A_PASS
        centroids = faiss.vector_to_array(scan.pq.centroids).reshape(scan.pq.M, _CENTROIDS, scan.pq.dsub)
        self._mean_code = centroids.mean(axis=1).ravel()

    @classmethod
    def of(cls, rows: Embeddings, sample: Embeddings, rng: np.random.Generator) -> Self:
        """Code `rows`, (n, D) float32, trained on `sample`, (k, D). D is even, from 256 on a multiple of 16."""
        if len(sample) < _CENTROIDS:  # all but these were removed: FAISS asks for one template a centroid
            sample = np.resize(sample, (_CENTROIDS, sample.shape[1]))
        faiss.omp_set_num_threads(1)
        index = _untrained(sample, rng)
        index.train(sample)
        index.add(rows)
        return cls(index)

    @classmethod
    def restored(cls, data: npt.NDArray[np.uint8]) -> Self:
        """Return the codes of what `stored` returned."""
        return cls(faiss.deserialize_index(data))

    def stored(self) -> npt.NDArray[np.uint8]:
        """Return what to write, (bytes,) uint8."""
        return np.array(faiss.serialize_index(self._index), np.uint8)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def code_bytes(self) -> int:
        """What a scan reads of each template."""
        return int(self._scan.code_size)

    @property
    def nbytes(self) -> int:
        return len(self) * (self.code_bytes + 8)  # and its place, which FAISS keeps beside it

    def decoded(self, start: int, end: int) -> Embeddings:
        """Return what the codes `start` to `end` make of their templates, (end - start, D) float32."""
        decoded: Embeddings = self._index.reconstruct_n(start, end - start)
        return decoded

    def all_scores(self, probes: Embeddings) -> Scores:
        """Return the scores of probes with all templates as the scan makes them, (k, n)."""
        # a template for which FAISS has no place scores the least there can be
        scores = np.full((len(probes), len(self)), -np.inf, np.float32)
        for start in range(0, len(probes), _SCORED_AT_ONCE):
            shown, places = self._index.search(probes[start : start + _SCORED_AT_ONCE], len(self))
            for number, found in enumerate(places):  # one by one: numpy holds the interpreter's lock meanwhile
                is_placed = found >= 0
                scores[start + number, found[is_placed]] = shown[number, is_placed]
        return scores

    def at_least(self, probes: Embeddings, cutoff: float) -> Pairs:
        """Return all pairs whose score by the codes is at least about `cutoff`.

        For a probe whose mean score is higher than that: all templates.

        Args:
            probes: (n, D) float32, at most AT_ONCE: every pair may come back.
            cutoff: of the score.
        """
        # OpenMP counts its threads for each calling thread; the index shares the cores out itself
        faiss.omp_set_num_threads(1)
        rotated = probes if self._rotation is None else self._rotation.apply(probes)
        # FAISS finds nothing where even the lowest score there could be is above the cutoff: it is at most the mean
        is_limited = rotated @ self._mean_code < cutoff
        limited, unlimited = np.flatnonzero(is_limited), np.flatnonzero(~is_limited)
        bounds, _, places = self._scan.range_search(rotated[is_limited], cutoff)
        places = places.astype(np.int64, copy=False)  # without any probe they are none
        numbers = np.repeat(limited, np.diff(bounds.astype(np.int64)))
        if not len(unlimited):
            return Pairs(numbers, places)
        every = np.tile(np.arange(len(self)), len(unlimited))
        return Pairs(np.concatenate([numbers, np.repeat(unlimited, len(self))]), np.concatenate([places, every]))


def _untrained(sample: Embeddings, rng: np.random.Generator) -> faiss.Index:
    """Return an index for codes of 4 bits for two dimensions each, or for four of the main three quarters."""
    dimension = sample.shape[1]
    if dimension < _ROTATED_FROM:
        index = faiss.index_factory(dimension, f"IVF1,PQ{dimension // 2}x4fs", faiss.METRIC_INNER_PRODUCT)
        _accept_few(index)
        return index
    kept = dimension * 3 // 4
    codes = faiss.index_factory(dimension, f"RR{kept},IVF1,PQ{kept // 4}x4fs", faiss.METRIC_INNER_PRODUCT)
    # the main axes about the origin, not about the mean like FAISS's own PCA, which would change the inner products;
    # mixed among themselves they carry equal shares, so that no code has to tell more than another
    _, axes = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    mixed, _ = np.linalg.qr(rng.standard_normal((kept, kept)))
    transformed: Any = codes  # FAISS's stubs do not say what the factory makes
    rotation: Any = faiss.downcast_VectorTransform(transformed.chain.at(0))
    faiss.copy_array_to_vector((mixed @ axes[:, -kept:].T).astype(np.float32).ravel(), rotation.A)
    rotation.set_is_orthonormal()
    rotation.is_trained = True
    _accept_few(faiss.downcast_index(transformed.index))
    return codes


def _accept_few(scan: Any) -> None:
    """Let FAISS print no warning when a segment has few templates to train on."""
    scan.cp.min_points_per_centroid = scan.pq.cp.min_points_per_centroid = 1
