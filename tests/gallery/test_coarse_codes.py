"""The scan of the coarse codes leaves out nothing from its cutoff on, whatever the gallery and the number of probes."""

import numpy as np
import pytest

from service.domain import Embeddings
from service.gallery.basis import Basis, Probes
from service.gallery.coarse_codes import PROBES_A_PASS, CoarseCodes
from service.gallery.rows import Pairs
from tests.gallery.test_index_machine import unit_rows

COUNT, DIMENSION = 3000, 32


@pytest.fixture(scope="module", params=["different", "alike"])
def rows(request: pytest.FixtureRequest) -> Embeddings:
    rng = np.random.default_rng(1)
    spread = 1.0 if request.param == "different" else 0.05  # about one and the same vector
    rows = spread * unit_rows(COUNT, rng) + unit_rows(1, rng)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def codes(rows: Embeddings) -> CoarseCodes:
    return CoarseCodes.of(Basis.of(rows), rows, rows)


def found_by(codes: CoarseCodes, probes: Embeddings, cutoff: float) -> Pairs:
    look = codes.look(Probes(probes), cutoff)
    look.run()
    pairs = look.pairs()
    assert len(look) == len(pairs.probes) == len(pairs.places)
    assert np.count_nonzero(np.diff(pairs.probes)) == max(len(set(pairs.probes.tolist())) - 1, 0)  # side by side
    return pairs


@pytest.mark.parametrize("cutoff", [-9.0, -1.0, -0.3, 0.0, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("probes", [1, 3, PROBES_A_PASS, 41])
def test_everything_down_to_the_cutoff_comes_back(
    codes: CoarseCodes, rows: Embeddings, cutoff: float, probes: int
) -> None:
    wanted = np.concatenate([rows[: probes // 2], unit_rows(probes - probes // 2, np.random.default_rng(3))])
    scores = codes.all_scores(wanted)
    numbers, places = found_by(codes, wanted, cutoff)
    found = np.zeros(scores.shape, np.bool_)
    found[numbers, places] = True
    assert np.count_nonzero(found) == len(numbers)  # none twice
    assert found[scores >= cutoff + 1e-4].all()
    beside = np.count_nonzero(found & (scores < cutoff - 1e-4), axis=1)
    assert set(beside[scores.mean(axis=1) < cutoff - 0.05]) <= {0}  # all templates only where the most are wanted


def test_stored_codes_come_back(codes: CoarseCodes, rows: Embeddings) -> None:
    again = CoarseCodes.restored(codes.basis, codes.stored())
    assert np.array_equal(again.all_scores(rows[:5]), codes.all_scores(rows[:5]))
    assert (len(again), again.nbytes) == (COUNT, COUNT * (DIMENSION // 4 + 8))


@pytest.mark.parametrize("dimension", [128, 512])
def test_codes_of_the_packs_dimensions_show_the_most_similar(dimension: int) -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((2000, dimension), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    codes = CoarseCodes.of(Basis.of(rows), rows, rows)
    assert np.array_equal(codes.all_scores(rows[:50]).argmax(axis=1), np.arange(50))
    assert codes.decoded(10, 30).shape == (20, dimension)


def test_few_templates_are_coded_without_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    rows = unit_rows(1, np.random.default_rng(1))
    codes = CoarseCodes.of(Basis.of(rows), rows, rows)
    numbers, places = found_by(codes, rows, 0.5)
    assert (numbers.tolist(), places.tolist()) == ([0], [0])
    assert capfd.readouterr().err == ""
