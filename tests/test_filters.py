"""Filters by sex and year of birth: a lower threshold within the band, and nobody lost outside it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.calibration import fmr_for_fpir
from service.decision import DecisionRule
from service.domain import (
    Band,
    CaptureFacts,
    EncounterFacts,
    Gallery,
    Hit,
    MetadataAgreement,
    OutcomeKind,
    Reference,
)
from service.filters import LEAST_SHARE, Limits, band_of, judge
from service.fusion import FusedScore
from service.galleries import GalleryChange
from tests.synthetic import PACK_ID, calibration, sample_of
from tests.world import GALLERY, START, World

RULE = DecisionRule(calibration(), 0.9)
FILTERED = Gallery(
    GALLERY,
    PACK_ID,
    0.01,
    0.001,
    0.001,
    keep_samples=False,
    created_at=START,
    filter_by_sex=True,
    filter_by_birth_year=True,
)
SEXES = st.sampled_from([None, "female", "male", "other", "unknown"])
CAPTURES = st.builds(CaptureFacts, SEXES, st.none() | st.integers(1930, 2026))
AGREED = MetadataAgreement(people=100, disagreeing=0)


def pairs(templates: int) -> int:
    """Comparisons with one probe, nobody having several samples."""
    return templates


def reference_of(number: int, capture: CaptureFacts) -> Reference:
    return Reference(number, f"s-{number}", f"e-{number}", np.zeros(2, np.float32), True, capture)


@settings(max_examples=300, deadline=None)
@given(
    probe=CAPTURES, others=st.lists(st.tuples(CAPTURES, st.floats(0, 1)), max_size=12), templates=st.integers(12, 10**6)
)
def test_a_filter_never_loses_whom_the_unfiltered_rule_flags(
    probe: CaptureFacts, others: list[tuple[CaptureFacts, float]], templates: int
) -> None:
    references = {number: reference_of(number, capture) for number, (capture, _) in enumerate(others)}
    hits = [Hit(number, score) for number, (_, score) in enumerate(others)]
    plain = RULE.decide(hits, references, None, RULE.thresholds(FILTERED, templates))
    band = band_of(FILTERED, probe)
    left_out = sum(band.leaves_out(capture) for capture, _ in others) * (templates // 12) if band else 0

    judged = judge(RULE, FILTERED, Limits(band, left_out, AGREED), templates, pairs)
    found = RULE.decide(judged.kept(hits, references), references, None, judged.thresholds)

    assert {each.subject_id for each in plain.candidates} <= {each.subject_id for each in found.candidates}
    assert (plain.outcome is OutcomeKind.DUPLICATE) == (found.outcome is OutcomeKind.DUPLICATE)


@settings(max_examples=300, deadline=None)
@given(probe=CAPTURES, score=st.floats(0, 1), sex=st.sampled_from([None, "other", "unknown"]))
def test_nobody_of_unknown_sex_and_year_is_ever_left_out(probe: CaptureFacts, score: float, sex: str | None) -> None:
    references = {1: reference_of(1, CaptureFacts(sex, None))}
    judged = judge(RULE, FILTERED, Limits(band_of(FILTERED, probe), 900, AGREED), 1000, pairs)

    kept = judged.kept([Hit(1, score)], references)

    assert kept == [Hit(1, score)]


def test_the_review_threshold_follows_from_the_templates_within_and_no_other_does() -> None:
    judged = judge(RULE, FILTERED, Limits(Band("female", None), 9_000, AGREED), 10_000, pairs)
    whole, within = RULE.thresholds(FILTERED, 10_000), RULE.thresholds(FILTERED, 1_000)

    assert judged.thresholds.review == within.review < whole.review
    assert judged.thresholds.expected_fnir == within.expected_fnir < whole.expected_fnir
    assert judged.thresholds.duplicate == whole.duplicate
    assert judged.filter is not None
    assert (judged.filter.review_outside, judged.filter.left_out, judged.filter.comparisons) == (
        whole.review,
        9_000,
        1_000,
    )


def test_between_the_two_thresholds_only_who_is_within_is_a_candidate() -> None:
    judged = judge(RULE, FILTERED, Limits(Band("female", None), 9_000, AGREED), 10_000, pairs)
    assert judged.filter is not None
    references = {1: reference_of(1, CaptureFacts("female")), 2: reference_of(2, CaptureFacts("male"))}
    between = (judged.thresholds.review + judged.filter.review_outside) / 2

    assert judged.kept([Hit(1, between), Hit(2, between)], references) == [Hit(1, between)]


def test_a_fused_score_outside_the_band_needs_the_threshold_of_the_whole_gallery() -> None:
    judged = judge(RULE, FILTERED, Limits(Band("female", None), 9_000, AGREED), 10_000, pairs)
    assert judged.filter is not None
    man, woman = reference_of(1, CaptureFacts("male")), reference_of(2, CaptureFacts("female"))
    limit = judged.filter.review_outside
    fused = {
        "below": FusedScore(score=limit - 0.01, pair_score=0.2, best=man),
        "above": FusedScore(score=limit, pair_score=0.2, best=man),
        "within": FusedScore(score=limit - 0.01, pair_score=0.2, best=woman),
    }

    assert set(judged.kept_together(fused)) == {"above", "within"}


def test_the_false_alarms_of_both_thresholds_are_stated() -> None:
    judged = judge(RULE, FILTERED, Limits(Band("female", None), 9_000, AGREED), 10_000, pairs)

    assert judged.filter is not None
    assert judged.filter.expected_fpir == pytest.approx(0.01 + 0.9 * 0.01, rel=0.02)
    assert judged.filter.fpir_upper == pytest.approx(1 - (1 - 0.01) ** 10, rel=0.02)


def test_a_band_of_almost_nobody_does_not_have_everybody_looked_up() -> None:
    judged = judge(RULE, FILTERED, Limits(Band("female", None), 10_000, AGREED), 10_000, pairs)

    assert judged.thresholds.review == RULE.thresholds(FILTERED, int(10_000 * LEAST_SHARE)).review


def test_wrong_metadata_is_counted_in_and_warned_of_where_it_costs_more_than_it_gains() -> None:
    limits = Limits(Band("female", None), 5_000)
    fine, poor = (
        judge(RULE, FILTERED, replace(limits, agreement=MetadataAgreement(100, wrong)), 10_000, pairs)
        for wrong in (1, 90)
    )
    unknown = judge(RULE, FILTERED, limits, 10_000, pairs)

    assert fine.filter is not None
    assert poor.filter is not None
    assert fine.warnings == ()
    assert len(poor.warnings) == 1
    assert "loses more by wrong metadata" in poor.warnings[0]
    plain = RULE.calibration.threshold(fmr_for_fpir(poor.filter.expected_fpir, 10_000))
    assert poor.filter.expected_fnir is not None
    assert poor.filter.expected_fnir > RULE.calibration.expected_fnir(plain)
    assert poor.filter.wrong_metadata == 0.9
    assert unknown.filter is not None
    assert (unknown.filter.expected_fnir, unknown.filter.wrong_metadata) == (None, None)


def switched_on(**change: object) -> World:
    world = World()
    world.galleries.update(GALLERY, GalleryChange(**change))  # type: ignore[arg-type]  # by name
    return world


def crowd(world: World, sex: str, birth_year: int, count: int = 20) -> None:
    for person in range(100, 100 + count):
        world.enrol(person, facts=EncounterFacts(sex=sex, birth_year=birth_year))


def test_an_answer_says_that_it_was_filtered_and_what_was_left_out() -> None:
    world = switched_on(filter_by_sex=True)
    crowd(world, "male", 1980)
    world.enrol(1, facts=EncounterFacts(sex="female"))

    found = world.enrol(2, facts=EncounterFacts(sex="female"))

    assert found.searched is not None
    assert found.searched.gallery_size == 21
    assert found.searched.filter is not None
    assert (found.searched.filter.by_sex, found.searched.filter.birth_year_tolerance) == (True, None)
    assert (found.searched.filter.left_out, found.searched.filter.comparisons) == (20, 1)
    assert world.store.enrolment(GALLERY, found.enrolment_id) == found


@pytest.mark.parametrize("facts", [EncounterFacts(), EncounterFacts(sex="other"), EncounterFacts(sex="unknown")])
def test_a_person_of_whom_nothing_is_known_is_searched_among_all(facts: EncounterFacts) -> None:
    world = switched_on(filter_by_sex=True, filter_by_birth_year=True)
    crowd(world, "male", 1980)

    found = world.enrol(2, facts=facts)

    assert found.searched is not None
    assert found.searched.filter is None


def test_the_filter_is_off_until_it_is_switched_on() -> None:
    world = World()
    crowd(world, "male", 1980)

    found = world.enrol(2, facts=EncounterFacts(sex="female", birth_year=2000))

    assert found.searched is not None
    assert found.searched.filter is None


def test_a_duplicate_of_another_recorded_sex_and_year_is_found_all_the_same() -> None:
    world = switched_on(filter_by_sex=True, filter_by_birth_year=True)
    crowd(world, "male", 1950)
    first = world.enrol(1, facts=EncounterFacts(sex="male", birth_year=1950))

    again = world.enrol(1, capture=1, facts=EncounterFacts(sex="female", birth_year=1990))
    found = world.identification.identify(GALLERY, sample_of(1, 2), CaptureFacts("female", 1990))

    assert again.searched is not None
    assert again.searched.filter is not None
    assert again.outcome is OutcomeKind.DUPLICATE
    assert [each.subject_id for each in again.candidates] == [first.subject_id]
    assert found.searched.filter is not None
    assert {each.subject_id for each in found.decision.candidates} == {first.subject_id, again.subject_id}


def test_a_gallery_says_how_often_its_metadata_disagree() -> None:
    world = switched_on(filter_by_birth_year=True, birth_year_tolerance=3)
    for person, years in enumerate([(1980, 1983), (1980, 1984), (1990, 1990)]):
        for capture, year in enumerate(years):
            world.enrol(person, capture, subject_id=f"s-{person}", facts=EncounterFacts(birth_year=year))

    report = world.galleries.report(GALLERY)

    assert report.agreement == MetadataAgreement(people=3, disagreeing=1)
    assert report.warnings == ()


def test_a_gallery_whose_filter_rests_on_nothing_known_says_so() -> None:
    world = switched_on(filter_by_sex=True)
    world.enrol(1, facts=EncounterFacts(sex="female"))

    assert "is not known" in world.galleries.report(GALLERY).warnings[-1]
    world.galleries.update(GALLERY, GalleryChange(filter_by_sex=False))
    assert world.galleries.report(GALLERY).warnings == ()
