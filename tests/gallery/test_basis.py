"""A basis keeps scores, is the same after a start, and shares templates out evenly."""

import numpy as np
import pytest

from service.domain import Embeddings
from service.gallery.basis import Basis, Probes, group_of, packed, unpacked

COUNT = 4000


@pytest.fixture(params=[32, 256, 512])
def rows(request: pytest.FixtureRequest) -> Embeddings:
    """Templates with a few large directions and many small ones."""
    dimension: int = request.param
    rng = np.random.default_rng(1)
    spread = np.geomspace(3.0, 0.1, dimension) @ np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
    rows = rng.standard_normal((COUNT, dimension)) * np.abs(spread)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_axes_are_at_right_angles_and_hold_what_templates_are_made_of(rows: Embeddings) -> None:
    rotation = Basis.of(rows).rotation
    assert np.allclose(rotation @ rotation.T, np.eye(len(rotation)), atol=1e-4)
    assert len(rotation) == (32 if rows.shape[1] == 32 else rows.shape[1] * 3 // 4)
    kept = np.sum((rows @ rotation.T) ** 2, axis=1)
    assert float(kept.mean()) > 0.97


def test_no_group_of_axes_tells_much_more_than_another(rows: Embeddings) -> None:
    basis = Basis.of(rows)
    shares = np.mean(basis.rotated(rows) ** 2, axis=0).reshape(-1, group_of(basis.dimension)).sum(axis=1)
    sorted_axes = np.sort(np.mean(basis.rotated(rows) ** 2, axis=0)).reshape(-1, group_of(basis.dimension)).sum(axis=1)
    assert shares.max() / shares.mean() < 0.8 * sorted_axes.max() / sorted_axes.mean()


def test_one_probe_is_rotated_like_many(rows: Embeddings) -> None:
    basis = Basis.of(rows)
    assert np.allclose(
        np.concatenate([basis.rotated(row[np.newaxis]) for row in rows[:5]]), basis.rotated(rows[:5]), atol=1e-6
    )


def test_digits_stand_for_the_probe(rows: Embeddings) -> None:
    basis = Basis.of(rows)
    _, digits, units, shares = basis.prepared(rows[:50])
    whole = 16 * unpacked(digits[:, 0]).astype(np.float32) + unpacked(digits[:, 1])
    assert float(np.abs(whole * units[:, np.newaxis] - rows[:50] * basis.step).max()) <= 0.51 * float(units.max())
    assert np.allclose(shares, rows[:50] @ basis.zero, atol=1e-6)
    assert float(np.abs(whole).max()) == 119  # the range is used


def test_a_stored_basis_comes_back(rows: Embeddings) -> None:
    basis = Basis.of(rows)
    again = Basis.restored(basis.stored(), rows.shape[1])
    for name in ("rotation", "zero", "step"):
        assert np.array_equal(getattr(again, name), getattr(basis, name))


def test_signed_numbers_of_four_bits_survive_packing() -> None:
    levels = np.random.default_rng(1).integers(-8, 8, (100, 16)).astype(np.int8)
    assert np.array_equal(unpacked(packed(levels)), levels)


def test_probes_are_prepared_once_for_each_basis(rows: Embeddings) -> None:
    probes, one, other = Probes(rows[:3]), Basis.of(rows), Basis.of(rows[:2000])
    assert probes.prepared(one) is probes.prepared(one)
    assert probes.prepared(one) is not probes.prepared(other)
    assert not np.allclose(probes.prepared(one).shares, probes.prepared(other).shares, atol=1e-9)
