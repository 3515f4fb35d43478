"""Error-versus-discard: what is gained by doing without the samples of the lowest quality (pure).

As ISO/IEC 29794-1 has it: the threshold is that of all samples, and stays. Everyone counts the same, as in
`service.evaluation`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.domain import Embeddings, Quality
from service.evaluation.comparisons import BoolArray, FloatArray, IntArray, MatedPairs, mated_pairs
from service.evaluation.figures import QUANTILES
from service.population import (
    Population,
    bootstrap_weights,
    false_match_rates,
    population_of,
    score_at,
    survival,
)

FMR = 1e-4
SHARES = (0.0, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2)
STATED_SHARE = 0.05
REPLICATES = 1000
RANDOM_DRAWS = 200

UNIFIED = "unified"

MEASURES: Mapping[str, Callable[[Quality], float | None]] = {
    UNIFIED: lambda quality: quality.unified,
    "detector score": lambda quality: quality.detector_score,
    "sharpness": lambda quality: quality.sharpness,
    "sharpness / luminance variance": lambda quality: quality.sharpness / max(quality.luminance_variance or 0, 1e-9),
    "inter-eye distance": lambda quality: quality.inter_eye_px,
    "head size": lambda quality: quality.head_size,
    "yaw angle": lambda quality: -abs(quality.yaw_deg),
    "pitch angle": lambda quality: -abs(quality.pitch_deg),
    "roll angle": lambda quality: -abs(quality.roll_deg),
    "under-exposure": lambda quality: -(quality.under_exposure or 0),
    "over-exposure": lambda quality: -(quality.over_exposure or 0),
    "dynamic range": lambda quality: quality.dynamic_range,
    "illumination uniformity": lambda quality: quality.illumination_uniformity,
    "background uniformity": lambda quality: (
        None if quality.background_gradient is None else -quality.background_gradient
    ),
    "single face present": lambda quality: -(quality.second_face_share or 0),
}
"""Each so that higher should be better; None, not measured, is discarded last."""


@dataclass(frozen=True, slots=True)
class Point:
    """The false non-match rate after a share of the samples was discarded, with its 95 % interval over people.

    `gain` is how much lower it is than after discarding as many at random: FNMR at random minus FNMR by quality.
    """

    share: float
    fnmr: float
    low: float
    high: float
    random_fnmr: float
    gain: float
    gain_low: float
    gain_high: float


@dataclass(frozen=True)
class Half:
    """The samples of one half of the people, compared with each other."""

    population: Population
    mated: MatedPairs
    threshold: float
    weights: FloatArray  # (1 + REPLICATES, people)


def is_reported(person: str) -> bool:
    """Return whether somebody belongs to the half that figures are reported on; scales are made on the other."""
    return hashlib.sha256(person.encode()).digest()[0] % 2 == 1


def begin(embeddings: Embeddings, people: Sequence[str], fmr: float = FMR) -> Half:
    """Compare everyone with everyone; `people` names the person of each row, equal names together."""
    population = population_of(embeddings, list(people))
    threshold = score_at(survival(population), fmr)
    weights = bootstrap_weights(population.people, REPLICATES, seed=0)
    return Half(population, mated_pairs(population), threshold, weights)


def discarded_at_random(half: Half, seed: int = 0) -> list[FloatArray]:
    """Return for each of `SHARES` the mean rates, (1 + REPLICATES,), after as many were discarded at random."""
    rng = np.random.default_rng(seed)
    rows = len(half.population.embeddings)
    return [
        np.mean([fnmr(half, _kept(rng.permutation(rows), share)) for _ in range(RANDOM_DRAWS if share else 1)], axis=0)
        for share in SHARES
    ]


def curve(half: Half, values: Sequence[float | None], at_random: Sequence[FloatArray], seed: int = 0) -> list[Point]:
    """Return a point for each of `SHARES`. `values` rate the rows, higher is better; ties are broken at random."""
    order = _worst_first(values, seed)
    return [
        _point(share, fnmr(half, _kept(order, share)), at_that)
        for share, at_that in zip(SHARES, at_random, strict=True)
    ]


def false_match_rate(half: Half, is_kept: BoolArray, people: Sequence[str]) -> float:
    """Return the false match rate of the kept rows at the threshold of all."""
    kept = [person for person, wanted in zip(people, is_kept, strict=True) if wanted]
    population = population_of(half.population.embeddings[is_kept], kept)
    rates = false_match_rates(population, np.array([half.threshold]), np.ones((1, population.people)))
    return float(rates[0, 0])


def kept_of(values: Sequence[float | None], share: float, seed: int = 0) -> BoolArray:
    """Return which rows stay when this share of the lowest is discarded."""
    return _kept(_worst_first(values, seed), share)


def _worst_first(values: Sequence[float | None], seed: int) -> IntArray:
    rated = np.array([np.inf if value is None else value for value in values], np.float64)
    return np.lexsort((np.random.default_rng(seed).permutation(len(rated)), rated))


def _kept(order: IntArray, share: float) -> BoolArray:
    is_kept = np.ones(len(order), np.bool_)
    is_kept[order[: round(share * len(order))]] = False
    return is_kept


def _point(share: float, rates: FloatArray, at_random: FloatArray) -> Point:
    gains = at_random - rates
    low, high = np.quantile(rates[1:], QUANTILES)
    gain_low, gain_high = np.quantile(gains[1:], QUANTILES)
    return Point(
        share,
        float(rates[0]),
        float(low),
        float(high),
        float(at_random[0]),
        float(gains[0]),
        float(gain_low),
        float(gain_high),
    )


def fnmr(half: Half, is_kept: BoolArray) -> FloatArray:
    """Return (1 + REPLICATES,) the false non-match rate of the kept rows: as it is, and for people drawn anew."""
    mated = half.mated.only(is_kept[half.mated.first] & is_kept[half.mated.second])
    people = half.population.people
    pairs = np.bincount(mated.person, minlength=people)
    missed = np.bincount(mated.person, mated.scores < half.threshold, minlength=people)
    with_pairs = np.flatnonzero(pairs)
    weights = half.weights[:, with_pairs]
    rates: FloatArray = (weights @ (missed[with_pairs] / pairs[with_pairs])) / weights.sum(axis=1)
    return rates
