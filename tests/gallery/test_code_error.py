"""How low the code of a candidate may be, and what the first audit of a segment counts."""

import numpy as np
import pytest

from service.gallery import sealing
from service.gallery.code_error import CodeError, CodeErrors
from service.gallery.sealing import seal
from tests.gallery.test_index_machine import unit_rows

EXACT = CodeError(1.0, 0.0, 0.0, 4.0)


def test_a_cutoff_lies_below_what_the_codes_show_of_the_threshold() -> None:
    error = CodeError(slope=0.8, own_deviation=0.02, other_deviation=0.03, sure=4.0)
    assert error.cutoff(0.0) == pytest.approx(-4 * 0.03)
    assert error.cutoff(1.0) == pytest.approx(0.8 - 4 * 0.02)
    assert error.cutoff(0.6) == pytest.approx(0.48 - 4 * np.hypot(0.012, 0.024))


def test_a_threshold_above_every_score_has_a_cutoff_too() -> None:
    error = CodeError(0.8, 0.02, 0.03, 4.0)
    assert error.cutoff(0.5) < error.cutoff(1.0) == error.cutoff(1.2)


@pytest.mark.parametrize("kind", ["coarse", "fine"])
@pytest.mark.parametrize("cosine", [0.3, 0.6, 0.9])
def test_codes_are_off_by_what_was_measured(kind: str, cosine: float) -> None:
    rng = np.random.default_rng(1)
    rows = unit_rows(6000, rng)
    segment = seal(np.arange(6000), rows)
    error: CodeError = getattr(segment.errors, kind)
    away = unit_rows(6000, rng)
    away -= np.sum(away * rows, axis=1, keepdims=True) * rows
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    probes = np.asarray(cosine * rows + np.sqrt(1 - cosine**2) * away, np.float32)
    decoded = (segment.fine if kind == "fine" else segment.codes).decoded(0, 6000)
    shown = np.sum(probes * decoded, axis=1)
    expected = np.hypot(cosine * error.own_deviation, np.sqrt(1 - cosine**2) * error.other_deviation)
    assert float(shown.mean()) == pytest.approx(error.slope * cosine, abs=0.01)
    assert float(shown.std()) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("kind", ["coarse", "fine"])
def test_the_first_audit_counts_what_a_cutoff_that_is_too_high_misses(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = unit_rows(3000, np.random.default_rng(1))
    good = seal(np.arange(3000), rows).tally
    assert good.pairs == 32 * 200
    assert good.missed <= 3
    cutoff = CodeError.cutoff

    def hasty(error: CodeError, threshold: float) -> float:
        is_fine = error.slope > 0.98
        return error.slope * threshold if is_fine == (kind == "fine") else cutoff(error, threshold)

    monkeypatch.setattr(CodeError, "cutoff", hasty)
    tally = seal(np.arange(3000), rows).tally
    assert tally.pairs == good.pairs
    assert 0.05 < tally.missed / tally.pairs < 0.6


def test_a_template_is_no_pair_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    segment = seal(np.arange(4), unit_rows(4, np.random.default_rng(1)))
    segment.errors = CodeErrors(EXACT, CodeError(0.0, 0.0, 0.0, 4.0), np.array([1]))
    scores = np.array([[1.0, 0.6, 0.5, 0.2]], np.float32)
    shown = np.array([[0.9, 0.1, 0.1, 0.1]], np.float32)
    monkeypatch.setattr(segment.fine, "scores", lambda _, pairs: np.ones(len(pairs.places), np.float32))
    tally = sealing._first_audit(segment, np.array([0]), scores, shown)
    assert (tally.pairs, tally.missed) == (3, 2)  # the odd one is always compared
