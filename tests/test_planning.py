"""From what is asked of a campaign to a setting, and what a plan warns of."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from service.campaign import Campaign, outlook, review_threshold
from service.decision import DecisionRule
from service.domain import Gallery
from service.planning import HIGHEST_FPIR, ChosenBy, Plan, Wish, plan
from tests.synthetic import calibration

CAMPAIGN = Campaign(size_now=1000, size_end=4000, enrolments_per_day=150, duplicate_share=0.05)
USUAL = Wish(usual_review_fpir=0.01, usual_duplicate_fpir=0.001, fnir_warning=0.5)


CALIBRATION = replace(calibration(), measured_to=0.75)


def planned(**wanted: float) -> Plan:
    return plan(CALIBRATION, CAMPAIGN, replace(USUAL, **wanted))  # type: ignore[arg-type]  # by name


def test_without_a_wish_the_usual_setting_is_planned() -> None:
    found = planned()
    assert (found.chosen_by, found.chosen.review_fpir, found.is_reached) == (ChosenBy.USUAL, 0.01, True)
    assert found.chosen == outlook(CALIBRATION, CAMPAIGN, 0.01)
    assert found.warnings == ()


def test_the_thresholds_are_those_that_enrolments_will_use() -> None:
    found = planned(review_fpir=0.05)
    camp = Gallery("camp", "synthetic", 0.05, 0.001, 0.001, False, datetime(2026, 1, 1, tzinfo=UTC))
    rule = DecisionRule(CALIBRATION, fnir_warning=0.1)
    for moment, size in ((found.start, 1000), (found.end, 4000)):
        used = rule.thresholds(camp, size)
        assert (moment.gallery_size, moment.review, moment.duplicate) == (size, used.review, used.duplicate)
        assert moment.fnir.expected == used.expected_fnir


@pytest.mark.parametrize(("size_end", "first"), [(4000, 150), (100, 100)])
def test_an_empty_gallery_is_judged_when_the_first_day_has_filled_it(size_end: int, first: int) -> None:
    found = plan(CALIBRATION, replace(CAMPAIGN, size_now=0, size_end=size_end), USUAL)
    assert (found.start.gallery_size, found.end.gallery_size) == (first, size_end)
    assert found.start.review == review_threshold(CALIBRATION, 0.01, first)


@pytest.mark.parametrize("capacity", [12, 20, 60])
def test_a_capacity_gets_the_loosest_setting_whose_cases_it_decides(capacity: int) -> None:
    found = planned(capacity_per_day=capacity)
    assert (found.chosen_by, found.is_reached) == (ChosenBy.CAPACITY, True)
    assert found.chosen.capacity_needed <= capacity
    fpir = found.chosen.review_fpir
    assert fpir == float(f"{fpir:.1e}")  # two digits: the next setting is at most a tenth higher
    assert outlook(CALIBRATION, CAMPAIGN, fpir * 1.11).capacity_needed > capacity


@pytest.mark.parametrize("share", [0.3, 0.2, 0.1])
def test_a_share_of_misses_gets_the_strictest_setting_that_reaches_it(share: float) -> None:
    found = planned(wanted_fnir=share)
    assert (found.chosen_by, found.is_reached) == (ChosenBy.WANTED_FNIR, True)
    assert found.chosen.fnir.expected <= share
    assert found.chosen.review_fpir == float(f"{found.chosen.review_fpir:.1e}")
    assert outlook(CALIBRATION, CAMPAIGN, found.chosen.review_fpir / 1.12).fnir.expected > share


def test_both_ways_meet() -> None:
    asked = planned(wanted_fnir=0.2)
    back = planned(capacity_per_day=asked.chosen.capacity_needed)
    assert back.chosen.review_fpir >= asked.chosen.review_fpir
    assert back.chosen.fnir.expected <= 0.2


def test_more_than_enough_reviewers_are_no_reason_to_leave_the_range_of_settings() -> None:
    assert planned(capacity_per_day=1000).chosen.review_fpir == HIGHEST_FPIR


def test_misses_that_no_setting_reaches_are_told() -> None:
    found = planned(wanted_fnir=0.001)
    assert not found.is_reached
    assert found.chosen.review_fpir == HIGHEST_FPIR
    assert "cannot reach it: even with 50 % of all newcomers reviewed" in found.warnings[0]


def test_reviewers_who_cannot_decide_even_the_duplicates_are_told_and_nothing_is_made_stricter() -> None:
    found = planned(capacity_per_day=5)  # 7.5 duplicates a day
    assert not found.is_reached
    assert found.chosen.review_fpir == 0.01
    assert "8 duplicates a day" in found.warnings[0]
    assert "would only hide duplicates" in found.warnings[0]


def test_too_few_reviewers_for_a_setting_are_told_with_what_is_left_at_the_end() -> None:
    found = planned(review_fpir=0.1, capacity_per_day=10)
    assert (found.chosen_by, found.is_reached) == (ChosenBy.REVIEW_FPIR, False)
    whole = found.chosen.whole.cases.expected
    assert f"about {whole - 200:,.0f} cases are left" in found.warnings[0]


def test_reviewers_who_are_enough_on_average_only_are_told() -> None:
    found = planned(review_fpir=0.1)
    capacity = round(found.chosen.a_day.cases.expected) + 1
    assert capacity < found.chosen.capacity_needed
    told = planned(review_fpir=0.1, capacity_per_day=capacity)
    assert "enough on average" in told.warnings[0]
    assert planned(review_fpir=0.1, capacity_per_day=found.chosen.capacity_needed).is_reached


def test_a_capacity_that_no_setting_fits_keeps_the_usual_one() -> None:
    """The duplicates alone are fewer than the capacity, but not surely."""
    found = plan(CALIBRATION, replace(CAMPAIGN, size_end=1150), replace(USUAL, capacity_per_day=1))
    assert not found.is_reached
    assert found.chosen.review_fpir == 0.01


def test_a_threshold_that_no_score_reaches_is_told() -> None:
    found = plan(CALIBRATION, Campaign(10**6, 2 * 10**6, 1000, 0.01), replace(USUAL, review_fpir=1e-6))
    assert found.end.review > 1
    assert "no score is rare enough" in found.warnings[0]
    assert found.chosen.fnir.expected == 1


def test_thresholds_beyond_the_measured_scores_are_told() -> None:
    found = plan(replace(CALIBRATION, measured_to=0.4), CAMPAIGN, USUAL)
    assert found.end.extrapolated
    assert found.end.review > 0.4
    assert any("follow from a model" in each for each in found.warnings)
    assert not planned().end.extrapolated


def test_many_misses_are_told() -> None:
    found = plan(CALIBRATION, CAMPAIGN, replace(USUAL, fnir_warning=0.05))
    assert any("of the duplicates are expected to be missed" in each for each in found.warnings)


def test_a_duplicate_rate_above_the_review_rate_is_lowered_and_told() -> None:
    found = planned(review_fpir=0.0002)
    assert found.duplicate_fpir == 0.0002
    assert "Set duplicate_fpir to 0.0002 too: it must not be above review_fpir." in found.warnings


def test_where_no_score_proves_a_duplicate_it_is_told() -> None:
    found = plan(CALIBRATION, Campaign(10**6, 10**7, 1000, 0.01), replace(USUAL, usual_duplicate_fpir=1e-6))
    assert found.end.duplicate is None
    assert any("No score proves a duplicate" in each for each in found.warnings)


def test_the_chosen_setting_is_among_those_it_is_compared_with() -> None:
    found = planned(review_fpir=0.017)
    settings = [each.review_fpir for each in found.trade_off]
    assert settings == sorted(set(settings))
    (same,) = [each for each in found.trade_off if each.review_fpir == 0.017]
    assert same.capacity_needed == found.chosen.capacity_needed
    needed = [each.capacity_needed for each in found.trade_off]
    missed = [each.fnir.expected for each in found.trade_off]
    assert (needed, missed) == (sorted(needed), sorted(missed, reverse=True))


@pytest.mark.parametrize(
    "wanted",
    [
        {"review_fpir": 0.1, "wanted_fnir": 0.1},
        {"wanted_fnir": 1.0},
        {"capacity_per_day": 0},
        {"review_fpir": 0.9},
    ],
)
def test_a_wish_that_cannot_be_meant_is_refused(wanted: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        replace(USUAL, **wanted)  # type: ignore[arg-type]  # by name
