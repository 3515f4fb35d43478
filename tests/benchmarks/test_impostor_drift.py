"""The scatter of drift where nothing drifts: larger where some people are like many others."""

import numpy as np

from benchmarks.impostor_drift import ratios
from service.domain import Embeddings


def people(spread: float) -> Embeddings:
    """600 random people; with `spread` each is more or less like everybody else."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(600, 64))
    rows[:, 0] += rng.uniform(0, spread, 600)
    unit: Embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def deviation(spread: float) -> float:
    return float(ratios(people(spread), 0.01, 100, 100, np.random.default_rng(2)).std())


def test_random_people_scatter_like_independent_comparisons_around_one() -> None:
    found = ratios(people(0), 0.01, 100, 100, np.random.default_rng(2))
    assert abs(found.mean() - 1) < 0.03
    assert 0.7 < found.std() / np.sqrt(99 / (100 * 256)) < 1.3


def test_people_who_are_like_many_others_make_it_scatter_more() -> None:
    assert deviation(6) > 1.5 * deviation(0)
