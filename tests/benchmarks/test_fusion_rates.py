"""The rates of several samples, on made-up people whose samples spread as asked for."""

import numpy as np
import pytest

from benchmarks import fusion
from benchmarks.embeddings import FaceSet
from benchmarks.fusion_rates import (
    DRAWS,
    RULES,
    SERVICE,
    at_calibrated,
    draws,
    false_matches,
    fnir_at_fpir,
    measured,
    weights_of,
)
from service.domain import Embeddings
from service.population import Population
from tests.synthetic import calibration

SIZES = [4] * 60 + [1] * 40


def unit(rows: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Embeddings:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def people(spread: float, dimension: int = 64) -> Population:
    rng = np.random.default_rng(4)
    faces = np.repeat(rng.normal(size=(len(SIZES), dimension)), SIZES, axis=0)
    starts = np.cumsum([0, *SIZES[:-1]])
    return Population(unit(faces + spread * rng.normal(size=faces.shape)), starts)


def test_people_who_look_alike_on_all_photographs_are_all_found() -> None:
    population = people(0.1)
    found = draws(population, 2, 1, calibration(), mixed=False)
    assert len(found) == DRAWS
    assert (found[0].people, found[0].templates, found[0].several) == (100, 100, 0)
    assert len(found[0].mated) == len(found[0].searched) == 60
    for rule in RULES:
        assert measured(fnir_at_fpir(found, rule, 0.01, weights_of(population))).value == 0
        assert max(each.tops[rule].max() for each in found) < 0.9  # nobody is compared with their own references


def test_two_samples_together_miss_fewer_than_the_best_pair_and_that_fewer_than_one() -> None:
    population = people(1.4)
    weights = weights_of(population)
    for probes, references in ((2, 1), (1, 2), (2, 2)):
        found = draws(population, probes, references, calibration(), mixed=False)
        one, pair, fused = (measured(fnir_at_fpir(found, rule, 0.03, weights)) for rule in ("one", "pair", SERVICE))
        assert fused.value < pair.value < one.value
        assert fused.low <= fused.value <= fused.high


def test_a_search_whose_probes_are_not_fused_has_a_threshold_of_its_own() -> None:
    population = people(0.1, dimension=1024)
    found = draws(population, 2, 1, calibration(), mixed=True)
    assert not any(each.is_fused.any() for each in found)
    _, missed = at_calibrated(found, SERVICE, (0.5, 2.0), weights_of(population))
    assert missed[0] == 0
    _, missed = at_calibrated(found, SERVICE, (2.0, 0.5), weights_of(population))
    assert missed[0] == 1


def test_the_false_matches_of_pairs_are_about_as_many_as_the_pairs() -> None:
    population = people(1.4, dimension=16)
    found = draws(population, 2, 1, calibration(), mixed=False)
    (_, times), *_ = false_matches(found, "pair", weights_of(population))
    assert 1.5 < times[0] <= 2
    (_, times), *_ = false_matches(found, "one", weights_of(population))
    assert times[0] == 1


def test_the_halves_share_nobody_and_leave_out_second_names() -> None:
    population = people(0.1)
    rows = np.vstack([population.embeddings, population.embeddings[:1]])  # the first person again, as `twin`
    names = [f"p{number:03}" for number in population.person_of_row] + ["twin"]
    faces = FaceSet(rows, {f"{name}/{place}.jpg": place for place, name in enumerate(names)}, {})
    halves = [fusion.half_of(faces, half, calibration()) for half in fusion.HALVES]
    assert sum(half.people for half in halves) == 100
    assert halves[0].people == pytest.approx(50, abs=1)
    assert float((halves[0].embeddings @ halves[1].embeddings.T).max()) < 0.9
