"""The second code of a template, four bits a dimension: tells its score so closely that hardly a row must be read.

Source of the steps: Max, "Quantizing for minimum distortion", IRE Transactions on Information Theory 6(1), 1960. The
components of a template are spread about normally; his best step for sixteen levels, 0.335 standard deviations, cuts
too much off the few large ones.
"""

from typing import Self

import numpy as np
import numpy.typing as npt

from service.domain import Embeddings
from service.gallery.rows import Ids, Pairs, Scores, inner_products

_LEVELS = 16
_STEP_DEVIATIONS = 0.42  # the outer levels lie at 3.15 standard deviations, the noise at an eighth of one
_AT_ONCE = 512  # pairs whose codes are unpacked side by side: they stay in the cache
_PACKED_AT_ONCE = 4096


class FineCodes:
    """Codes of n templates by their places 0..n-1. Any number of threads read."""

    def __init__(self, lowest: Embeddings, step: Embeddings, packed: npt.NDArray[np.uint8]) -> None:
        """Keep the parts: `lowest` and `step`, (D,) float32, of the levels; `packed`, (n, D / 2) uint8, writable."""
        self._lowest, self._step, self._packed = lowest, step, packed

    @classmethod
    def of(cls, rows: Embeddings, sample: Embeddings) -> Self:
        """Code `rows`, (n, D) float32, D even, by the spread of `sample`, (k, D)."""
        # a dimension in which all are alike still needs a step
        step = np.maximum(_STEP_DEVIATIONS * sample.std(axis=0), np.float32(1e-6))
        lowest = sample.mean(axis=0) - step * np.float32((_LEVELS - 1) / 2)
        half = rows.shape[1] // 2
        packed = np.empty((len(rows), half), np.uint8)
        for start in range(0, len(rows), _PACKED_AT_ONCE):
            block = rows[start : start + _PACKED_AT_ONCE]
            levels = np.rint((block - lowest) / step).clip(0, _LEVELS - 1).astype(np.uint8)
            packed[start : start + len(block)] = levels[:, :half] | levels[:, half:] << 4
        return cls(lowest, step, packed)

    @classmethod
    def unpacked(cls, data: npt.NDArray[np.uint8], dimension: int) -> Self:
        """Return the codes of what `stored` returned, joined. Copies: `data` is a part of something larger."""
        levels = np.array(data[: 8 * dimension].view("<f4"), np.float32)
        return cls(levels[:dimension], levels[dimension:], data[8 * dimension :].reshape(-1, dimension // 2).copy())

    def stored(self) -> list[npt.NDArray[np.uint8]]:
        """Return the parts to be written one after the other, (bytes,) uint8 each."""
        levels = np.concatenate([self._lowest, self._step]).astype("<f4")
        return [levels.view(np.uint8), self._packed.ravel()]

    @property
    def nbytes(self) -> int:
        return self._packed.nbytes

    def decoded(self, start: int, end: int) -> Embeddings:
        """Return what the codes `start` to `end` make of their templates, (end - start, D) float32."""
        levels = np.empty((end - start, len(self._step)), np.float32)
        _spread(self._packed[start:end], levels)
        return levels * self._step + self._lowest

    def scores(self, probes: Embeddings, pairs: Pairs) -> Scores:
        """Return what the codes make of the scores of `pairs`, (k,), about as far off as `CodeError` says."""
        scores = np.empty(len(pairs.places), np.float32)
        scaled = probes * self._step
        levels = np.empty((min(_AT_ONCE, len(scores)), len(self._step)), np.float32)
        for start in range(0, len(scores), _AT_ONCE):
            part = Pairs(pairs.probes[start : start + _AT_ONCE], pairs.places[start : start + _AT_ONCE])
            _spread(self._packed.take(part.places, axis=0), levels)
            found = Pairs(part.probes, np.arange(len(part.places)))
            scores[start : start + _AT_ONCE] = inner_products(scaled, levels, found)
        scores += (probes @ self._lowest)[pairs.probes]
        return scores

    def all_scores(self, probes: Embeddings) -> Scores:
        """Return what the codes make of the scores of probes with all templates, (k, n)."""
        scores = np.empty((len(probes), len(self._packed)), np.float32)
        levels = np.empty((_PACKED_AT_ONCE, len(self._step)), np.float32)
        for start in range(0, len(self._packed), _PACKED_AT_ONCE):
            block = self._packed[start : start + _PACKED_AT_ONCE]
            _spread(block, levels)
            scores[:, start : start + len(block)] = (probes * self._step) @ levels[: len(block)].T
        return scores + (probes @ self._lowest)[:, np.newaxis]

    def erase(self, places: Ids) -> None:
        """Overwrite codes in memory."""
        self._packed[places] = 0


def _spread(packed: npt.NDArray[np.uint8], levels: Embeddings) -> None:
    """Write the levels of packed codes, (n, D / 2), into the first n of `levels`, (m, D)."""
    count, half = packed.shape
    levels[:count, :half] = packed & 15
    levels[:count, half:] = packed >> 4
