"""Numbers in plain words."""

import pytest

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
