"""Ages: no DUPLICATE for a child, years between captures, and when somebody is to be captured anew."""

from datetime import UTC, datetime, timedelta

import pytest

from service.ages import RecaptureAdvice, age_at_capture, least_age, years_between
from service.domain import CaptureFacts, EncounterFacts, OutcomeKind
from service.galleries import GalleryChange
from tests.synthetic import sample_of
from tests.world import GALLERY, START, World


def at(year: int, month: int = 1) -> datetime:
    return datetime(year, month, 1, tzinfo=UTC)


def facts(birth_year: int | None, captured_at: datetime | None = START) -> EncounterFacts:
    return EncounterFacts(birth_year=birth_year, captured_at=captured_at)


def born_at_age(age: int) -> int:
    """The year of birth of somebody who is surely of this age at START."""
    return START.year - age - 1


@pytest.fixture
def world() -> World:
    return World()


def test_an_age_needs_both_years() -> None:
    assert age_at_capture(CaptureFacts(None, 2020, at(2026))) == 6
    assert age_at_capture(CaptureFacts(None, None, at(2026))) is None
    assert age_at_capture(CaptureFacts(None, 2020, None, at(2026))) is None


def test_the_least_age_is_a_year_less_and_falls_back_on_the_enrolment() -> None:
    assert least_age(CaptureFacts(None, 2020, at(2026, 12))) == 5
    assert least_age(CaptureFacts(None, 2020, None, at(2030))) == 9
    assert least_age(CaptureFacts(None, 2020)) is None
    assert least_age(CaptureFacts(None, 2026, at(2026))) == 0


def test_years_between_two_captures() -> None:
    early, late = CaptureFacts(captured_at=at(2020)), CaptureFacts(captured_at=at(2026, 7))
    assert years_between(early, late) == years_between(late, early) == 6.5
    assert years_between(early, CaptureFacts(recorded_at=at(2026))) is None


@pytest.mark.parametrize(("age", "years"), [(0, 1), (4, 1), (5, 2), (15, 2), (16, 10), (None, 10)])
def test_the_younger_the_sooner_anew(age: int | None, years: int) -> None:
    birth_year = None if age is None else 2026 - age - 1
    due = RecaptureAdvice().due(CaptureFacts(None, birth_year, at(2026)))
    assert due is not None
    assert (due - at(2026)) / timedelta(days=365.2425) == pytest.approx(years)


def test_nobody_is_due_of_whom_nobody_says_when_they_were_captured() -> None:
    assert RecaptureAdvice().due(CaptureFacts(None, 2020, None, at(2026))) is None
    seen = [facts(2020, None), facts(2010, at(2020)), facts(2010, at(2018))]
    assert RecaptureAdvice().newest_due(seen) == RecaptureAdvice().due(seen[1].capture())
    assert RecaptureAdvice().newest_due([]) is None


def test_grown_up_people_are_duplicates(world: World) -> None:
    world.enrol(1, facts=facts(born_at_age(18)))
    found = world.enrol(1, 1, facts=facts(born_at_age(18)))
    assert found.outcome is OutcomeKind.DUPLICATE
    assert found.warnings == ()


@pytest.mark.parametrize(("first", "second"), [(17, 30), (30, 17), (3, 3)])
def test_where_one_of_two_may_be_a_child_the_outcome_is_review_and_says_why(
    world: World, first: int, second: int
) -> None:
    world.enrol(1, facts=facts(born_at_age(first)))
    found = world.enrol(1, 1, facts=facts(born_at_age(second)))
    assert found.outcome is OutcomeKind.REVIEW
    assert len(found.case_ids) == 1
    assert "may have been under 18" in found.warnings[-1]


def test_a_child_among_the_candidates_does_not_hide_that_another_is_a_duplicate(world: World) -> None:
    world.enrol(1, facts=facts(born_at_age(3)))
    world.enrol(1, 1, facts=facts(born_at_age(40)))
    assert world.enrol(1, 2, facts=facts(born_at_age(40))).outcome is OutcomeKind.DUPLICATE


