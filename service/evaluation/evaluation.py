"""Everything that is measured of one model pack on labelled photographs (pure)."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.calibration import Calibration
from service.evaluation.comparisons import (
    GROUP_TARGET,
    FloatArray,
    by_group,
    curve,
    failure_to_acquire,
    mated_pairs,
    usable_targets,
)
from service.evaluation.doubtful import Doubts, doubts
from service.evaluation.figures import Figure
from service.evaluation.photographs import FaceSet
from service.evaluation.searches import gallery_sizes, rates
from service.population import BINS, population_of, score_at, survival

FEWEST_PEOPLE = 20
_SHOWN_BINS = 200  # of the histograms, over -1..1

Step = Callable[[str], None]
"""Told in a few words what is measured next."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one pack, and what explains them."""

    people: int
    people_with_several: int
    photographs: int  # with a usable face
    comparisons: int  # of photographs of different people
    is_of_calibration: bool  # as many people and comparisons as those of the calibration: most likely the same ones
    mated_comparisons: int
    figures: Sequence[Figure]
    refusals: Mapping[str, int]  # by code
    group_threshold: float
    group_target: float
    doubts: Doubts
    histogram_edges: FloatArray  # (bins + 1,)
    mated_shares: FloatArray  # (bins,) of the mated pairs, everyone counting the same
    non_mated_shares: FloatArray  # (bins,) of the pairs of people


def evaluate(faces: FaceSet, calibration: Calibration | None, step: Step, seed: int = 0) -> Evaluation:
    """Measure what ISO/IEC 19795-1 asks for, each rate with its interval.

    Args:
        faces: of labelled people.
        calibration: of the pack, whose claims are tested; None: it has none.
        step: told what is measured.
        seed: of the divisions into enrolled people and others, and of the bootstrap.

    Raises:
        ValueError: fewer than `FEWEST_PEOPLE` people have a usable photograph.
    """
    population = population_of(faces.embeddings, faces.people)
    if population.people < FEWEST_PEOPLE:
        raise ValueError(f"only {population.people} people have a usable photograph, {FEWEST_PEOPLE} are needed")
    step("comparing everyone with everyone")
    mated = mated_pairs(population)
    share_above = survival(population)
    target = max(GROUP_TARGET, usable_targets(population.people)[-1])
    threshold = score_at(share_above, target)
    figures = [failure_to_acquire(faces, seed)]
    step("false matches and false non-matches, with their intervals")
    figures += curve(population, mated, seed)
    for size in gallery_sizes(population.people):
        step(f"searching galleries of {size:,} people")
        figures += rates(population, size, calibration, seed)
    step("groups of people")
    figures += by_group(faces, population, mated, threshold, seed)
    step("labels that may be wrong")
    edges = np.linspace(-1, 1, _SHOWN_BINS + 1)
    counts = np.bincount(mated.person, minlength=population.people)
    mated_shares = np.histogram(np.clip(mated.scores, -1, 1), edges, weights=1 / counts[mated.person])[0]
    return Evaluation(
        people=population.people,
        people_with_several=int(np.count_nonzero(counts)),
        photographs=len(faces.photographs),
        comparisons=population.comparisons,
        is_of_calibration=calibration is not None
        and (calibration.people, calibration.comparisons) == (population.people, population.comparisons),
        mated_comparisons=len(mated.scores),
        figures=figures,
        refusals=Counter(each.code for each in faces.refused),
        group_threshold=threshold,
        group_target=target,
        doubts=doubts(faces, population, mated),
        histogram_edges=edges,
        mated_shares=mated_shares / max(float(mated_shares.sum()), 1.0),
        non_mated_shares=-np.diff(np.append(share_above, 0)).reshape(_SHOWN_BINS, BINS // _SHOWN_BINS).sum(axis=1),
    )
