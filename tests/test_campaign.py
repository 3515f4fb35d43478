"""What a campaign will see, against plain sums over every single enrolment and against known distributions."""

from dataclasses import replace

import pytest
from scipy.stats import binom

from service.calibration import Calibration, fpir_of_fmr
from service.campaign import (
    Campaign,
    Estimate,
    capacity_needed,
    expected_fnir,
    fnir_estimate,
    fpir_estimate,
    outlook,
    review_threshold,
    trade_off,
)
from tests.synthetic import calibration

CAMPAIGN = Campaign(size_now=1000, size_end=4000, enrolments_per_day=150, duplicate_share=0.05)


def certain() -> Calibration:
    """A calibration that leaves nothing open: only chance is left."""
    some = calibration()
    return replace(some, log10_fmr_lower=some.log10_fmr, log10_fmr_upper=some.log10_fmr, mated_people=10**12)


def lopsided() -> Calibration:
    """A calibration that leaves more open above than below."""
    some = calibration()
    return replace(some, log10_fmr_upper=tuple(min(0.0, value + 0.3) for value in some.log10_fmr))


def test_a_campaign_ends_when_the_gallery_has_grown() -> None:
    assert (CAMPAIGN.enrolments, CAMPAIGN.days) == (3000, 20)
    assert Campaign(0, 301, 150, 0.0).days == 3
    assert Campaign(0, 10, 150, 0.0).enrolments_a_day == 10


@pytest.mark.parametrize(
    ("now", "end", "a_day", "share"), [(5, 5, 1, 0.1), (-1, 5, 1, 0.1), (0, 5, 0, 0.1), (0, 5, 1, 1.0), (0, 5, 1, -0.1)]
)
def test_what_is_no_campaign_is_refused(now: int, end: int, a_day: int, share: float) -> None:
    with pytest.raises(ValueError):
        Campaign(now, end, a_day, share)


@pytest.mark.parametrize("fpir", [0.1, 0.01])
def test_expected_counts_are_the_sums_over_every_enrolment(fpir: float) -> None:
    some = calibration()
    found = missed = alarms = 0.0
    for size in range(CAMPAIGN.size_now, CAMPAIGN.size_end):
        threshold = review_threshold(some, fpir, size)
        miss = some.expected_fnir(threshold)
        found += 0.05 * (1 - miss)
        missed += 0.05 * miss
        # a missed duplicate may still look like somebody else
        alarms += (0.95 + 0.05 * miss) * fpir_of_fmr(some.false_match_rate(threshold).fmr, size)
    whole = outlook(some, CAMPAIGN, fpir).whole
    assert whole.found_duplicates.expected == pytest.approx(found, rel=0.01)
    assert whole.missed_duplicates.expected == pytest.approx(missed, rel=0.02)
    assert whole.false_alarms.expected == pytest.approx(alarms, rel=0.01)
    assert whole.cases.expected == pytest.approx(found + alarms, rel=0.01)
    assert expected_fnir(some, CAMPAIGN, fpir) == pytest.approx(missed / 150, rel=0.02)


def test_a_gallery_that_grows_a_hundredfold_is_followed() -> None:
    growing, some = Campaign(100, 10_000, 100, 0.05), calibration()
    misses = [some.expected_fnir(review_threshold(some, 0.01, size)) for size in range(100, 10_000)]
    assert expected_fnir(some, growing, 0.01) == pytest.approx(sum(misses) / len(misses), abs=0.003)


def test_a_day_is_an_average_one_of_the_campaign() -> None:
    found = outlook(calibration(), CAMPAIGN, 0.03)
    assert found.a_day.cases.expected == pytest.approx(found.whole.cases.expected / 20)
    assert found.a_day.missed_duplicates.expected == pytest.approx(found.whole.missed_duplicates.expected / 20)


def test_where_nothing_is_left_open_the_interval_is_that_of_chance() -> None:
    found = outlook(certain(), CAMPAIGN, 0.03)
    for workload, enrolments in ((found.a_day, 150), (found.whole, 3000)):
        for each in (workload.cases, workload.false_alarms, workload.found_duplicates, workload.missed_duplicates):
            low, high = binom.ppf((0.025, 0.975), enrolments, each.expected / enrolments)
            assert (each.low, each.high) == (low, high)
    assert found.fnir.high - found.fnir.low < 1e-4


def test_where_chance_counts_for_little_the_interval_is_what_the_calibration_leaves_open() -> None:
    size, many = 10**6, 10**5  # the gallery hardly grows
    some = lopsided()
    found = outlook(some, Campaign(size, size + many, many, 0.2), 0.1)
    threshold = review_threshold(some, 0.1, size + many // 2)
    rates = fpir_estimate(some, threshold, size + many // 2)
    alarms = found.whole.false_alarms
    strangers = many * (0.8 + 0.2 * found.fnir.expected)
    assert alarms.low / strangers == pytest.approx(rates.low, rel=0.05)
    assert alarms.high / strangers == pytest.approx(rates.high, rel=0.05)
    low, high = some.expected_fnir_interval(threshold)
    assert found.fnir.low == pytest.approx(low, rel=0.05)
    assert found.fnir.high == pytest.approx(high, rel=0.05)
    assert found.whole.missed_duplicates.low / (0.2 * many) == pytest.approx(low, rel=0.05)


def test_what_is_left_open_widens_the_interval_of_chance() -> None:
    sure, open_ = (outlook(each, CAMPAIGN, 0.03).whole for each in (certain(), calibration()))
    for name in ("cases", "false_alarms", "found_duplicates", "missed_duplicates"):
        narrow, wide = getattr(sure, name), getattr(open_, name)
        assert wide.low < narrow.low < wide.expected < narrow.high < wide.high


def test_the_capacity_decides_the_upper_end_of_the_cases_by_the_end_of_the_campaign() -> None:
    found = outlook(calibration(), CAMPAIGN, 0.03)
    assert (found.capacity_needed - 1) * 20 < found.whole.cases.high <= found.capacity_needed * 20
    short = outlook(calibration(), Campaign(1000, 1100, 150, 0.05), 0.03)
    assert short.capacity_needed == short.whole.cases.high


def test_the_parts_are_those_of_the_whole() -> None:
    some = calibration()
    found, part = outlook(some, CAMPAIGN, 0.03), trade_off(some, CAMPAIGN, 0.03)
    assert (part.cases_a_day, part.missed_a_day) == (found.a_day.cases, found.a_day.missed_duplicates)
    assert (part.fnir, part.capacity_needed) == (found.fnir, found.capacity_needed)
    assert capacity_needed(some, CAMPAIGN, 0.03) == found.capacity_needed


def test_a_threshold_that_no_score_reaches_gives_no_cases_and_misses_everyone() -> None:
    found = outlook(calibration(), Campaign(10**6, 10**6 + 1000, 100, 0.1), 1e-6)
    assert found.whole.cases.high == 0
    assert found.whole.missed_duplicates.expected == pytest.approx(100)
    assert fpir_estimate(calibration(), 1.00001, 10).high == 0
    assert fnir_estimate(calibration(), 1.00001) == Estimate(1, 1, 1)


def test_an_empty_gallery_and_no_duplicates_can_be_planned() -> None:
    found = outlook(calibration(), Campaign(0, 100, 10, 0.0), 0.01)
    assert found.whole.missed_duplicates.high == 0
    assert found.whole.false_alarms.expected == pytest.approx(1.0, rel=0.1)  # thresholds of the next stated size
