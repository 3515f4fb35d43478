"""Comparisons one to one of people whose scores are known."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from service.evaluation.comparisons import (
    by_group,
    curve,
    failure_to_acquire,
    false_non_match,
    mated_pairs,
    usable_targets,
)
from service.evaluation.figures import Figure, figure
from service.evaluation.photographs import GAP, QUALITY, SEX, FaceSet
from service.population import Population, population_of
from tests.evaluation.people import face_set, unusable


def population(faces: FaceSet) -> Population:
    return population_of(faces.embeddings, faces.people)


def test_mated_pairs_are_all_pairs_of_photographs_of_one_person() -> None:
    faces = face_set([3, 1, 2])
    mated = mated_pairs(population(faces))
    assert list(zip(mated.first.tolist(), mated.second.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2), (4, 5)]
    assert mated.person.tolist() == [0, 0, 0, 2]
    rows = faces.embeddings
    assert mated.scores == pytest.approx(np.sum(rows[mated.first] * rows[mated.second], axis=1), abs=1e-6)


def test_everyone_counts_the_same_in_the_false_non_match_rate() -> None:
    mated = mated_pairs(population(face_set([40, 2])))
    mated.scores[:] = 0.9
    mated.scores[-1] = 0.1  # the only pair of the second person
    found = false_non_match(mated, np.ones((3, 2)), 0.5)
    assert found.value == pytest.approx(0.5)
    assert (found.trials, found.people) == (781, 2)


def test_a_score_at_the_threshold_is_a_match() -> None:
    mated = mated_pairs(population(face_set([2, 2])))
    mated.scores[:] = [0.5, 0.4999]
    assert false_non_match(mated, np.ones((2, 2)), 0.5).value == pytest.approx(0.5)


def test_the_interval_comes_from_the_people_that_were_drawn() -> None:
    mated = mated_pairs(population(face_set([2, 2, 2])))
    mated.scores[:] = [0.9, 0.1, 0.9]
    weights = np.array([[1, 1, 1], [3, 0, 0], [0, 3, 0], [1, 2, 0]], float)
    found = false_non_match(mated, weights, 0.5)
    assert (found.value, found.low, found.high) == pytest.approx((1 / 3, *np.quantile([0, 1, 2 / 3], [0.025, 0.975])))


def test_no_miss_among_few_people_still_allows_some() -> None:
    mated = mated_pairs(population(face_set([2] * 10)))
    found = false_non_match(mated, np.ones((2, 10)), -1.0)
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(1 - 0.025**0.1)


def test_the_curve_holds_both_rates_at_each_threshold_and_falls() -> None:
    faces = face_set([2] * 150, spread=0.9)
    some = population(faces)
    figures = curve(some, mated_pairs(some))
    matches = [each for each in figures if each.measure == "fmr"]
    misses = [each for each in figures if each.measure == "fnmr"]
    assert [each.target for each in matches] == [each.target for each in misses] == usable_targets(150)
    scores = faces.embeddings @ faces.embeddings.T
    of_others = np.array(faces.people)[:, None] != np.array(faces.people)[None]
    for match in matches:
        assert match.value == pytest.approx((scores[of_others] >= match.threshold).mean(), rel=1e-3)
        assert match.low <= match.value <= match.high
        assert match.value <= (match.target or 0) * 1.001
    assert all(one.value <= other.value for one, other in pairwise(misses))
    assert misses[-1].value > misses[0].value


def test_rates_too_small_for_so_many_people_are_left_out() -> None:
    assert usable_targets(20) == [0.1]
    assert usable_targets(2890)[-1] == pytest.approx(3e-6)
    assert usable_targets(3) == [0.1]


def test_failure_to_acquire_counts_photographs() -> None:
    faces = face_set([2] * 30, refused=[unusable("0003"), unusable("x")])
    found = failure_to_acquire(faces)
    assert found.value == pytest.approx(2 / 62)
    assert (found.trials, found.people) == (62, 31)
    assert found.low < found.value < found.high
    assert failure_to_acquire(face_set([2] * 30)).high == pytest.approx(1 - 0.025 ** (1 / 30))


def test_groups_are_judged_among_themselves_at_one_threshold() -> None:
    faces = face_set([2] * 80, facts=lambda person, _: {"sex": "F" if person % 2 else "M"})
    some = population(faces)
    # the women look alike: all are moved towards one face
    rows = faces.embeddings.copy()
    is_woman = np.array([each.groups[SEX] == "F" for each in faces.photographs])
    rows[is_woman] += 0.5 * rows[2]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    faces = FaceSet(faces.photographs, rows, ())
    some = population(faces)
    found = {(each.measure, each.group): each for each in by_group(faces, some, mated_pairs(some), 0.4)}
    women, men = found["fmr", "F"], found["fmr", "M"]
    assert women.value > 3 * men.value
    scores = rows[is_woman] @ rows[is_woman].T
    of_others = ~np.kron(np.eye(40, dtype=bool), np.ones((2, 2), bool))
    assert women.value == pytest.approx((scores[of_others] >= 0.4).mean(), rel=1e-3)
    assert (women.people, women.trials) == (40, 80 * 78 // 2)
    assert found["fnmr", "F"].people == 40
    assert found["failure_to_acquire", "M"].trials == 80


def test_a_mated_pair_belongs_to_a_group_with_both_photographs_only() -> None:
    sites = (("north", "north"), ("north", "south"), ("south", "south"))
    faces = face_set([2] * 30, facts=lambda person, number: {"site": sites[person % 3][number]})
    some = population(faces)
    found = [each for each in by_group(faces, some, mated_pairs(some), 0.4) if each.measure == "fnmr"]
    assert [(each.group, each.people) for each in found] == [("north", 10), ("south", 10)]


def test_whoever_is_drawn_every_time_makes_no_pair() -> None:
    faces = face_set([2] * 30, facts=lambda person, _: {"site": "small" if person < 5 else "large"})
    some = population(faces)
    found = [each for each in by_group(faces, some, mated_pairs(some), 0.2) if each.measure == "fmr"]
    assert [(each.group, each.people) for each in found] == [("large", 25), ("small", 5)]
    assert all(0 <= each.low <= each.value <= each.high <= 1 for each in found)


def test_pairs_are_grouped_by_the_years_between_them() -> None:
    at = ("2020-01-01", "2020-05-01", "2024-01-01")
    faces = face_set([3] * 40, facts=lambda _, number: {"captured_at": at[number]})
    some = population(faces)
    found: list[Figure] = [each for each in by_group(faces, some, mated_pairs(some), 0.4) if each.label == GAP]
    assert [(each.group, each.trials) for each in found] == [("3 to 5", 80), ("below 1", 40)]


def test_pairs_are_grouped_by_the_quality_of_the_poorer_photograph() -> None:
    scores = (60, 20, None)
    faces = face_set([3] * 40)
    rated = [replace(each, unified=scores[row % 3]) for row, each in enumerate(faces.photographs)]
    some = population(faces)
    found = by_group(FaceSet(rated, faces.embeddings, ()), some, mated_pairs(some), 0.4)
    assert [(each.label, each.group, each.trials, each.people) for each in found] == [(QUALITY, "15 to 29", 40, 40)]


def test_the_interval_of_all_or_nothing_reaches_as_far_as_so_many_people_allow() -> None:
    nothing, everything = (figure("fnmr", value, np.full(200, value), trials=9, people=9) for value in (0.0, 1.0))
    assert (nothing.low, nothing.high) == pytest.approx((0, 1 - 0.025 ** (1 / 9)))
    assert (everything.low, everything.high) == pytest.approx((0.025 ** (1 / 9), 1))


def test_a_replicate_without_a_value_is_left_out() -> None:
    found = figure("fmr", 0.5, np.array([0.4, np.nan, 0.6]), trials=9, people=9)
    assert 0.4 <= found.low <= found.high <= 0.6


def test_yearly_returns_are_a_year_apart() -> None:
    faces = face_set([2] * 20, facts=lambda _, number: {"captured_at": f"202{1 + 3 * number}-01-01"})
    some = population(faces)
    assert [each.group for each in by_group(faces, some, mated_pairs(some), 0.4)] == ["3 to 5"]
