"""Measures what the scores of a model mean: the curve behind `models/<pack>/calibration.json`."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from service.calibration import Calibration, Tail
from service.domain import Embeddings

FloatArray = npt.NDArray[np.float64]

REPLICATES = 200  # of the bootstrap; the 97.5 % quantile then rests on ten of them
TAIL_FMR = (1e-3, 1e-5)  # where log10 FMR is straight; beyond, label errors of the data bend it (design.md)
TAIL_POINTS = 24
MIN_PEOPLE = 500  # they make 124,750 pairs, so that an FMR of 1e-5 is about one of them
BULK_FMR = (0.999, 0.99, 0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002)
MATED_QUANTILES = 201

_BINS = 20_000  # of 1e-4 over -1..1
_BLOCK_ROWS = 512
_SPARSE_SHARE = 0.005  # below it, adding single pairs is faster than a product of matrices


@dataclass(frozen=True)
class Population:
    """Embeddings of known people.

    `embeddings` is (n, D) float32 with the rows of a person together; `starts` (people,) is the first row of each.
    """

    embeddings: Embeddings
    starts: npt.NDArray[np.intp]

    @property
    def people(self) -> int:
        return len(self.starts)

    @property
    def sizes(self) -> FloatArray:
        """(people,) photographs of each person."""
        return np.diff(np.append(self.starts, len(self.embeddings))).astype(np.float64)

    @property
    def person_of_row(self) -> npt.NDArray[np.intp]:
        """(n,) the number of the person, from 0."""
        return np.repeat(np.arange(self.people), self.sizes.astype(np.intp))

    @property
    def comparisons(self) -> int:
        """Non-mated pairs of photographs."""
        return int((len(self.embeddings) ** 2 - int((self.sizes**2).sum())) // 2)


def population_of(embeddings: Embeddings, people: list[str]) -> Population:
    """Gather rows by person; `people` names the person of each row, equal names together."""
    names = np.array(people)
    starts = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
    if len(np.unique(names)) != len(starts):
        raise ValueError("the photographs of a person must stand together")
    return Population(embeddings, starts)


def calibrate(
    pack_id: str, description: str, population: Population, mated_scores: FloatArray, seed: int = 0
) -> Calibration:
    """Return the calibration of one pack.

    Every pair of people counts the same, whatever their photographs: a pair of photographs weighs
    1 / (photographs of the one * photographs of the other). Nobody is in a gallery 530 times, and unweighted a few
    much photographed people would decide the rates. The intervals are a percentile bootstrap over people; it counts
    the noise of single pairs up to three times, so they are rather too wide than too narrow in the tail.

    Args:
        description: of the population, in plain words.
        mated_scores: scores of mated pairs, any order; their quantiles are kept.

    Raises:
        ValueError: too few people, or scores that tell nobody apart.
    """
    if population.people < MIN_PEOPLE:
        raise ValueError(f"a calibration needs photographs of {MIN_PEOPLE} people or more, not {population.people}")
    survival = _survival(population)
    tail_ends = [_score_at(survival, fmr) for fmr in TAIL_FMR]
    tail_scores = np.linspace(tail_ends[0], tail_ends[1], TAIL_POINTS)
    scores = np.unique(np.round([*(_score_at(survival, fmr) for fmr in BULK_FMR), *tail_scores], 6))
    weights = _bootstrap_weights(population.people, seed)
    rates = false_match_rates(population, scores, weights)
    # a replicate without any pair this high is given half a pair of people, so that its logarithm exists
    log10 = np.log10(np.maximum(rates, 1 / population.people**2))
    in_tail = scores >= scores[-TAIL_POINTS]
    quantiles = np.quantile(mated_scores, np.linspace(0, 1, MATED_QUANTILES))
    return Calibration(
        pack_id=pack_id,
        population=description,
        comparisons=population.comparisons,
        people=population.people,
        scores=_rounded(scores),
        log10_fmr=_rounded(log10[0]),
        log10_fmr_upper=_rounded(np.maximum(np.quantile(log10[1:], 0.975, axis=0), log10[0])),
        tail=_fit_tail(scores[in_tail], log10[:, in_tail]),
        mated_scores=_rounded(np.sort(quantiles)),
    )


def calibration_json(calibration: Calibration) -> str:
    """Return the text of `calibration.json`, one line a key, as `Calibration.from_json` reads it."""
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in asdict(calibration).items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def false_match_rates(population: Population, scores: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the share of pairs of people that reach each score, for each weighting of the people.

    Args:
        scores: (k,) ascending.
        weights: (b, people), how often each person counts.

    Returns:
        (b, k): sum of w_p w_q m_pq over p != q, divided by the sum of w_p w_q; m_pq is the share of the pairs of
        photographs of p and q that score at least this.
    """
    reached = np.zeros((len(weights), len(scores)))
    single = weights.astype(np.float32)  # twice as fast; each sum is right within 1e-6
    for people, block in _blocks(population):
        for position, score in enumerate(scores):
            reached[:, position] += _weighted_shares(population, people, block >= score, single)
    total = weights.sum(axis=1) ** 2 - (weights**2).sum(axis=1)
    rates: FloatArray = reached / total[:, None]
    return rates


