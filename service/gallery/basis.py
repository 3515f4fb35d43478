"""What the codes of a gallery's sealed segments have in common, so that a probe is prepared once for all of them.

Sources: Ge et al., "Optimized Product Quantization", PAMI 36(4), 2014 (axes grouped by their variances); Max,
"Quantizing for minimum distortion", IRE Transactions on Information Theory 6(1), 1960. The components of a template
are spread about normally; his best step for sixteen levels, 0.335 standard deviations, cuts too much off the few large
ones.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from service.domain import Embeddings

LOWEST, HIGHEST = -8, 7  # levels of the fine codes: signed numbers of four bits
_STEP_DEVIATIONS = 0.42  # the outer levels lie at 3.15 standard deviations, the noise at an eighth of one
_PROBE_HIGHEST = 119  # of the whole numbers that stand for the components of a probe: two signed digits of four bits
_SHORTENED_FROM = 256  # dimensions: below, all are kept


def group_of(dimension: int) -> int:
    """Return how many axes one coarse code tells: of all, or of the main three quarters."""
    return 2 if dimension < _SHORTENED_FROM else 4


class Prepared(NamedTuple):
    """What a basis makes of n probes."""

    rotated: Embeddings  # (n, k), what the coarse codes are compared with
    digits: npt.NDArray[np.uint8]  # (n, 2, D / 2): of the whole numbers that fine codes are compared with
    units: Embeddings  # (n,) what one of them is worth
    shares: Embeddings  # (n,) the score of a template that has level 0 in all dimensions


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Chosen by the templates of one segment, shared by all that are sealed later and not much larger.

    Of other templates the codes are worse, and searches slower; how much worse each segment measures for itself.
    """

    rotation: Embeddings  # (k, D), rows of L2 norm 1 at right angles: the main axes, in groups
    zero: Embeddings  # (D,) level 0 of the fine codes
    step: Embeddings  # (D,) between their levels

    @classmethod
    def of(cls, sample: Embeddings) -> Self:
        """Choose it by `sample`, (n, D) float32, n from 1. D is even, from 256 on a multiple of 16."""
        # a dimension in which all are alike still needs a step
        step = np.maximum(_STEP_DEVIATIONS * sample.std(axis=0), np.float32(1e-6))
        zero = sample.mean(axis=0) - step * np.float32((LOWEST + HIGHEST) / 2)
        return cls(_rotation(sample), zero, step)

    @classmethod
    def restored(cls, data: npt.NDArray[np.uint8], dimension: int) -> Self:
        """Return the basis of what `stored` returned."""
        rows = np.array(data.view("<f4"), np.float32).reshape(-1, dimension)
        return cls(rows[2:], rows[0], rows[1])

    def stored(self) -> npt.NDArray[np.uint8]:
        """Return what to write, (bytes,) uint8."""
        return (
            np.concatenate([self.zero[np.newaxis], self.step[np.newaxis], self.rotation])
            .astype("<f4")
            .view(np.uint8)
            .ravel()
        )

    @property
    def dimension(self) -> int:
        return len(self.zero)

    def rotated(self, rows: Embeddings) -> Embeddings:
        """Return what of (n, D) the coarse codes tell, (n, k)."""
        if len(rows) == 1:  # half the time of a matrix product
            return np.asarray((self.rotation @ rows[0])[np.newaxis])
        return np.asarray(rows @ self.rotation.T)

    def prepared(self, probes: Embeddings) -> Prepared:
        """Prepare `probes`, (n, D) float32, for both kinds of codes.

        Rounded to whole numbers they are compared several times faster. For a face that adds less than a tenth of the
        noise of the fine codes; for a probe that is one component alone, less than half of it.
        """
        scaled = probes * self.step
        units = np.maximum(np.abs(scaled).max(axis=1), np.float32(1e-30)) / np.float32(_PROBE_HIGHEST)
        whole = np.rint(scaled / units[:, np.newaxis]).astype(np.int8)
        digits = np.stack([packed(whole + np.int8(8) >> 4), packed(whole)], axis=1)
        return Prepared(self.rotated(probes), digits, units, probes @ self.zero)


class Probes:
    """The probes of one search; what a basis makes of them is made once."""

    def __init__(self, embeddings: Embeddings) -> None:
        """Keep `embeddings`, (n, D) float32, contiguous."""
        self.embeddings = embeddings
        self._prepared: dict[Basis, Prepared] = {}

    def __len__(self) -> int:
        return len(self.embeddings)

    def prepared(self, basis: Basis) -> Prepared:
        if basis not in self._prepared:
            self._prepared[basis] = basis.prepared(self.embeddings)
        return self._prepared[basis]


def packed(levels: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Return the lower four bits of (n, D) as (n, D / 2)."""
    bits, half = levels.view(np.uint8), levels.shape[1] // 2
    joined: npt.NDArray[np.uint8] = np.bitwise_or(bits[:, :half] & 15, bits[:, half:] << 4, dtype=np.uint8)
    return joined


def unpacked(bits: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """Return the signed numbers of four bits in (n, D / 2), (n, D)."""
    levels: npt.NDArray[np.int8] = np.concatenate([bits << 4, bits], axis=1).view(np.int8) >> 4  # brings the sign down
    return levels


def _rotation(sample: Embeddings) -> Embeddings:
    """Return the main axes, (k, D), so ordered that groups of neighbours carry about equal shares of a template."""
    dimension = sample.shape[1]
    group = group_of(dimension)
    groups = dimension // 2 if group == 2 else dimension * 3 // 16
    # about the origin, not about the mean like FAISS's own PCA, which would change the inner products
    _, axes = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    order = np.arange(groups * group).reshape(group, groups)
    order[1::2] = order[1::2, ::-1]  # the largest goes with the smallest
    return np.ascontiguousarray(axes[:, ::-1].T[order.T.ravel()], np.float32)
