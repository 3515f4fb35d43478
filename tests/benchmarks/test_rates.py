"""Error rates of small arrays whose answers are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.rates import (
    ScoredPairs,
    Searches,
    accuracy,
    best_threshold,
    failure_to_acquire,
    fnir_at_fpir,
    threshold_at_fpir,
)

# the same examples on every run, however slow the machine
seeded = settings(deadline=None, derandomize=True, max_examples=200)

NOT_FOUND = -np.inf


def searches(own: list[float], tops: list[float], ranks: list[int] | None = None) -> Searches:
    return Searches(np.array(own), np.array(ranks or [1] * len(own), np.intp), np.array(tops))


def test_the_threshold_lets_no_more_than_the_wanted_share_of_new_people_through() -> None:
    tops = np.arange(100) / 100
    assert (tops >= threshold_at_fpir(tops, 0.03)).sum() == 3
    assert (tops >= threshold_at_fpir(tops, 0.1)).sum() == 10
    assert (tops >= threshold_at_fpir(tops, 0.29)).sum() == 29  # 0.29 * 100 is less than 29 in float64
    assert (tops >= threshold_at_fpir(tops, 0.001)).sum() == 0


def test_equal_scores_pass_together_or_not_at_all() -> None:
    tops = np.array([0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert (tops >= threshold_at_fpir(tops, 0.1)).sum() == 0
    assert (tops >= threshold_at_fpir(tops, 0.3)).sum() == 3


@seeded
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50), st.floats(0, 1))
def test_the_threshold_is_the_lowest_that_keeps_the_rate(scores: list[float], fpir: float) -> None:
    tops = np.array(scores)
    threshold = threshold_at_fpir(tops, fpir)
    assert (tops >= threshold).mean() <= fpir + 1e-9
    if np.isfinite(threshold):
        assert (tops >= np.nextafter(threshold, -np.inf)).mean() > fpir


def test_fnir_counts_mates_below_the_threshold_and_those_never_found() -> None:
    rate = fnir_at_fpir(searches([0.9, 0.8, 0.3, NOT_FOUND], [0.5, 0.4, 0.3, 0.2]), 0.25, max_rank=None)
    assert rate.value == 0.5
    assert rate.low < rate.value < rate.high


def test_a_rank_limit_asks_for_the_right_reference_to_come_first() -> None:
    some = searches([0.9, 0.8, 0.7, 0.6], [0.1] * 10, ranks=[1, 2, 1, 3])
    assert fnir_at_fpir(some, 0.1, max_rank=None).value == 0
    assert fnir_at_fpir(some, 0.1, max_rank=1).value == 0.5
    assert fnir_at_fpir(some, 0.1, max_rank=2).value == 0.25


def test_more_people_give_a_narrower_interval() -> None:
    few = fnir_at_fpir(searches([0.9, 0.1] * 20, [0.5] * 40), 0.01, max_rank=None)
    many = fnir_at_fpir(searches([0.9, 0.1] * 500, [0.5] * 40), 0.01, max_rank=None)
    assert many.high - many.low < (few.high - few.low) / 3


def test_the_best_threshold_separates_what_can_be_separated() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.8])
    mated = np.array([False, False, False, True, True, True])
    assert best_threshold(scores, mated) == pytest.approx(0.45)


def test_a_pair_at_the_best_threshold_is_accepted() -> None:
    threshold = best_threshold(np.array([0.9, 0.1, 0.2]), np.array([True, False, True]))
    assert 0.1 < threshold <= 0.2


def test_a_threshold_needs_both_kinds_of_pairs() -> None:
    with pytest.raises(ValueError, match="mated and non-mated"):
        best_threshold(np.array([0.5]), np.array([True]))


def pairs(scores: list[float], mated: list[bool], first: list[int], second: list[int], people: int) -> ScoredPairs:
    return ScoredPairs(np.array(scores), np.array(mated), np.array(first, np.intp), np.array(second, np.intp), people)


def separable(people: int, wrong: int = 0) -> ScoredPairs:
    """One mated pair a person at 0.8 and one non-mated with the next person at 0.1; `wrong` mated ones at 0."""
    persons = list(range(people))
    nexts = [(person + 1) % people for person in persons]
    return pairs(
        [0.0] * wrong + [0.8] * (people - wrong) + [0.1] * people,
        [True] * people + [False] * people,
        persons * 2,
        persons + nexts,
        people,
    )


def test_pairs_that_can_be_told_apart_are_all_judged_right() -> None:
    rate = accuracy(separable(40))
    assert (rate.value, rate.low, rate.high) == (1.0, 1.0, 1.0)


def test_accuracy_is_the_mean_of_both_kinds_however_many_there_are_of_each() -> None:
    # 4 of 40 mated pairs are wrong, no non-mated one: 0.9 and 1.0
    rate = accuracy(separable(40, wrong=4))
    assert rate.value == pytest.approx(0.95)
    assert rate.low < 0.95 < rate.high


def test_a_photograph_without_a_face_counts_as_not_the_same_person() -> None:
    some = separable(40)
    some.scores[:4] = NOT_FOUND
    assert accuracy(some).value == pytest.approx(0.95)


def test_nobody_is_judged_by_a_threshold_that_saw_them() -> None:
    # every mated score is right only by a threshold below 0.2, which only person 0's own pairs suggest
    some = separable(40)
    some.scores[0], some.scores[40:] = 0.15, 0.1
    some.scores[40] = 0.14
    assert accuracy(some).value == pytest.approx(1 - 1 / 80)


def test_failure_to_acquire_is_the_share_of_photographs() -> None:
    rate = failure_to_acquire(np.array([1, 0, 0, 2]), np.array([10, 10, 10, 10]))
    assert rate.value == pytest.approx(0.075)
    assert rate.low < 0.075 < rate.high


def test_no_failure_among_so_many_people_still_leaves_a_doubt() -> None:
    rate = failure_to_acquire(np.zeros(2890, np.intp), np.full(2890, 2))
    assert (rate.value, rate.low) == (0.0, 0.0)
    assert rate.high == pytest.approx(0.001276, abs=1e-5)  # 1 - 0.025 ** (1 / 2890)