def test_no_camera_s_clock_makes_a_child_grow_up(world: World) -> None:
    ahead = facts(2018, at(2062))
    world.enrol(1, facts=ahead)
    found = world.enrol(1, 1, facts=ahead)
    assert found.outcome is OutcomeKind.REVIEW
    assert "may have been under 18" in found.warnings[-1]


@pytest.mark.parametrize("known", ["subject", "probe"])
def test_a_year_of_birth_that_another_encounter_gives_counts(world: World, known: str) -> None:
    child, unknown = facts(born_at_age(8)), facts(None)
    if known == "subject":
        world.enrol(1, subject_id="s", facts=child)
        world.enrol(1, 1, subject_id="s", facts=unknown)
        found = world.enrol(1, 1, subject_id="other", facts=facts(born_at_age(40)))  # the photograph without a year
    else:
        world.enrol(1, subject_id="s", facts=facts(born_at_age(40)))
        world.enrol(2, subject_id="child", facts=child)  # somebody else, until the photograph below
        found = world.enrol(1, 2, subject_id="child", facts=unknown)
    assert found.candidates[0].subject_id == "s"
    assert found.outcome is OutcomeKind.REVIEW
    assert "may have been under 18" in " ".join(found.warnings)


def test_the_age_is_the_gallery_s(world: World) -> None:
    world.galleries.update(GALLERY, GalleryChange(min_duplicate_age=0))
    world.enrol(1, facts=facts(born_at_age(3)))
    assert world.enrol(1, 1, facts=facts(born_at_age(3))).outcome is OutcomeKind.DUPLICATE


def test_an_unknown_age_counts_as_grown_up_unless_the_gallery_says_otherwise(world: World) -> None:
    world.enrol(1)
    assert world.enrol(1, 1).outcome is OutcomeKind.DUPLICATE
    world.galleries.update(GALLERY, GalleryChange(review_unknown_age=True))
    found = world.enrol(1, 2)
    assert found.outcome is OutcomeKind.REVIEW
    assert "unknown age" in found.warnings[-1]


def test_candidates_show_their_age_and_the_years_between(world: World) -> None:
    world.enrol(1, facts=facts(2000, at(2010)))
    found = world.enrol(1, 1, facts=facts(2000, at(2026)))
    (candidate,) = found.candidates
    assert (candidate.age_at_capture, candidate.years_between) == (10, 16.0)
    assert world.store.enrolment(GALLERY, found.enrolment_id) == found
    searched = world.identification.identify(GALLERY, sample_of(1, 3), CaptureFacts(captured_at=at(2020)))
    assert {each.years_between for each in searched.decision.candidates} == {10.0, 6.0}


def test_a_growing_child_that_does_not_match_its_old_sample_is_told_from_an_impostor_by_nobody(world: World) -> None:
    world.enrol(1, subject_id="s", facts=facts(2016, at(2020)))
    found = world.enrol(2, subject_id="s", facts=facts(2016, START))
    assert found.continuity is not None
    assert not found.continuity.passed
    assert "growing child lie 6.2 years apart" in found.warnings[-1]


def test_a_mismatch_soon_after_is_not_excused(world: World) -> None:
    world.enrol(1, subject_id="s", facts=facts(2016, START - timedelta(days=300)))
    found = world.enrol(2, subject_id="s", facts=facts(2016, START))
    assert found.continuity is not None
    assert not found.continuity.passed
    assert [words for words in found.warnings if "years apart" in words] == []


def test_an_overdue_sample_of_a_child_is_told_when_the_child_comes_again(world: World) -> None:
    world.enrol(1, subject_id="s", facts=facts(2016, at(2020)))
    found = world.enrol(1, 1, subject_id="s", facts=facts(2016, START))
    assert "it was overdue" in found.warnings[-1]


def test_an_encounter_that_is_old_already_says_so(world: World) -> None:
    found = world.enrol(1, facts=facts(2018, at(2020)))
    assert found.warnings == ("This sample is old: the person was due to be captured anew on 2020-12-31.",)
