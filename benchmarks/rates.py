"""Error rates from scores, each with its 95 % interval (pure). Terms: ISO/IEC 19795-1."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

FOLDS = 10
REPLICATES = 1000  # of the bootstrap over people
_QUANTILES = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of 0..1 with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ScoredPairs:
    """The pairs of a 1:1 test. People are numbered from 0."""

    scores: FloatArray  # (n,) cosine; -inf where a photograph showed no usable face
    mated: BoolArray  # (n,)
    first: IntArray  # (n,) person of the first photograph
    second: IntArray  # (n,) person of the second photograph; the same where mated
    people: int


@dataclass(frozen=True)
class Searches:
    """What searches of one gallery returned. Each probe is another person."""

    own_scores: FloatArray  # (m,) of the right reference for each mated probe; -inf where it was not found
    own_ranks: IntArray  # (m,) its rank, from 1
    non_mated_tops: FloatArray  # (k,) the highest score of each non-mated probe; -inf without any


def failure_to_acquire(rejected: IntArray, photographs: IntArray, seed: int = 0) -> Rate:
    """Return the share of photographs without a usable face; both arrays (people,) count photographs a person."""
    value = float(rejected.sum() / photographs.sum())
    if not rejected.any():
        # resampling zeros gives zeros; so many people without one failure still allow this rate
        return Rate(0.0, 0.0, 1 - float(_QUANTILES[0]) ** (1 / len(photographs)))
    weights = _person_weights(len(photographs), seed)
    return _rate(value, (weights @ rejected) / (weights @ photographs))


def accuracy(pairs: ScoredPairs, seed: int = 0) -> Rate:
    """Return the balanced accuracy, (TPR + TNR) / 2, each pair judged by a threshold that never saw its people.

    The people are split into ten groups at random. The pairs whose first person is in a group are judged by the
    threshold that is best, by the same measure, for the pairs without any person of that group.
    """
    groups = np.random.default_rng(seed).permutation(pairs.people) % FOLDS
    accepted = np.zeros(len(pairs.scores), np.bool_)
    for fold in range(FOLDS):
        judged = groups[pairs.first] == fold
        others = ~judged & (groups[pairs.second] != fold)
        threshold = best_threshold(pairs.scores[others], pairs.mated[others])
        accepted[judged] = pairs.scores[judged] >= threshold
    correct = accepted == pairs.mated
    weights = _person_weights(pairs.people, seed)
    value = _balanced(correct, pairs, np.ones((1, pairs.people)))
    return _rate(float(value[0]), _balanced(correct, pairs, weights))


def best_threshold(scores: FloatArray, mated: BoolArray) -> float:
    """Return the threshold of the highest balanced accuracy, the middle one of several.

    Raises:
        ValueError: there is no mated or no non-mated pair.
    """
    if mated.all() or not mated.any():
        raise ValueError("a threshold needs mated and non-mated pairs")
    finite = np.unique(scores[np.isfinite(scores)])
    candidates = np.append((finite[1:] + finite[:-1]) / 2, finite[[0, -1]] + [-1e-3, 1e-3])
    candidates.sort()
    # a pair is accepted from the threshold on
    missed = np.searchsorted(np.sort(scores[mated]), candidates, side="left") / mated.sum()
    accepted = 1 - np.searchsorted(np.sort(scores[~mated]), candidates, side="left") / (~mated).sum()
    loss = missed + accepted
    best = np.flatnonzero(loss <= loss.min() + 1e-12)
    return float(candidates[best[len(best) // 2]])


def threshold_at_fpir(non_mated_tops: FloatArray, fpir: float) -> float:
    """Return the lowest threshold that at most `fpir` (0..1) of the non-mated searches reach."""
    return float(_thresholds(non_mated_tops[None], fpir)[0])


def fnir_at_fpir(searches: Searches, fpir: float, *, max_rank: int | None, seed: int = 0) -> Rate:
    """Return the share of mated searches that do not return the right reference at the threshold of `fpir`.

    Args:
        searches: of one gallery.
        fpir: 0..1; the threshold that gives it is found on the non-mated searches.
        max_rank: the right reference counts down to this rank; None: at any rank.

    The interval resamples the mated and the non-mated people, so it holds the doubt about the threshold too.
    """
    found = searches.own_scores.copy()
    if max_rank is not None:
        found[searches.own_ranks > max_rank] = -np.inf
    value = float((found < threshold_at_fpir(searches.non_mated_tops, fpir)).mean())
    rng = np.random.default_rng(seed)
    tops = rng.choice(searches.non_mated_tops, (REPLICATES, len(searches.non_mated_tops)))
    drawn = rng.choice(found, (REPLICATES, len(found)))
    return _rate(value, (drawn < _thresholds(tops, fpir)[:, None]).mean(axis=1))


def _thresholds(tops: FloatArray, fpir: float) -> FloatArray:
    """Return (b,) for each row of `tops` (b, k) the value just above the first score that must stay below."""
    count = tops.shape[1]
    allowed = int(fpir * count + 1e-9)  # 0.29 * 100 is 28.999999999999996 in float64
    if allowed >= count:
        return np.full(len(tops), -np.inf)
    highest_below = np.partition(tops, count - 1 - allowed, axis=1)[:, count - 1 - allowed]
    above: FloatArray = np.nextafter(highest_below, np.inf)
    return above


def _balanced(correct: BoolArray, pairs: ScoredPairs, weights: FloatArray) -> FloatArray:
    """Return the mean of TPR and TNR when person p counts weights[:, p] times.

    One value a row of `weights`, without the rows (of small data sets) that leave no pair of one kind.
    """
    of_pair = weights[:, pairs.first] * np.where(pairs.mated, 1.0, weights[:, pairs.second])
    totals = np.stack([of_pair[:, kind].sum(axis=1) for kind in (pairs.mated, ~pairs.mated)])
    right = np.stack([of_pair[:, kind] @ correct[kind] for kind in (pairs.mated, ~pairs.mated)])
    defined = (totals > 0).all(axis=0)
    balanced: FloatArray = (right[:, defined] / totals[:, defined]).mean(axis=0)
    return balanced


def _person_weights(people: int, seed: int) -> FloatArray:
    """Return (REPLICATES, people): how often each person was drawn, with replacement."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(people, np.full(people, 1 / people), REPLICATES).astype(np.float64)


def _rate(value: float, replicates: FloatArray) -> Rate:
    low, high = np.quantile(replicates, _QUANTILES)
    return Rate(value, min(value, float(low)), max(value, float(high)))
