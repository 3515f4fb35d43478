"""Searches of made-up galleries, against plain loops."""

import numpy as np
import pytest

from service.evaluation.figures import Figure
from service.evaluation.searches import Split, _missed, _threshold, gallery_sizes, rates, searches
from service.population import Population, population_of
from tests.evaluation.people import embeddings
from tests.synthetic import calibration


def population(sizes: list[int], spread: float = 0.5) -> Population:
    people = [f"{person:04d}" for person, size in enumerate(sizes) for _ in range(size)]
    return population_of(embeddings(sizes, spread=spread), people)


def test_sizes_are_round_and_end_with_half_of_the_people() -> None:
    assert gallery_sizes(2890) == [100, 300, 1000, 1445]
    assert gallery_sizes(150) == [75]
    assert gallery_sizes(2000) == [100, 300, 1000]


def test_nobody_is_searched_among_those_they_do_not_belong_to() -> None:
    some = population([1, 2, 3] * 40)
    for split in searches(some, 40):
        assert not set(split.mated.tolist()) & set(split.non_mated.tolist())
        assert len(split.non_mated) == 60
        assert (some.sizes[split.mated] > 1).all()
        assert len(split.mated) == len(set(split.mated.tolist()))


def test_own_scores_and_ranks_are_those_of_another_photograph() -> None:
    some = population([2] * 60, spread=1.2)
    rows = some.embeddings
    for split in searches(some, 30):
        for person, own in zip(split.mated, split.own_scores, strict=True):
            assert own == pytest.approx(float(rows[2 * person] @ rows[2 * person + 1]), abs=1e-6)
        assert (split.own_ranks >= 1).all()
        assert split.own_ranks.max() <= 30
    ranks = np.concatenate([split.own_ranks for split in searches(some, 30)])
    assert 1 < ranks.mean() < 15  # the right one mostly comes first, not always
    assert (ranks == 1).mean() > 0.5


def test_the_threshold_lets_no_more_than_the_wanted_share_through() -> None:
    split = Split(
        mated=np.array([], np.intp),
        own_scores=np.array([]),
        own_ranks=np.array([], np.intp),
        non_mated=np.arange(10),
        tops=np.array([0.1, 0.9, 0.3, 0.2, 0.5, 0.4, 0.8, 0.7, 0.6, 0.0]),
    )
    weights = np.ones((3, 10))
    weights[1, 1] = 3  # who scores 0.9 was drawn three times
    weights[2, [1, 6]] = 0  # and here neither 0.9 nor 0.8
    thresholds = _threshold(split, weights, 0.2)
    for weight, threshold in zip(weights, thresholds, strict=True):
        assert weight[split.tops >= threshold].sum() <= 0.2 * weight.sum() + 1e-9
        lower = np.nextafter(threshold, -np.inf)
        assert weight[split.tops >= lower].sum() > 0.2 * weight.sum()
    assert thresholds[0] == pytest.approx(0.7)
    assert thresholds[1] == pytest.approx(0.9)
    assert thresholds[2] == pytest.approx(0.6)


def one(figures: list[Figure], **wanted: object) -> Figure:
    (found,) = (each for each in figures if all(getattr(each, name) == value for name, value in wanted.items()))
    return found


def test_misses_are_counted_at_the_threshold_of_the_fpir() -> None:
    some = population([2] * 240, spread=1.0)
    figures = rates(some, 100, None)
    found = one(figures, measure="fnir", target=0.1, rank=None)
    by_hand = []
    for split in searches(some, 100):
        allowed = np.sort(split.tops)[::-1][int(0.1 * len(split.tops))]  # the first that is one too many
        by_hand.append((split.own_scores <= allowed).mean())
    assert found.value == pytest.approx(np.mean(by_hand))
    assert found.low < found.value < found.high
    assert (found.trials, found.gallery_size, found.chosen_by) == (1000, 100, "here")
    first = one(figures, measure="fnir", target=0.1, rank=1)
    assert first.value >= found.value
    stricter = one(figures, measure="fnir", target=0.03, rank=None)
    assert stricter.value > found.value


def test_the_promise_of_a_calibration_is_tested() -> None:
    some, claimed = population([2] * 240, spread=0.5), calibration()
    figures = rates(some, 100, claimed)
    found = one(figures, measure="fpir", target=0.1)
    assert found.threshold is not None
    flagged = np.concatenate([split.tops >= found.threshold for split in searches(some, 100)])
    assert found.value == pytest.approx(flagged.mean())
    assert found.chosen_by == "calibration"
    assert found.trials == 1200
    missed = one(figures, measure="fnir", target=0.1, rank=None, chosen_by="calibration")
    own = np.concatenate([split.own_scores < found.threshold for split in searches(some, 100)])
    assert missed.value == pytest.approx(own.mean())


def test_intervals_cover_the_truth() -> None:
    # people of one kind: the rate of very many is the truth that samples of 120 should cover nineteen times of twenty
    truth = one(rates(population([2] * 3000, spread=1.1), 50, None), measure="fnir", target=0.1, rank=None).value
    covered = 0
    for seed in range(40):
        sample = population_of(
            embeddings([2] * 120, seed=100 + seed, spread=1.1), sorted([f"{n:03d}" for n in range(120)] * 2)
        )
        found = one(rates(sample, 50, None, seed), measure="fnir", target=0.1, rank=None)
        covered += found.low <= truth <= found.high
    assert covered >= 34


def test_too_few_searches_give_no_threshold_of_a_small_fpir() -> None:
    figures = rates(population([2] * 100), 40, None)
    assert {each.target for each in figures} == {0.1, 0.03}


def test_the_right_one_in_second_place_is_missed_where_only_the_first_is_looked_at() -> None:
    split = Split(
        mated=np.arange(4),
        own_scores=np.array([0.9, 0.8, 0.5, 0.1]),
        own_ranks=np.array([1, 2, 1, 1]),
        non_mated=np.arange(4, 8),
        tops=np.array([0.3, 0.2, 0.1, 0.0]),
    )
    facts = {"target": 0.1, "gallery_size": 4, "threshold": 0.5, "chosen_by": "here"}
    weights = np.ones((3, 8))
    any_rank, first = _missed([split], weights, [np.full(3, 0.5)], facts)
    assert (any_rank.rank, any_rank.value) == (None, 0.25)  # 0.5 reaches the threshold
    assert (first.rank, first.value) == (1, 0.5)
