"""The curve behind calibration.json, against plain loops over people."""

import numpy as np
import pytest

from benchmarks.calibration_fit import calibrate, calibration_json
from service.calibration import Calibration
from service.domain import Embeddings
from service.evaluation.population import Population, false_match_rates, population_of


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


def test_too_few_people_are_refused() -> None:
    with pytest.raises(ValueError, match="500 people or more, not 20"):
        calibrate("x", "y", population([2] * 20), np.array([0.5]))


def test_scattered_photographs_of_a_person_are_refused() -> None:
    with pytest.raises(ValueError, match="stand together"):
        population_of(random_faces([1, 1, 1]), ["ada", "ben", "ada"])


@pytest.fixture(scope="module")
def fitted() -> Calibration:
    sizes = [1, 2] * 500
    return calibrate(
        "synthetic",
        "synthetic people",
        population_of(random_faces(sizes, 64), people_of(sizes)),
        np.linspace(0.9, 0.2, 500),
    )


def test_the_curve_runs_from_nearly_everyone_to_one_in_a_hundred_thousand(fitted: Calibration) -> None:
    assert fitted.log10_fmr[0] == pytest.approx(np.log10(0.999), abs=1e-4)
    assert fitted.log10_fmr[-1] == pytest.approx(-5, abs=0.15)
    assert len(fitted.scores) <= 60
    assert (fitted.people, fitted.comparisons) == (1000, (1500**2 - 500 * 5) // 2)


def test_thresholds_of_random_vectors_are_those_of_their_known_distribution(fitted: Calibration) -> None:
    # directions are uniform on the sphere, so (cosine + 1) / 2 follows Beta(31.5, 31.5): 99.9 % lie below 0.3785
    assert fitted.threshold(1e-3) == pytest.approx(0.3785, abs=0.005)


def test_the_tail_runs_along_the_measured_curve_with_a_bound_above_it(fitted: Calibration) -> None:
    for score, log10_fmr, upper in zip(
        fitted.scores[-20:], fitted.log10_fmr[-20:], fitted.log10_fmr_upper[-20:], strict=True
    ):
        assert fitted.tail.log10_fmr(score) == pytest.approx(log10_fmr, abs=0.2)
        assert upper > log10_fmr
        assert fitted.tail.log10_fmr_upper(score) > fitted.tail.log10_fmr(score)


def test_mated_scores_are_kept_as_sorted_quantiles(fitted: Calibration) -> None:
    assert len(fitted.mated_scores) == 201
    assert (fitted.mated_scores[0], fitted.mated_scores[100], fitted.mated_scores[-1]) == (0.2, 0.55, 0.9)


def test_the_file_gives_the_same_calibration_again(fitted: Calibration) -> None:
    text = calibration_json(fitted)
    assert Calibration.from_json(text) == fitted
    assert len(text.splitlines()) == 11


def test_the_same_photographs_give_the_same_calibration() -> None:
    sizes = [1, 2] * 250
    faces, people = random_faces(sizes), people_of(sizes)
    once, again = (calibrate("x", "y", population_of(faces, people), np.array([0.5])) for _ in range(2))
    assert once == again
