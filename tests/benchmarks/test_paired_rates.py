"""Two pipelines on the same people: rates of small arrays whose answers are known."""

import numpy as np
import pytest

from benchmarks.paired_rates import Drawn, draw, fnir, paired_ratio


def drawn(tops: list[float], own: list[float], draws: int = 1) -> Drawn:
    """The first people have the own scores; every draw is the same."""
    return Drawn(np.tile(tops, (draws, 1)), np.tile(own, (draws, 1)), np.arange(len(own)))


def test_the_threshold_lies_above_the_first_false_alarm_that_is_not_allowed() -> None:
    hundred = [number / 100 for number in range(100)]
    assert fnir(drawn(hundred, [0.5, 0.98, 0.985, 0.99]), 0.01) == 0.5  # 0.98 may not be reached
    assert fnir(drawn(hundred, [0.5, 0.98, 0.985, 0.99]), 0.02) == 0.25
    assert fnir(drawn(hundred, [0.5, 0.98, 0.985, 0.99]), 0.6) == 0.0


def test_the_rate_is_the_mean_over_the_draws() -> None:
    tops = np.zeros((2, 100))
    assert fnir(Drawn(tops, np.array([[0.5, -0.5], [0.5, 0.5]]), np.array([0, 1])), 0.01) == 0.25


def test_a_draw_searches_each_person_among_all_others() -> None:
    embeddings = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 1], [0.6, 0, 0.8]], np.float32)
    found = draw(embeddings, ["anna", "anna", "ben", "carl"], draws=20)
    assert found.mated.tolist() == [0]
    assert found.own == pytest.approx(np.full((20, 1), 0.8))
    assert found.tops[:, 1] == pytest.approx(0.8)  # ben's best is carl
    assert set(found.tops[:, 0].round(2).tolist()) == {0.6, 0.48}  # one photograph of anna's or the other
    assert found.tops.max() < 0.9  # nobody is compared with the own photograph


def test_the_same_seed_draws_the_same_photographs() -> None:
    embeddings = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    people = [f"p{number // 3}" for number in range(30)]
    one, other, third = draw(embeddings, people), draw(embeddings, people), draw(embeddings, people, seed=1)
    assert np.array_equal(one.tops, other.tops)
    assert not np.array_equal(one.tops, third.tops)


def test_a_pipeline_beside_itself_has_a_ratio_of_one_without_doubt() -> None:
    rng = np.random.default_rng(3)
    both = drawn(rng.normal(0, 0.1, 400).tolist(), rng.normal(0.4, 0.15, 200).tolist())
    ratio = paired_ratio(both, both, 0.01)
    assert (ratio.value, ratio.low, ratio.high) == (1.0, 1.0, 1.0)


def test_half_the_misses_are_a_ratio_of_a_half_with_an_interval_around_it() -> None:
    tops = [0.0] * 400
    one = drawn(tops, [-1.0] * 20 + [1.0] * 180)
    other = drawn(tops, [-1.0] * 40 + [1.0] * 160)
    ratio = paired_ratio(one, other, 0.01)
    assert ratio.value == 0.5
    assert 0.3 < ratio.low < 0.4
    assert 0.6 < ratio.high < 0.7


def test_other_people_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same people"):
        paired_ratio(drawn([0.0] * 4, [1.0]), drawn([0.0] * 5, [1.0]), 0.01)
    with pytest.raises(ValueError, match="misses nobody"):
        paired_ratio(drawn([0.0] * 4, [1.0]), drawn([0.0] * 4, [1.0]), 0.01)
