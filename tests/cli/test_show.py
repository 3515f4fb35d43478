"""Numbers in plain words."""

import pytest

from service.cli.faces import _found_sentence
from service.cli.show import chance, one_in, plain


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (1.0, "1 in 1"),
        (0.5, "1 in 1"),
        (0.3, "1 in 3"),
        (0.01, "1 in 100"),
        (0.001, "1 in 1,000"),
        (1 / 1234, "1 in 1,200"),
        (1 / 99_900, "1 in 99,000"),
        (1 / 80e6, "1 in 80 million"),
        (1 / 1.29e6, "1 in 1.2 million"),
        (1.1e-9, "1 in 900 million"),
        (1e-12, "below 1 in 1 billion"),
        (0.0, "below 1 in 1 billion"),
    ],
)
def test_a_rate_is_never_shown_rarer_than_it_is(rate: float, words: str) -> None:
    assert one_in(rate) == words


def test_what_was_not_measured_is_marked() -> None:
    assert chance({"fmr": 1e-7, "extrapolated": True}) == "about 1 in 10 million"
    assert chance({"fmr": 1e-4, "extrapolated": False}) == "1 in 10,000"


def test_texts_from_outside_cannot_colour_or_move_the_terminal() -> None:
    assert plain("[red]\x1b[2Jx") == "\\[red]?[2Jx"


def test_a_score_of_the_pack_that_stands_by_is_compared_with_no_threshold() -> None:
    thresholds = {"review": 0.25, "expected_fnir": 0.01}
    of_ruling = {"subject_id": "S", "score": 0.4, "pack_id": None, "fmr": 1e-6, "extrapolated": False}

    assert "is at or above the threshold 0.250" in _found_sentence([of_ruling], thresholds, 10)
    of_standby = _found_sentence([of_ruling | {"pack_id": "opencv-zoo"}], thresholds, 10)
    assert "score 0.400 by opencv-zoo" in of_standby
    assert "threshold" not in of_standby