def _blocks(population: Population) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """Yield blocks of people with the scores (rows, n) of their photographs with all; mated pairs have -2."""
    ends = np.append(population.starts[1:], len(population.embeddings))
    first = 0
    while first < population.people:
        start = population.starts[first]
        last = max(first + 1, int(np.searchsorted(ends, start + _BLOCK_ROWS, side="right")))
        block = population.embeddings[start : ends[last - 1]] @ population.embeddings.T
        for person in range(first, last):
            block[
                population.starts[person] - start : ends[person] - start, population.starts[person] : ends[person]
            ] = -2
        yield slice(first, last), block
        first = last


def _weighted_shares(
    population: Population, people: slice, reached: npt.NDArray[np.bool_], weights: npt.NDArray[np.float32]
) -> FloatArray:
    """Return (b,): for each weighting the sum of w_p w_q m_pq over the people p of a block and all people q.

    m_pq is the share of their pairs of photographs that is true in `reached`.
    """
    if np.count_nonzero(reached) < _SPARSE_SHARE * reached.size:
        rows, columns = np.nonzero(reached)
        first, second = (
            population.person_of_row[rows + population.starts[people.start]],
            population.person_of_row[columns],
        )
        shares = 1 / (population.sizes[first] * population.sizes[second])
        return np.asarray((weights[:, first] * weights[:, second]) @ shares, np.float64)
    by_row = np.add.reduceat(reached, population.starts[people] - population.starts[people.start], 0, np.uint16)
    counts = np.add.reduceat(by_row, population.starts, 1, np.uint32)
    dense = (counts / np.outer(population.sizes[people], population.sizes)).astype(np.float32)
    return np.asarray(np.einsum("bq,bq->b", weights[:, people] @ dense, weights, dtype=np.float64))


def _survival(population: Population) -> FloatArray:
    """Return (bins,) the share of pairs of people at or above the lower edge of each bin of the score."""
    of_row = 1 / np.repeat(population.sizes, population.sizes.astype(np.intp))
    found = np.zeros(_BINS)
    for people, block in _blocks(population):
        rows = slice(population.starts[people.start], population.starts[people.start] + len(block))
        weights = np.outer(of_row[rows], of_row)
        weights[block < -1.5] = 0  # mated
        bins = np.clip(((block + 1) * (_BINS / 2)).astype(np.intp), 0, _BINS - 1)
        found += np.bincount(bins.ravel(), weights.ravel(), minlength=_BINS)
    survival: FloatArray = np.cumsum(found[::-1])[::-1] / found.sum()
    return survival


def _score_at(survival: FloatArray, fmr: float) -> float:
    """Return the lowest bin edge that at most `fmr` of the pairs reach."""
    position = int(np.searchsorted(-survival, -fmr, side="left"))
    return position * 2 / _BINS - 1


def _bootstrap_weights(people: int, seed: int) -> FloatArray:
    """Return (1 + REPLICATES, people): first everyone once, then people drawn with replacement."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(people, np.full(people, 1 / people), REPLICATES)
    return np.vstack([np.ones(people), drawn])


def _fit_tail(scores: FloatArray, log10: FloatArray) -> Tail:
    """Fit a line to each row of `log10` (1 + b, k); the first row is the estimate, the others give its spread."""
    centre = round(float(scores.mean()), 6)
    slopes, intercepts = np.polyfit(scores - centre, log10.T, 1)
    spread = np.cov(intercepts[1:], slopes[1:])
    return Tail(
        centre=centre,
        intercept=round(float(intercepts[0]), 6),
        slope=round(float(slopes[0]), 6),
        intercept_variance=float(f"{spread[0, 0]:.6g}"),
        slope_variance=float(f"{spread[1, 1]:.6g}"),
        covariance=float(f"{spread[0, 1]:.6g}"),
    )


def _rounded(values: FloatArray) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)
