"""Byte codes never rule out a row that reaches the threshold, and rule out nearly all others."""

import numpy as np
import pytest

from service.domain import Embeddings
from service.gallery.byte_codes import ByteCodes

COUNT = 3000


@pytest.fixture(params=[2, 128, 512])
def rows(request: pytest.FixtureRequest) -> Embeddings:
    rows = np.random.default_rng(1).standard_normal((COUNT, request.param), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_no_row_that_reaches_the_threshold_is_ruled_out(rows: Embeddings) -> None:
    coded = ByteCodes.of(rows)
    for probe in rows[:20]:
        scores = rows @ probe
        for threshold in (*scores[30:60], -1.0, 0.0, 1.0):  # also thresholds that a row just reaches
            assert np.isin(np.flatnonzero(scores >= threshold), coded.within_reach(probe[None], threshold)).all()


def test_what_is_further_away_than_the_rounding_is_ruled_out() -> None:
    rows = np.random.default_rng(2).standard_normal((COUNT, 512), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    coded = ByteCodes.of(rows)
    for probe in rows[:20]:
        near = np.flatnonzero(rows @ probe >= 0.1 - 0.04)
        assert np.isin(coded.within_reach(probe[None], 0.1), near).all()


def test_the_bounds_hold_for_rows_of_any_length(rows: Embeddings) -> None:
    lengths = np.random.default_rng(3).uniform(0.01, 5, (COUNT, 1)).astype(np.float32)
    coded, probe = ByteCodes.of(rows * lengths), 3 * rows[7:8]
    scores = (rows * lengths) @ probe[0]
    for threshold in scores[:50]:
        assert np.isin(np.flatnonzero(scores >= threshold), coded.within_reach(probe, threshold)).all()


def test_codes_beside_others_keep_the_wider_bounds() -> None:
    fine, coarse = (ByteCodes.of(np.array(rows, np.float32)) for rows in ([[1.0, 1.0]], [[1.0, 0.5039]]))
    assert fine.error < coarse.error
    assert fine.also_for(coarse).error == coarse.also_for(fine).error == coarse.error
    assert fine.also_for(coarse).length == coarse.also_for(fine).length == fine.length


def test_nothing_but_zeros_can_be_coded() -> None:
    coded = ByteCodes.of(np.zeros((2, 128), np.float32))
    probe = np.full((1, 128), 128**-0.5, np.float32)
    assert coded.within_reach(probe, 0.0).tolist() == [0, 1]
    assert coded.within_reach(probe, 0.1).tolist() == []
    assert ByteCodes.of(probe).within_reach(np.zeros((1, 128), np.float32), 0.1).tolist() == []
