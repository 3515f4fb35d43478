"""Comparisons one to one: false matches and false non-matches by threshold, as a whole and by group (pure).

Everyone counts the same, however many photographs they have: a pair of people weighs one in the false match rate, and a
person in the false non-match rate, shared among their pairs of photographs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.evaluation.figures import FEWEST_TOLD, REPLICATES, Figure, figure
from service.evaluation.photographs import GAP, QUALITY, FaceSet, Photograph, gap_between, quality_of
from service.population import (
    Population,
    bootstrap_weights,
    false_match_rates,
    population_of,
    score_at,
    survival,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

TARGETS = (0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6)
"""False match rates at which a curve is drawn, as far as the people allow."""

GROUP_TARGET = 1e-3
"""False match rate of all people whose threshold judges the groups; with few people, the lowest that they allow."""

MOST_GROUPS = 30  # of a label

_PAIRS_A_POINT = 10  # of people, that a false match rate rests on at least


@dataclass(frozen=True, slots=True)
class MatedPairs:
    """All pairs of photographs of one person. People are numbered as in the population."""

    first: IntArray  # (m,) rows
    second: IntArray  # (m,)
    person: IntArray  # (m,)
    scores: FloatArray  # (m,) cosine

    def only(self, wanted: BoolArray) -> "MatedPairs":
        return MatedPairs(self.first[wanted], self.second[wanted], self.person[wanted], self.scores[wanted])


def mated_pairs(population: Population) -> MatedPairs:
    """Return the pairs of each person, in the order of the people."""
    parts: list[tuple[IntArray, IntArray, IntArray, FloatArray]] = []
    for person, (start, size) in enumerate(zip(population.starts, population.sizes.astype(np.intp), strict=True)):
        one, other = np.triu_indices(size, 1)
        rows = population.embeddings[start : start + size]
        scores = (rows @ rows.T)[one, other].astype(np.float64)
        parts.append((start + one, start + other, np.full(len(one), person), scores))
    return MatedPairs(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def curve(population: Population, mated: MatedPairs, seed: int = 0) -> list[Figure]:
    """Return the false match and the false non-match rate at the thresholds of `TARGETS`, as far as people allow."""
    share_above = survival(population)
    targets = usable_targets(population.people)
    thresholds = np.array([score_at(share_above, target) for target in targets])
    weights = bootstrap_weights(population.people, REPLICATES, seed)
    ascending = np.argsort(thresholds, kind="stable")
    rates = np.empty((len(weights), len(targets)))
    rates[:, ascending] = false_match_rates(population, thresholds[ascending], weights)
    found = []
    for number, (target, threshold) in enumerate(zip(targets, thresholds.tolist(), strict=True)):
        if rates[0, number] == 0 or threshold >= 1:
            continue  # one photograph under several names: no threshold below 1 lets so few through
        facts: dict[str, Any] = {"threshold": threshold, "target": target, "chosen_by": "here"}
        size = {"trials": population.comparisons, "people": population.people}
        found.append(figure("fmr", float(rates[0, number]), rates[1:, number], **size, **facts))
        if len(mated.scores):
            found.append(false_non_match(mated, weights, **facts))
    return found


def usable_targets(people: int) -> list[float]:
    """Return those of `TARGETS` that rest on enough pairs of so many people, at least the highest."""
    pairs = people * (people - 1) / 2
    return [target for target in TARGETS if target * pairs >= _PAIRS_A_POINT] or [TARGETS[0]]


def false_non_match(mated: MatedPairs, weights: FloatArray, threshold: float, **facts: Any) -> Figure:
    """Return the share of mated pairs below a threshold.

    Args:
        mated: at least one pair.
        weights: (1 + b, people), how often each person counts; the first row gives the value.
        threshold: cosine.
        facts: further fields of the figure.
    """
    people = weights.shape[1]
    pairs = np.bincount(mated.person, minlength=people)
    missed = np.bincount(mated.person, mated.scores < threshold, minlength=people)
    with_pairs = np.flatnonzero(pairs)
    facts = {"threshold": threshold, "trials": len(mated.scores), "people": len(with_pairs), **facts}
    shares = missed[with_pairs] / pairs[with_pairs]
    values = _weighted_mean(shares, weights[:, with_pairs])
    return figure("fnmr", float(values[0]), values[1:], **facts)


def by_group(
    faces: FaceSet, population: Population, mated: MatedPairs, threshold: float, seed: int = 0
) -> list[Figure]:
    """Return failure to acquire, false match and false non-match rate of each group of each label.

    A false match of a group is one of two people in it. Both are judged at one threshold, that of all people.
    """
    weights = bootstrap_weights(population.people, REPLICATES, seed)
    people = np.array(faces.people)
    found = []
    for label, group in _groups(faces):
        facts = {"label": label, "group": group}
        found.append(failure_to_acquire(faces, seed, **facts))
        is_in = np.array([each.groups.get(label) == group for each in faces.photographs])
        if len(set(people[is_in])) > 1:
            found.append(_group_false_match(faces, is_in, threshold, seed, **facts))
        own = mated.only(is_in[mated.first] & is_in[mated.second])
        if len(own.scores):
            found.append(false_non_match(own, weights, threshold, **facts))
    for label, band_of in ((GAP, gap_between), (QUALITY, quality_of)):
        found += _by_pair(label, _bands(faces, mated, band_of), mated, weights, threshold)
    return found


def failure_to_acquire(faces: FaceSet, seed: int = 0, *, label: str | None = None, group: str | None = None) -> Figure:
    """Return the share of photographs without a usable face: of all, or of one group of a label."""

    def is_meant(photograph: Photograph) -> bool:
        return label is None or photograph.groups.get(label) == group

    refused = [each.photograph.person for each in faces.refused if is_meant(each.photograph)]
    everyone = [each.person for each in faces.all_photographs if is_meant(each)]
    people = {person: number for number, person in enumerate(sorted(set(everyone)))}
    facts: dict[str, Any] = {"trials": len(everyone), "people": len(people), "label": label, "group": group}
    failed, all_of_them = (
        np.bincount(np.array([people[person] for person in some], np.intp), minlength=len(people))
        for some in (refused, everyone)
    )
    weights = bootstrap_weights(len(people), REPLICATES, seed)
    rates = (weights @ failed) / (weights @ all_of_them)
    return figure("failure_to_acquire", float(rates[0]), rates[1:], **facts)


def _groups(faces: FaceSet) -> list[tuple[str, str]]:
    """Return labels and groups that are told of: of enough people, and the largest where a label has very many."""
    people: dict[str, dict[str, set[str]]] = {}
    for each in faces.all_photographs:
        for label, group in each.groups.items():
            people.setdefault(label, {}).setdefault(group, set()).add(each.person)
    found = []
    for label, groups in sorted(people.items()):
        told = [group for group, members in groups.items() if len(members) >= FEWEST_TOLD]
        largest = sorted(told, key=lambda group: -len(groups[group]))[:MOST_GROUPS]
        found += [(label, group) for group in sorted(largest)]
    return found


def _group_false_match(faces: FaceSet, is_in: BoolArray, threshold: float, seed: int, **facts: Any) -> Figure:
    people = [person for person, wanted in zip(faces.people, is_in, strict=True) if wanted]
    population = population_of(faces.embeddings[is_in], people)
    weights = bootstrap_weights(population.people, REPLICATES, seed)
    rates = false_match_rates(population, np.array([threshold]), weights)[:, 0]
    facts = {"threshold": threshold, "trials": population.comparisons, "people": population.people, **facts}
    return figure("fmr", float(rates[0]), rates[1:], **facts)


def _bands(
    faces: FaceSet, mated: MatedPairs, band_of: Callable[[Photograph, Photograph], str | None]
) -> Sequence[str | None]:
    """Return the band that the two photographs of each pair have together."""
    return [
        band_of(faces.photographs[first], faces.photographs[second])
        for first, second in zip(mated.first.tolist(), mated.second.tolist(), strict=True)
    ]


def _by_pair(
    label: str, shown: Sequence[str | None], mated: MatedPairs, weights: FloatArray, threshold: float
) -> list[Figure]:
    """Return the false non-match rate of the pairs in each band."""
    bands = np.array([each or "" for each in shown])
    known = sorted({each for each in shown if each})
    found = [false_non_match(mated.only(bands == band), weights, threshold, label=label, group=band) for band in known]
    return [each for each in found if each.people >= FEWEST_TOLD]


def _weighted_mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return (b,) the means of `values`, (p,), by each row of `weights`, (b, p); NaN where a row is all zero."""
    totals = weights.sum(axis=1)
    means: FloatArray = np.divide(weights @ values, totals, out=np.full(len(totals), np.nan), where=totals > 0)
    return means
