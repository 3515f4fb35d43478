"""Labels that may be wrong: they bound what can be measured at all (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.evaluation.comparisons import MatedPairs
from service.evaluation.photographs import FaceSet
from service.population import Population, blocks, score_at, survival

MOST_LISTED = 200  # of each kind
_STRANGERS = 0.1  # share of the pairs of two people that score higher than mates that look like strangers


@dataclass(frozen=True, slots=True)
class DoubtfulPair:
    """Two photographs whose score does not fit their labels."""

    first: str
    second: str
    score: float
    mated: bool  # by their labels


@dataclass(frozen=True, slots=True)
class Doubts:
    """How much of what was compared may be mislabelled, and the pairs to look at, most doubtful first."""

    alike_people: int  # pairs of people with different names and a pair of photographs that scores like one person
    alike_share: float  # of all pairs of people, each by its share of such pairs: a false match rate labels may explain
    unlike_people: int  # people with a pair of photographs that scores like two people
    unlike_share: float  # of such pairs, everyone counting the same: a false non-match rate that labels may explain
    listed: Sequence[DoubtfulPair]


def doubts(faces: FaceSet, population: Population, mated: MatedPairs) -> Doubts:
    """Return the pairs of two people that score like one, and those of one person that score like two.

    Like one: at least the median of the mated scores, everyone counting the same. Like two: below what a tenth of the
    pairs of two people reach.
    """
    if not len(mated.scores):
        return Doubts(0, 0.0, 0, 0.0, ())
    names = [photograph.name for photograph in faces.photographs]
    alike = _alike(population, _typical(mated))
    unlike = mated.only(mated.scores < score_at(survival(population), _STRANGERS))
    pairs = np.bincount(mated.person, minlength=population.people)
    of_person = np.bincount(unlike.person, minlength=population.people) / np.maximum(pairs, 1)
    worst = np.argsort(unlike.scores)[:MOST_LISTED]
    listed = [
        *(DoubtfulPair(names[first], names[second], score, mated=False) for first, second, score in alike.highest),
        *(
            DoubtfulPair(names[unlike.first[each]], names[unlike.second[each]], float(unlike.scores[each]), mated=True)
            for each in worst.tolist()
        ),
    ]
    return Doubts(
        alike_people=alike.people,
        alike_share=alike.weight / (population.people * (population.people - 1) / 2),
        unlike_people=len(np.unique(unlike.person)),
        unlike_share=float(of_person.sum() / np.count_nonzero(pairs)),
        listed=listed,
    )


@dataclass(frozen=True, slots=True)
class _Alike:
    people: int
    weight: float
    highest: Sequence[tuple[int, int, float]]  # rows and their score, highest first


def _typical(mated: MatedPairs) -> float:
    """Return the median over the people of the median of their own pairs."""
    order = np.argsort(mated.person, kind="stable")
    parts = np.split(mated.scores[order], np.flatnonzero(np.diff(mated.person[order])) + 1)
    return float(np.median([np.median(part) for part in parts]))


def _alike(population: Population, score: float) -> _Alike:
    """Count the pairs of different people that reach the score; keep the highest: bad labels make millions."""
    person, sizes = population.person_of_row, population.sizes
    codes: list[npt.NDArray[np.intp]] = []
    weight = 0.0
    highest: list[tuple[int, int, float]] = []
    for people, block in blocks(population):
        start = population.starts[people.start]
        rows, columns = np.nonzero(block >= score)
        rows, columns = rows[rows + start < columns], columns[rows + start < columns]  # each pair once
        first, second = person[rows + start], person[columns]
        codes.append(np.unique(first * population.people + second))
        weight += float((1 / (sizes[first] * sizes[second])).sum())
        scores = block[rows, columns]
        best = np.argsort(-scores)[:MOST_LISTED]
        found = zip((rows[best] + start).tolist(), columns[best].tolist(), scores[best].tolist(), strict=True)
        highest = sorted([*highest, *found], key=lambda pair: -pair[2])[:MOST_LISTED]
    return _Alike(len(np.unique(np.concatenate(codes))), weight, highest)
