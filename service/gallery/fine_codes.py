"""The second code of a template, four bits a dimension: tells its score so closely that hardly a row must be read."""

from itertools import pairwise
from typing import Self

import numkong
import numpy as np
import numpy.typing as npt

from service.domain import Embeddings
from service.gallery.basis import HIGHEST, LOWEST, Basis, Probes, packed, unpacked
from service.gallery.rows import Ids, Pairs, Scores

_AT_ONCE = 1024  # pairs whose codes are laid side by side: they stay in the cache
_PACKED_AT_ONCE = 4096


class FineCodes:
    """Codes of n templates by their places 0..n-1. Any number of threads read."""

    def __init__(self, basis: Basis, codes: npt.NDArray[np.uint8]) -> None:
        """Keep `codes`, (n, D / 2) uint8, writable."""
        self._basis, self._codes = basis, codes

    @classmethod
    def of(cls, basis: Basis, rows: Embeddings) -> Self:
        """Code `rows`, (n, D) float32, D even."""
        codes = np.empty((len(rows), rows.shape[1] // 2), np.uint8)
        for start in range(0, len(rows), _PACKED_AT_ONCE):
            block = rows[start : start + _PACKED_AT_ONCE]
            levels = np.rint((block - basis.zero) / basis.step).clip(LOWEST, HIGHEST)
            codes[start : start + len(block)] = packed(levels.astype(np.int8))
        return cls(basis, codes)

    @classmethod
    def restored(cls, basis: Basis, data: npt.NDArray[np.uint8]) -> Self:
        """Return the codes of what `stored` returned. Copies: `data` is a part of something larger."""
        return cls(basis, data.reshape(-1, basis.dimension // 2).copy())

    def stored(self) -> npt.NDArray[np.uint8]:
        """Return what to write, (bytes,) uint8."""
        return self._codes.ravel()

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def nbytes(self) -> int:
        return self._codes.nbytes

    def decoded(self, start: int, end: int) -> Embeddings:
        """Return what the codes `start` to `end` make of their templates, (end - start, D) float32."""
        return unpacked(self._codes[start:end]) * self._basis.step + self._basis.zero

    def scores(self, probes: Probes, pairs: Pairs) -> Scores:
        """Return what the codes make of the scores of `pairs`, (k,), about as far off as `CodeError` says.

        Args:
            probes: of the pairs.
            pairs: those of one probe side by side.
        """
        scores = np.empty(len(pairs.places), np.float32)
        _, digits, units, shares = probes.prepared(self._basis)
        for start in range(0, len(scores), _AT_ONCE):
            numbers, places = (each[start : start + _AT_ONCE] for each in pairs)
            codes = self._codes.take(places, axis=0)
            bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(places)]
            for low, high in pairwise(bounds):
                number = numbers[low]
                sixteens, ones = np.asarray(numkong.cdist(digits[number], codes[low:high], "dot", dtype="int4"))
                scores[start + low : start + high] = (16 * sixteens + ones) * units[number] + shares[number]
        return scores

    def all_scores(self, probes: Embeddings) -> Scores:
        """Return what the codes make of the scores of probes, (k, D), with all templates, (k, n)."""
        scores = np.empty((len(probes), len(self._codes)), np.float32)
        for start in range(0, len(self._codes), _PACKED_AT_ONCE):
            end = min(start + _PACKED_AT_ONCE, len(self._codes))
            scores[:, start:end] = probes @ self.decoded(start, end).T
        return scores

    def erase(self, places: Ids) -> None:
        """Overwrite codes in memory."""
        self._codes[places] = 0
