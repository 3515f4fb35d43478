"""The exact answer of every search of the benchmark, and what share of it a method found."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.search_gallery import Advance, FloatArray, GalleryFile, IntArray, Probes, silent

FPIRS = (0.01, 0.5)


@dataclass(frozen=True)
class Found:
    """What one search returned: numbers of templates and their scores, in any order."""

    ids: IntArray
    scores: FloatArray


@dataclass(frozen=True)
class Truth:
    """All pairs of a probe and a template at or above the lowest threshold, and the thresholds by FPIR."""

    thresholds: dict[float, float]
    probes: IntArray
    ids: IntArray
    scores: FloatArray

    def pairs(self, fpir: float) -> tuple[IntArray, IntArray]:
        """Return the probes and the templates of the pairs at or above the threshold of `fpir`."""
        kept = self.scores >= self.thresholds[fpir]
        return self.probes[kept], self.ids[kept]


def find_truth(gallery: GalleryFile, probes: Probes, advance: Advance = silent) -> Truth:
    """Compare everything with everything, in blocks; the thresholds are those of this very gallery.

    One pass is enough: the highest score of a non-mated probe only grows with the gallery, and so does the threshold
    that follows from it. What is below it now is below it at the end.
    """
    non_mated = probes.mates < 0
    highest = np.full(int(non_mated.sum()), -np.inf, np.float32)
    kept: list[tuple[IntArray, IntArray, FloatArray]] = []
    floor = max(FPIRS)
    for start, block in gallery.blocks():
        scores = probes.embeddings @ block.T
        np.maximum(highest, scores[non_mated].max(axis=1), out=highest)
        rows, columns = np.nonzero(scores >= threshold_of(highest, floor))
        kept.append((rows, columns + start, scores[rows, columns]))
        advance(len(block))
    thresholds = {fpir: threshold_of(highest, fpir) for fpir in FPIRS}
    numbers, ids, values = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    wanted = values >= thresholds[floor]
    return Truth(thresholds, numbers[wanted], ids[wanted], values[wanted])


def threshold_of(highest: npt.NDArray[np.floating], fpir: float) -> float:
    """Return the threshold that this share of the searches reaches, half-way between two scores.

    Half-way, because on a score itself the last bit of a sum would decide whether a method found the pair.
    """
    return float(np.quantile(highest, 1 - fpir, method="midpoint"))


def share_of_pairs(found: Sequence[Found], truth: Truth, fpir: float) -> float | None:
    """Return the share of the pairs that was found, of the first `len(found)` probes; None where there are none."""
    probes, ids = truth.pairs(fpir)
    searched = probes < len(found)
    return _share(_is_found(found, probes[searched], ids[searched]))


def share_of_mates(
    found: Sequence[Found], truth: Truth, probes: Probes, fpir: float, *, only_real: bool = False
) -> float | None:
    """Return the share of mated probes whose mate was found, of those whose mate is at or above the threshold."""
    numbers, ids = truth.pairs(fpir)
    counted = (numbers < len(found)) & (probes.mates[numbers] == ids)
    if only_real:
        counted &= probes.is_real[numbers]
    return _share(_is_found(found, numbers[counted], ids[counted]))


def _is_found(found: Sequence[Found], probes: IntArray, ids: IntArray) -> npt.NDArray[np.bool_]:
    returned = [set(one.ids.tolist()) for one in found]
    return np.array([template in returned[probe] for probe, template in zip(probes, ids.tolist(), strict=True)], bool)


def _share(hits: npt.NDArray[np.bool_]) -> float | None:
    return float(hits.mean()) if len(hits) else None
