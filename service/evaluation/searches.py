"""Searches of galleries of several sizes: who is missed, and who is flagged by mistake (pure).

The people are divided at random, half of them enrolled with one photograph each. The second photographs of those are
the mated probes, the photographs of the other half the non-mated ones. This is done several times, and the searches of
all times are counted together; the bootstrap draws people, with all their searches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.calibration import Calibration, fmr_for_fpir
from service.domain import Embeddings
from service.evaluation.figures import REPLICATES, Figure, figure
from service.population import Population, bootstrap_weights

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

FPIRS = (0.1, 0.03, 0.01)
RANKS = (None, 1)
"""That the right reference must have: any, since the service returns every candidate, and the first."""

SPLITS = 10
_AT_ONCE = 1024  # probes
_SIZES = tuple(size for power in range(2, 8) for size in (10**power, 3 * 10**power))


@dataclass(frozen=True, slots=True)
class Split:
    """The searches of one gallery. People are numbered as in the population."""

    mated: IntArray  # (m,) person of each mated probe
    own_scores: FloatArray  # (m,) of the right reference
    own_ranks: IntArray  # (m,) its rank, from 1
    non_mated: IntArray  # (k,) person of each non-mated probe
    tops: FloatArray  # (k,) highest score of each non-mated probe


def gallery_sizes(people: int) -> list[int]:
    """Return the sizes to measure at: round ones, and half of the people."""
    largest = people // 2
    return [*(size for size in _SIZES if size < 0.9 * largest), largest]


def searches(population: Population, size: int, seed: int = 0) -> Iterator[Split]:
    """Yield the searches of `SPLITS` galleries of `size` people."""
    rng = np.random.default_rng([seed, size])
    sizes = population.sizes.astype(np.intp)
    for _ in range(SPLITS):
        order = rng.permutation(population.people)
        enrolled, others = order[:size], order[population.people // 2 :]
        # another photograph for each: the second one begins a step after the first, around the person's own
        first = rng.integers(sizes)
        second = (first + 1 + rng.integers(np.maximum(sizes - 1, 1))) % sizes
        references = population.embeddings[population.starts[enrolled] + first[enrolled]]
        mated = np.flatnonzero(sizes[enrolled] > 1)
        probes = population.embeddings[population.starts[enrolled[mated]] + second[enrolled[mated]]]
        own, ranks = np.empty(len(mated)), np.empty(len(mated), np.intp)
        for rows, scores in _blocks(probes, references):
            own[rows] = scores[np.arange(len(scores)), mated[rows]]
            ranks[rows] = 1 + (scores > scores[np.arange(len(scores)), mated[rows]][:, None]).sum(axis=1)
        strangers = population.embeddings[population.starts[others] + first[others]]
        tops = np.concatenate([scores.max(axis=1) for _, scores in _blocks(strangers, references)])
        yield Split(enrolled[mated], own, ranks, others, tops.astype(np.float64))


def rates(population: Population, size: int, calibration: Calibration | None, seed: int = 0) -> list[Figure]:
    """Return FNIR and FPIR in a gallery of `size` people, at thresholds found here and at those of a calibration."""
    splits = list(searches(population, size, seed))
    weights = bootstrap_weights(population.people, REPLICATES, seed)
    found: list[Figure] = []
    for fpir in FPIRS:
        facts: dict[str, Any] = {"target": fpir, "gallery_size": size}
        if len(splits[0].tops) * fpir >= 1:
            thresholds = [_threshold(split, weights, fpir) for split in splits]
            chosen = {**facts, "threshold": float(np.mean([each[0] for each in thresholds])), "chosen_by": "here"}
            found += _missed(splits, weights, thresholds, chosen)
        if calibration is not None:
            threshold = calibration.threshold(fmr_for_fpir(fpir, size))
            constant = [np.full(len(weights), threshold)] * len(splits)
            chosen = {**facts, "threshold": threshold, "chosen_by": "calibration"}
            found += [_flagged(splits, weights, threshold, chosen), *_missed(splits, weights, constant, chosen)]
    return found


def _blocks(probes: Embeddings, references: Embeddings) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """Yield rows of the probes with their scores, (rows, references): all at once could be gigabytes."""
    for start in range(0, len(probes), _AT_ONCE):
        rows = slice(start, min(start + _AT_ONCE, len(probes)))
        yield rows, probes[rows] @ references.T


def _threshold(split: Split, weights: FloatArray, fpir: float) -> FloatArray:
    """Return (1 + b,) for each weighting the lowest threshold that at most `fpir` of the non-mated searches reach."""
    order = np.argsort(-split.tops)
    counted = np.cumsum(weights[:, split.non_mated[order]], axis=1)
    # the first search, from the highest score down, that is one too many
    too_many = (counted <= fpir * counted[:, -1:] + 1e-9).sum(axis=1)
    above: FloatArray = np.nextafter(split.tops[order][np.minimum(too_many, len(order) - 1)], np.inf)
    return above


def _missed(
    splits: Sequence[Split], weights: FloatArray, thresholds: Sequence[FloatArray], facts: dict[str, Any]
) -> Iterator[Figure]:
    """Yield the FNIR for each of `RANKS`; `thresholds` are those of each split, (1 + b,)."""
    for rank in RANKS:
        missed, total = np.zeros(len(weights)), np.zeros(len(weights))
        for split, threshold in zip(splits, thresholds, strict=True):
            of_probe = weights[:, split.mated]
            is_missed = split.own_scores < threshold[:, None]
            if rank is not None:
                is_missed |= split.own_ranks > rank
            missed += (of_probe * is_missed).sum(axis=1)
            total += of_probe.sum(axis=1)
        if total[0]:
            yield _share("fnir", missed, total, [split.mated for split in splits], rank=rank, **facts)


def _flagged(splits: Sequence[Split], weights: FloatArray, threshold: float, facts: dict[str, Any]) -> Figure:
    """Return the FPIR."""
    flagged, total = np.zeros(len(weights)), np.zeros(len(weights))
    for split in splits:
        of_probe = weights[:, split.non_mated]
        flagged += of_probe @ (split.tops >= threshold)
        total += of_probe.sum(axis=1)
    return _share("fpir", flagged, total, [split.non_mated for split in splits], **facts)


def _share(measure: str, count: FloatArray, total: FloatArray, people: Sequence[IntArray], **facts: Any) -> Figure:
    shares = np.divide(count, total, out=np.full(len(total), np.nan), where=total > 0)
    return figure(
        measure,
        float(shares[0]),
        shares[1:],
        trials=sum(len(each) for each in people),
        people=len(np.unique(np.concatenate(people))),
        **facts,
    )
