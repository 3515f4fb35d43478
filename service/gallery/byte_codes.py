"""Codes of a byte a dimension, which tell for certain which rows cannot reach a threshold."""

import math
from typing import NamedTuple

import numkong
import numpy as np
import numpy.typing as npt

from service.domain import Embedding, Embeddings
from service.gallery.rows import Ids, Scores

_LARGEST = 127
_ROUNDING = 1e-5  # of sums of some hundred products in single precision, with room


class ByteCodes(NamedTuple):
    """Codes of n rows: a row is its code times its scale, no further off than was measured when it was coded."""

    codes: npt.NDArray[np.int8]  # (n, D)
    scales: Scores  # (n,)
    error: float  # Euclidean distance, the largest, between a row and what its code says
    length: float  # Euclidean norm, the largest, of what a code says

    @classmethod
    def of(cls, rows: Embeddings) -> "ByteCodes":
        """Code `rows`, (n, D) float32."""
        if len(rows) == 1:
            return cls._of_one(rows[0])
        highest = np.abs(rows).max(axis=1, initial=0.0)
        scales = np.where(highest > 0, highest / _LARGEST, 1).astype(np.float32)
        codes = np.rint(rows / scales[:, None]).astype(np.int8)
        said = codes * scales[:, None]
        error, length = (float(np.linalg.norm(each, axis=1).max(initial=0.0)) for each in (rows - said, said))
        return cls(codes, scales, error, length)

    @classmethod
    def _of_one(cls, row: Embedding) -> "ByteCodes":
        """Do the same for the one row that an enrolment adds, or a search asks for, in a third of the time."""
        scale = np.abs(row).max() / np.float32(_LARGEST) or np.float32(1)
        levels = row / scale
        code = np.rint(levels)
        rest = levels - code
        error, length = (float(scale) * math.sqrt(each @ each) for each in (rest, code))
        return cls(code.astype(np.int8)[None], np.array([scale], np.float32), error, length)

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.scales.nbytes

    def part(self, start: int, end: int) -> "ByteCodes":
        """Return the codes `start` to `end`; nothing is copied."""
        return self._replace(codes=self.codes[start:end], scales=self.scales[start:end])

    def also_for(self, *others: "ByteCodes") -> "ByteCodes":
        """Return these codes with an error and a length that hold for all `others` too."""
        error = max(self.error, *(each.error for each in others))
        return self._replace(error=error, length=max(self.length, *(each.length for each in others)))

    def within_reach(self, probe: Embeddings, threshold: float) -> Ids:
        """Return the places of all rows whose inner product with `probe`, (1, D) float32, may reach the threshold.

        None that reaches it is left out: by the inequality of Cauchy and Schwarz, what the codes make of a score is
        off by no more than the length of either side times the error of the other.
        """
        own = ByteCodes.of(probe)
        products = np.asarray(numkong.cdist(own.codes, self.codes, "dot"))[0]
        off = own.error * self.length + math.sqrt(probe[0] @ probe[0]) * self.error + _ROUNDING
        return np.flatnonzero(products * self.scales >= (threshold - off) / float(own.scales[0]))
