"""The curve behind calibration.json, against plain loops over people."""

import math

import numpy as np
import pytest
from scipy.stats import beta

from service.calibration import Calibration
from service.calibration_fit import MatedScores, Source, calibrate, mated_scores
from service.domain import Embeddings
from service.population import Population, false_match_rates, population_of


def people_of(sizes: list[int]) -> list[str]:
    return [f"person {number:03d}" for number, size in enumerate(sizes) for _ in range(size)]


def random_faces(sizes: list[int], dimension: int = 16, seed: int = 0) -> Embeddings:
    rng = np.random.default_rng(seed)
    persons = np.repeat(rng.normal(size=(len(sizes), dimension)), sizes, axis=0)
    faces = persons + 0.4 * rng.normal(size=persons.shape)
    return np.asarray(faces / np.linalg.norm(faces, axis=1, keepdims=True), np.float32)


def population(sizes: list[int], seed: int = 0) -> Population:
    return population_of(random_faces(sizes, seed=seed), people_of(sizes))


def by_loops(some: Population, score: float, weights: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """Mean over the pairs of people, each by the share of its pairs of photographs."""
    parts = np.split(some.embeddings, some.starts[1:])
    reached = total = 0.0
    for one in range(len(parts)):
        for other in range(one):
            weight = weights[one] * weights[other]
            reached += weight * float((parts[one] @ parts[other].T >= score).mean())
            total += weight
    return reached / total


def test_each_pair_of_people_counts_the_same_however_many_photographs_they_have() -> None:
    some = population([1, 5, 2, 1, 30, 3, 1, 2])
    rates = false_match_rates(some, np.array([-0.1, 0.2, 0.5]), np.ones((1, 8)))
    assert rates[0] == pytest.approx([by_loops(some, score, np.ones(8)) for score in (-0.1, 0.2, 0.5)], rel=1e-5)


def test_rare_scores_are_counted_as_exactly_as_common_ones() -> None:
    some = population([2] * 90)
    scores = np.array([0.0, 0.6, 0.75, 0.8])  # the last are reached by few pairs and take the other way of counting
    expected = [by_loops(some, score, np.ones(90)) for score in scores]
    assert 0 < expected[2] < 0.005
    assert false_match_rates(some, scores, np.ones((1, 90)))[0] == pytest.approx(expected, rel=1e-5)


def test_a_person_drawn_twice_counts_twice_but_is_never_compared_with_itself() -> None:
    some = population([2, 1, 3, 2])
    weights = np.array([[2.0, 0.0, 1.0, 1.0]])
    expected = by_loops(some, 0.1, weights[0])
    # drawing somebody twice adds no pair to the numerator, and the two draws are no pair of people
    assert false_match_rates(some, np.array([0.1]), weights)[0, 0] == pytest.approx(expected, rel=1e-5)


def test_comparisons_are_the_pairs_of_photographs_of_different_people() -> None:
    assert population([1, 2, 3]).comparisons == 1 * 2 + 1 * 3 + 2 * 3


def test_people_beyond_one_block_are_all_compared() -> None:
    some = population([7] * 150)
    weights = np.arange(150, dtype=np.float64)[None]
    scores = np.array([0.3, 0.8])  # a common and a rare one
    expected = [by_loops(some, score, weights[0]) for score in scores]
    assert false_match_rates(some, scores, weights)[0] == pytest.approx(expected, rel=1e-5)


def test_scattered_photographs_of_a_person_are_refused() -> None:
    with pytest.raises(ValueError, match="stand together"):
        population_of(random_faces([1, 1, 1]), ["ada", "ben", "ada"])


SOURCE = Source("synthetic", "synthetic-1", "photographs", "synthetic people")
MATED = MatedScores(np.linspace(0.9, 0.6, 500), 500, "synthetic people")


def true_fmr(score: float, dimension: int = 64) -> float:
    """Return how often random directions score this high: (cosine + 1) / 2 follows Beta((d - 1) / 2, (d - 1) / 2)."""
    return float(beta.sf((score + 1) / 2, (dimension - 1) / 2, (dimension - 1) / 2))


@pytest.fixture(scope="module")
def fitted() -> Calibration:
    sizes = [1, 2] * 200
    return calibrate(SOURCE, population_of(random_faces(sizes, 64), people_of(sizes)), MATED)


def test_the_curve_runs_from_nearly_everyone_to_the_highest_score(fitted: Calibration) -> None:
    assert fitted.log10_fmr[0] == pytest.approx(np.log10(0.999), abs=1e-3)
    assert fitted.scores[-1] == 1.0
    assert len(fitted.scores) <= 120
    assert (fitted.people, fitted.comparisons) == (400, (600**2 - 200 * 5) // 2)


def test_common_scores_have_the_rates_of_their_known_distribution(fitted: Calibration) -> None:
    for score in (-0.1, 0.0, 0.1, 0.2, 0.3):
        assert fitted.false_match_rate(score).fmr == pytest.approx(true_fmr(score), rel=0.05)


def test_rates_far_beyond_the_data_are_right_within_their_bounds(fitted: Calibration) -> None:
    assert fitted.measured_to < fitted.threshold(1e-5)  # 79,800 pairs of people
    for claimed in (1e-5, 1e-6, 1e-7):
        threshold = fitted.threshold(claimed)
        found = fitted.false_match_rate(threshold)
        assert fitted.fmr_lower(threshold) <= true_fmr(threshold) <= found.fmr_upper
        assert claimed / 5 <= true_fmr(threshold) <= claimed * 3


def test_the_less_was_measured_the_wider_the_bounds(fitted: Calibration) -> None:
    widths = [
        math.log10(rate.fmr_upper / rate.fmr) for rate in map(fitted.false_match_rate, (0.2, 0.35, 0.45, 0.55, 0.65))
    ]
    assert widths == sorted(widths)


def test_people_under_two_names_are_told_apart_from_strangers_who_look_alike() -> None:
    rng = np.random.default_rng(4)
    faces = random_faces([1] * 400, 64)
    again = faces[:8] + 0.07 * rng.normal(size=(8, 64))  # two in a hundred are enrolled twice
    rows = np.vstack([faces, again / np.linalg.norm(again, axis=1, keepdims=True)]).astype(np.float32)
    once, twice = (calibrate(SOURCE, population_of(some, people_of([1] * len(some))), MATED) for some in (faces, rows))
    assert twice.found_mates == pytest.approx(8, abs=2)
    assert once.found_mates < 1
    for fmr in (1e-4, 1e-5, 1e-6):
        assert twice.threshold(fmr) == pytest.approx(once.threshold(fmr), abs=0.03)


def test_too_few_people_are_refused() -> None:
    with pytest.raises(ValueError, match="100 people or more, not 20"):
        calibrate(SOURCE, population([2] * 20), MATED)


def test_scores_that_tell_nobody_apart_are_refused() -> None:
    everyone = np.tile(random_faces([1], 16), (120, 1))
    with pytest.raises(ValueError, match="tell nobody apart"):
        calibrate(SOURCE, population_of(everyone, people_of([1] * 120)), MATED)


def test_mated_scores_count_each_person_once_however_many_photographs_they_have() -> None:
    assert mated_scores(population([2] * 49 + [1] * 100), "too few") is None
    found = mated_scores(population([2] * 50 + [30]), "enough")
    assert found is not None
    assert (found.people, len(found.scores), found.population) == (51, 51 * 9, "enough")
    pair = population([2] * 50 + [30]).embeddings[:2]
    assert found.scores[:9] == pytest.approx([float(pair[0] @ pair[1])] * 9)


def test_mated_scores_are_kept_as_sorted_quantiles(fitted: Calibration) -> None:
    assert len(fitted.mated_scores) == 201
    assert (fitted.mated_scores[0], fitted.mated_scores[100], fitted.mated_scores[-1]) == (0.6, 0.75, 0.9)
    again = MatedScores.of(fitted)
    assert (again.people, again.population) == (500, "synthetic people")


def test_the_same_photographs_give_the_same_calibration() -> None:
    sizes = [1, 2] * 60
    faces, people = random_faces(sizes, 64), people_of(sizes)
    once, again = (calibrate(SOURCE, population_of(faces, people), MATED) for _ in range(2))
    assert once == again
