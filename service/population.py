"""How the scores of known people spread: false match rates from all pairs of people, each pair counted once (pure)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.domain import Embeddings

FloatArray = npt.NDArray[np.float64]

BINS = 20_000  # of 1e-4 over the scores -1..1

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


def false_match_rates(population: Population, scores: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the share of pairs of people that reach each score, for each weighting of the people.

    Args:
        scores: (k,) ascending.
        weights: (b, people), how often each person counts.

    Returns:
        (b, k): sum of w_p w_q m_pq over p != q, divided by the sum of w_p w_q, NaN without any; m_pq is the share of
        the pairs of photographs of p and q that score at least this.
    """
    reached = np.zeros((len(weights), len(scores)))
    single = weights.astype(np.float32)  # twice as fast; each sum is right within 1e-6
    for people, block in blocks(population):
        for position, score in enumerate(scores):
            reached[:, position] += _weighted_shares(population, people, block >= score, single)
    total = weights.sum(axis=1) ** 2 - (weights**2).sum(axis=1)
    # somebody drawn every time makes no pair
    rates: FloatArray = np.divide(reached, total[:, None], out=np.full_like(reached, np.nan), where=total[:, None] > 0)
    return rates


def blocks(population: Population) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
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


def survival(population: Population) -> FloatArray:
    """Return (bins,) the share of pairs of people at or above the lower edge of each bin of the score."""
    of_row = 1 / np.repeat(population.sizes, population.sizes.astype(np.intp))
    found = np.zeros(BINS)
    for people, block in blocks(population):
        rows = slice(population.starts[people.start], population.starts[people.start] + len(block))
        weights = np.outer(of_row[rows], of_row)
        weights[block < -1.5] = 0  # mated
        bins = np.clip(((block + 1) * (BINS / 2)).astype(np.intp), 0, BINS - 1)
        found += np.bincount(bins.ravel(), weights.ravel(), minlength=BINS)
    share_above: FloatArray = np.cumsum(found[::-1])[::-1] / found.sum()
    return share_above


def score_at(share_above: FloatArray, fmr: float) -> float:
    """Return the lowest bin edge that at most `fmr` of the pairs reach."""
    position = int(np.searchsorted(-share_above, -fmr, side="left"))
    return position * 2 / BINS - 1


def bootstrap_weights(people: int, replicates: int, seed: int) -> FloatArray:
    """Return (1 + replicates, people): first everyone once, then people drawn with replacement."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(people, np.full(people, 1 / people), replicates)
    return np.vstack([np.ones(people), drawn])
