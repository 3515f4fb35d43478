"""How long a shortlist is asked for, and what the first audit of a segment counts."""

import numpy as np
import pytest

from service.gallery import code_error, sealing
from service.gallery.code_error import CodeError, lengths
from service.gallery.sealing import seal
from tests.gallery.test_index_machine import unit_rows

ERROR = CodeError(0.8, 0.02, 0.03, np.empty(0, np.int64), (0.5, 0.4, 0.3, 0.2, 0.1))


@pytest.mark.parametrize(
    ("threshold", "attempts"),
    [
        (0.9, [16, 128]),
        (0.7, [32, 256]),
        (0.55, [64, 256]),
        (0.4, [128, 256]),
        (0.3, [256]),
        (0.2, []),
        (-1.0, []),
    ],
)
def test_a_shortlist_is_as_long_as_the_threshold_asks(threshold: float, attempts: list[int]) -> None:
    assert ERROR.attempts(threshold) == attempts


@pytest.mark.parametrize(
    ("templates", "expected"), [(127, []), (128, [16]), (256, [16, 32]), (5000, [16, 32, 64, 128, 256, 512])]
)
def test_no_shortlist_is_longer_than_an_eighth_of_the_segment(templates: int, expected: list[int]) -> None:
    assert lengths(templates) == expected


def test_a_threshold_above_every_score_has_a_cutoff_too() -> None:
    assert ERROR.cutoff(0.5) < ERROR.cutoff(1.0) < ERROR.cutoff(1.2)


def test_the_first_shortlist_is_long_enough_for_most_probes() -> None:
    rows = unit_rows(6000, np.random.default_rng(1))
    segment = seal(np.arange(6000), rows)
    probes = unit_rows(200, np.random.default_rng(2))
    for threshold in (0.65, 0.75, 0.85):
        cutoff = segment.error.cutoff(threshold)
        attempts = segment.error.attempts(threshold)
        assert attempts, threshold
        approximate, _ = segment.codes.search(probes, attempts[0])
        assert float(np.mean(approximate[:, -1] < cutoff)) > 0.75


def test_the_first_audit_counts_what_a_cutoff_that_is_too_high_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit_rows(3000, np.random.default_rng(1))
    good = seal(np.arange(3000), rows).tally
    assert good.pairs == 32 * 200
    assert good.missed <= 3
    monkeypatch.setattr(code_error, "SURE_DEVIATIONS", 0.0)
    hasty = seal(np.arange(3000), rows).tally
    assert hasty.pairs == good.pairs
    assert 0.1 < hasty.missed / hasty.pairs < 0.6


def test_nine_probes_of_ten_end_lower() -> None:
    shown = np.repeat(np.linspace(0, 1, 11, dtype=np.float32)[:, np.newaxis], 128, axis=1)
    assert list(sealing._tails(shown)) == pytest.approx([0.9])


def test_a_template_is_no_pair_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_error, "SURE_DEVIATIONS", 0.0)
    error = CodeError(1.0, 0.0, 0.0, np.array([1]), ())
    scores = np.array([[1.0, 0.6, 0.5, 0.2]], np.float32)
    shown = np.array([[0.9, 0.1, 0.1, 0.1]], np.float32)
    tally = sealing._first_audit(error, np.array([0]), scores, shown)
    assert (tally.pairs, tally.missed) == (3, 2)  # the odd one is always compared
