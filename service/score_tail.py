"""How rarely different people score high: beyond the data by extreme value theory, past mislabelled people (pure).

Scores above a high threshold u follow a generalised Pareto distribution (Pickands 1975; Coles, An Introduction to
Statistical Modeling of Extreme Values, chapter 4). In real data some of the highest scores are one person under two
names, so a second component has the shape of mated scores, and its share is fitted too.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import gaussian_kde

from service.population import Population, blocks

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

# Chosen once, on people who are in no reported figure (docs/decisions/0013-calibration.md).
_SHAPE_SPREAD = 0.07  # of a normal prior around 0, the exponential tail: few people say little about the shape
_SHARE_LOGIT, _SHARE_SPREAD = -6.0, 3.0  # of the logit of the mated share: 0.25 %, anything from 0.001 to 50 %
_MATED_WIDTH = 0.3  # of the kernel, in deviations of the mated scores
_UNIFORM_SHARE = 0.2  # of the mated component: mates that score unlike any that are known
_BIN = 0.002


@dataclass(frozen=True, slots=True)
class Exceedances:
    """Pairs of photographs of two people at or above `start`, each pair once."""

    start: float
    first: IntArray  # (m,) person
    second: IntArray  # (m,)
    scores: FloatArray  # (m,)
    shares: FloatArray  # (m,) of the pairs of photographs of these two people, so that all pairs of people count alike

    @classmethod
    def of(cls, population: Population, start: float) -> "Exceedances":
        parts: list[tuple[IntArray, IntArray, FloatArray]] = []
        person = population.person_of_row
        for people, block in blocks(population):
            rows, columns = np.nonzero(block >= start)
            first, second = person[rows + population.starts[people.start]], person[columns]
            once = first < second
            parts.append((first[once], second[once], block[rows[once], columns[once]].astype(np.float64)))
        one, other, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
        return cls(start, one, other, scores, 1 / (population.sizes[one] * population.sizes[other]))


def tail_rates(
    found: Exceedances, mated_scores: FloatArray, scores: FloatArray, weights: FloatArray
) -> tuple[FloatArray, float]:
    """Return the false match rate at each score, for each weighting of the people, and the expected number of mates.

    Args:
        found: all pairs above the start of the tail.
        mated_scores: of mated pairs, of these people or of others with the same model.
        scores: (k,) at or above the start.
        weights: (b, people), how often each person counts; the first row is everyone once.

    Returns:
        (b, k) rates, falling along each row, and how many pairs of people look like one person though none says so.
    """
    bins = int(np.ceil((1.0 - found.start) / _BIN)) + 1
    of_pair = np.clip(((found.scores - found.start) / _BIN).astype(np.intp), 0, bins - 1)
    middles = np.linspace(0.5, bins - 0.5, bins, dtype=np.float64) * _BIN
    mated = _mated_density(mated_scores, found.start + middles, found.start)
    # the pairs of a much photographed person are no pieces of evidence of their own. The same for every weighting: a
    # resampling counts pairs several times, and would else seem to know less than the data
    effective = found.shares.sum() ** 2 / (found.shares**2).sum()
    rates = np.empty((len(weights), len(scores)))
    mates = 0.0
    start = None
    for row, weight in enumerate(weights):
        of_pairs = weight[found.first] * weight[found.second] * found.shares
        reached = of_pairs.sum()
        counts = np.bincount(of_pair, of_pairs, minlength=bins) * effective / max(reached, 1e-300)
        fit = _fit(middles, counts, mated, start)
        start = fit if row == 0 else start
        scale, shape, share = float(np.exp(fit[0])), float(fit[1]), float(expit(fit[2]))
        all_pairs = (weight.sum() ** 2 - (weight**2).sum()) / 2
        rates[row] = reached / all_pairs * (1 - share) * _survival(scores - found.start, scale, shape)
        mates = float(reached) * share if row == 0 else mates
    return rates, mates


def _fit(middles: FloatArray, counts: FloatArray, mated: FloatArray, start: FloatArray | None) -> FloatArray:
    """Return log scale, shape and logit of the mated share: the maximum of the posterior, by Nelder and Mead."""
    filled = counts > 0
    x, n, other = middles[filled], counts[filled], mated[filled]

    def cost(parameters: FloatArray) -> float:
        scale, shape, share = np.exp(parameters[0]), parameters[1], expit(parameters[2])
        density = (1 - share) * _density(x, scale, shape) + share * other
        doubt = (shape / _SHAPE_SPREAD) ** 2 + ((parameters[2] - _SHARE_LOGIT) / _SHARE_SPREAD) ** 2
        return float(doubt / 2 - n @ np.log(np.maximum(density, 1e-300)))

    mean = float(n @ x / n.sum())
    first = np.array([np.log(mean), 0.0, _SHARE_LOGIT]) if start is None else start
    found: FloatArray = minimize(cost, first, method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-3}).x
    return found


def _mated_density(scores: FloatArray, at: FloatArray, start: float) -> FloatArray:
    """Return the density of mated scores above the start of the tail, wide enough for mates of another kind."""
    width = 1.0 - start
    density = gaussian_kde(scores, bw_method=_MATED_WIDTH)(at)
    total = density.sum() * _BIN
    # a model that gives no mate a score this high knows nothing of them here
    known = density / total if total > 0 else np.full_like(at, 1 / width)
    return np.asarray((1 - _UNIFORM_SHARE) * known + _UNIFORM_SHARE / width, np.float64)


def _density(excess: FloatArray, scale: float, shape: float) -> FloatArray:
    """Return the density of the generalised Pareto distribution, 0 beyond its end."""
    if abs(shape) < 1e-6:
        return np.asarray(np.exp(-excess / scale) / scale)
    inside = 1 + shape * excess / scale
    return np.where(inside > 0, np.maximum(inside, 1e-300) ** (-1 / shape - 1) / scale, 0.0)


def _survival(excess: FloatArray, scale: float, shape: float) -> FloatArray:
    """Return the share of the generalised Pareto distribution above each excess."""
    if abs(shape) < 1e-6:
        return np.asarray(np.exp(-excess / scale))
    inside = 1 + shape * excess / scale
    return np.where(inside > 0, np.maximum(inside, 1e-300) ** (-1 / shape), 0.0)
