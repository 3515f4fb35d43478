"""What follows from the facts of a photograph."""

import numpy as np
import pytest

from service.evaluation.photographs import FaceSet, Photograph, gap_between, photograph_of, quality_of
from tests.evaluation.people import unusable


@pytest.mark.parametrize(
    ("birth_year", "band"),
    [("2026", "0 to 4"), ("2021", "5 to 11"), ("2014", "12 to 17"), ("2008", "18 to 39"), ("1966", "60 and over")],
)
def test_the_age_at_capture_follows_from_both_years(birth_year: str, band: str) -> None:
    facts = {"captured_at": "2026-03-01T10:00:00+00:00", "birth_year": birth_year}
    assert photograph_of("a.jpg", "anna", facts).groups == {"age at capture": band}


def test_what_is_not_known_makes_no_group() -> None:
    assert photograph_of("a.jpg", "anna", {"birth_year": "1990", "site": ""}).groups == {}
    shown = photograph_of("a.jpg", "anna", {"sex": "F", "operator_ref": "7"}, {"camera": "webcam"})
    assert shown.groups == {"sex": "F", "camera": "webcam"}


@pytest.mark.parametrize(
    ("later", "band"),
    [
        ("2020-12-01", "below 1"),
        ("2021-06-01", "1 to 2"),
        ("2024-02-01", "3 to 5"),
        ("2026-07-01T00:00:00Z", "6 and more"),
    ],
)
def test_years_between_two_captures(later: str, band: str) -> None:
    first, second = (photograph_of("a.jpg", "anna", {"captured_at": at}) for at in ("2020-01-15", later))
    assert gap_between(first, second) == gap_between(second, first) == band
    assert gap_between(first, photograph_of("b.jpg", "anna", {})) is None


@pytest.mark.parametrize(
    "facts",
    [
        {"captured_at": "yesterday"},
        {"captured_at": "2026-03-01", "birth_year": "old"},
        {"captured_at": "2026-03-01", "birth_year": "2027"},
    ],
)
def test_facts_that_cannot_be_read_are_refused(facts: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        photograph_of("a.jpg", "anna", facts)


def test_photographs_of_a_person_are_put_together() -> None:
    shown = [photograph_of(f"{number}.jpg", person, {}) for number, person in enumerate("baba")]
    faces = FaceSet.of([(one, np.full(2, number, np.float32)) for number, one in enumerate(shown)], [unusable("a")])
    assert faces.people == ["a", "a", "b", "b"]
    assert faces.embeddings[:, 0].tolist() == [1, 3, 0, 2]
    assert [each.name for each in faces.all_photographs] == ["1.jpg", "3.jpg", "0.jpg", "2.jpg", "a/bad.jpg"]


@pytest.mark.parametrize(
    ("one", "other", "band"),
    [(14, 90, "0 to 14"), (15, 15, "15 to 29"), (80, 30, "30 to 49"), (50, 100, "50 to 100"), (0, None, None)],
)
def test_the_poorer_of_two_photographs_gives_the_band(one: int, other: int | None, band: str | None) -> None:
    first, second = (Photograph(f"{score}.jpg", "anna", None, {}, score) for score in (one, other))
    assert quality_of(first, second) == quality_of(second, first) == band
