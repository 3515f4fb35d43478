"""FNIR of an open-set search, and two pipelines compared on the same people (pure). Terms: ISO/IEC 19795-1.

Every person is enrolled once and probes once. The search against all others tells the false alarms, the score with
the own reference the misses, so that nobody is spent on being a stranger. Which photograph is enrolled and which
probes is drawn anew many times; rates are means over the draws; who has one photograph gives false alarms alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.rates import FloatArray, IntArray
from service.domain import Embeddings

DRAWS = 30
REPLICATES = 1000  # of the bootstrap over people
_QUANTILES = (0.025, 0.975)


@dataclass(frozen=True)
class Drawn:
    """The scores of all draws. People are numbered from 0."""

    tops: FloatArray  # (draws, people): the highest score of each person's search among all others
    own: FloatArray  # (draws, m): the score of each mated person's probe with the own reference
    mated: IntArray  # (m,) who has two photographs or more


@dataclass(frozen=True, slots=True)
class Ratio:
    """One pipeline's FNIR as a share of another one's, with its 95 % interval."""

    value: float
    low: float
    high: float


def draw(embeddings: Embeddings, people: Sequence[str], *, draws: int = DRAWS, seed: int = 0) -> Drawn:
    """Return the scores of `draws` choices of photographs; the same `people` and seed give the same choices.

    Args:
        embeddings: (n, D) float32, rows of L2 norm 1.
        people: n names, one a row.
        draws: how often photographs are chosen.
        seed: of the choices.
    """
    names, person = np.unique(np.array(people), return_inverse=True)
    rows = [np.flatnonzero(person == number) for number in range(len(names))]
    mated = np.flatnonzero([len(own) > 1 for own in rows])
    rng = np.random.default_rng(seed)
    tops, own = np.empty((draws, len(names))), np.empty((draws, len(mated)))
    for number in range(draws):
        chosen = [
            rng.choice(own_rows, 2, replace=False) if len(own_rows) > 1 else own_rows.repeat(2) for own_rows in rows
        ]
        enrolled, probing = np.array(chosen).T
        scores = embeddings[probing] @ embeddings[enrolled].T
        own[number] = scores[mated, mated]
        np.fill_diagonal(scores, -np.inf)
        tops[number] = scores.max(axis=1)
    return Drawn(tops, own, mated)


def fnir(drawn: Drawn, fpir: float) -> float:
    """Return the share of mated searches that miss at the lowest threshold of each draw that keeps `fpir` (0..1)."""
    everyone = np.ones((1, drawn.tops.shape[1]))
    return float(_weighted_fnir(drawn, everyone, fpir)[0])


def paired_ratio(one: Drawn, other: Drawn, fpir: float, seed: int = 0) -> Ratio:
    """Return the FNIR of `one` divided by that of `other`; each bootstrap replicate draws the same people for both.

    Raises:
        ValueError: the two are not of the same people, or `other` misses nobody.
    """
    if one.tops.shape != other.tops.shape or not np.array_equal(one.mated, other.mated):
        raise ValueError("the two pipelines did not search for the same people")
    people = one.tops.shape[1]
    whole = fnir(other, fpir)
    if not whole:
        raise ValueError("a pipeline that misses nobody cannot be improved on")
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(people, np.full(people, 1 / people), REPLICATES).astype(np.float64)
    replicates = _weighted_fnir(one, weights, fpir) / np.maximum(_weighted_fnir(other, weights, fpir), 1e-9)
    low, high = np.quantile(replicates, _QUANTILES)
    return Ratio(fnir(one, fpir) / whole, float(low), float(high))


def _weighted_fnir(drawn: Drawn, weights: FloatArray, fpir: float) -> npt.NDArray[np.float64]:
    """Return (r,) the mean FNIR over the draws where person p counts weights[r, p] times."""
    allowed = fpir * weights.sum(axis=1) + 1e-9
    of_mated = weights[:, drawn.mated]
    missed = np.zeros(len(weights))
    for tops, own in zip(drawn.tops, drawn.own, strict=True):
        order = np.argsort(-tops)
        # the first of the falling scores that may not reach the threshold
        first_below = (np.cumsum(weights[:, order], axis=1) > allowed[:, None]).argmax(axis=1)
        limits = tops[order][first_below]
        missed += (of_mated * (own <= limits[:, None])).sum(axis=1)
    shares: npt.NDArray[np.float64] = missed / (of_mated.sum(axis=1) * len(drawn.tops))
    return shares
