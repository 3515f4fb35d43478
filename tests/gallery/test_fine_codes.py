"""Fine codes tell scores closely, survive being stored, and can be overwritten."""

import math

import numpy as np
import pytest

from service.domain import Embeddings
from service.gallery.basis import Basis, Probes
from service.gallery.fine_codes import FineCodes
from service.gallery.rows import Pairs

COUNT = 5000


@pytest.fixture(params=[32, 512])
def rows(request: pytest.FixtureRequest) -> Embeddings:
    rows = np.random.default_rng(1).standard_normal((COUNT, request.param), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_a_score_is_off_by_an_eighth_of_a_step_deviation(rows: Embeddings) -> None:
    codes, dimension = FineCodes.of(Basis.of(rows[:1000]), rows), rows.shape[1]
    rng = np.random.default_rng(2)
    probes = rows[:20]
    pairs = Pairs(rng.integers(0, 20, 3000), rng.integers(20, COUNT, 3000))
    true = np.sum(probes[pairs.probes] * rows[pairs.places], axis=1)
    off = codes.scores(Probes(probes), pairs) - true
    assert float(off.std()) == pytest.approx(_noise(dimension), rel=0.15)
    assert abs(float(off.mean())) < 0.002


def test_all_ways_to_compare_agree(rows: Embeddings) -> None:
    codes, probes = FineCodes.of(Basis.of(rows), rows), rows[:7]
    whole = codes.all_scores(probes)
    assert np.allclose(whole, probes @ codes.decoded(0, COUNT).T, atol=1e-5)
    numbers, places = (each.ravel() for each in np.indices((7, COUNT)))
    off = codes.scores(Probes(probes), Pairs(numbers, places)) - whole.ravel()
    assert float(off.std()) < 0.1 * _noise(rows.shape[1])  # the probe is rounded to whole numbers
    assert float(np.abs(off).max()) < _noise(rows.shape[1])
    assert codes.scores(Probes(probes), Pairs(numbers[:0], places[:0])).shape == (0,)


def test_stored_codes_come_back_wherever_they_lie(rows: Embeddings) -> None:
    basis, dimension = Basis.of(rows), rows.shape[1]
    codes = FineCodes.of(basis, rows)
    data = np.concatenate([np.zeros(3, np.uint8), codes.stored()])
    again = FineCodes.restored(basis, data[3:])
    assert np.array_equal(again.decoded(0, COUNT), codes.decoded(0, COUNT))
    assert again.nbytes == codes.nbytes == COUNT * dimension // 2


def test_erased_codes_show_nothing_of_their_templates(rows: Embeddings) -> None:
    codes = FineCodes.of(Basis.of(rows), rows)
    before = codes.decoded(0, COUNT)
    codes.erase(np.array([5, 77]))
    after = codes.decoded(0, COUNT)
    assert np.array_equal(after[5], after[77])
    kept = np.delete(np.arange(COUNT), [5, 77])
    assert np.array_equal(before[kept], after[kept])


def test_a_dimension_in_which_all_are_alike_is_coded_too() -> None:
    rows = np.random.default_rng(1).standard_normal((300, 8), dtype=np.float32)
    rows[:, 3] = 0.25
    decoded = FineCodes.of(Basis.of(rows), rows).decoded(0, 300)
    assert np.allclose(decoded[:, 3], 0.25, atol=1e-4)
    assert float(np.abs(decoded - rows).mean()) < 0.2


def _noise(dimension: int) -> float:
    """Return the standard deviation of sixteen levels of 0.42 standard deviations: 0.42 / sqrt(12) a component."""
    return 0.42 / math.sqrt(12 * dimension)
