"""The plan of a registration campaign: settings, reviewers, and what is missed (pure).

Whoever plans knows some of it and asks for the rest: from a setting to its cases and misses, from the reviewers there
are to the setting that fits them, or from the misses that can be borne to the reviewers that takes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from service.calibration import Calibration, fmr_for_fpir
from service.campaign import (
    Campaign,
    Estimate,
    Outlook,
    TradeOff,
    capacity_needed,
    expected_fnir,
    fnir_estimate,
    fpir_estimate,
    outlook,
    review_threshold,
    trade_off,
)
from service.decision import percent, stated_size

LOWEST_FPIR, HIGHEST_FPIR = 1e-6, 0.5  # as a gallery takes them
TRADE_OFF_FPIRS = (0.0001, 0.0003, 0.001, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)

_HALVINGS = 30  # of the range of log10 FPIR: closer than two digits show


class ChosenBy(StrEnum):
    """Where the review_fpir of a plan comes from."""

    REVIEW_FPIR = "review_fpir"  # it was asked for
    WANTED_FNIR = "wanted_fnir"  # the strictest at which no more is expected to be missed
    CAPACITY = "capacity_per_day"  # the loosest whose cases the reviewers can decide
    USUAL = "usual"  # what the gallery, or the service, uses anyway


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of the campaign. Of `review_fpir` and `wanted_fnir` one at the most; capacity alone decides."""

    usual_review_fpir: float
    usual_duplicate_fpir: float
    review_fpir: float | None = None
    wanted_fnir: float | None = None  # share of the duplicates that may be missed, 0..1
    capacity_per_day: int | None = None  # cases that the reviewers can decide
    fnir_warning: float = 0.1

    def __post_init__(self) -> None:
        """Raises ValueError: it asks for two settings at once, or for a rate that is none."""
        if self.review_fpir is not None and self.wanted_fnir is not None:
            raise ValueError("give review_fpir or wanted_fnir, not both: each follows from the other")
        if self.wanted_fnir is not None and not 0 < self.wanted_fnir < 1:
            raise ValueError("wanted_fnir must lie between 0 and 1")
        if self.capacity_per_day is not None and self.capacity_per_day < 1:
            raise ValueError("capacity_per_day must be 1 or more")
        for fpir in (self.usual_review_fpir, self.usual_duplicate_fpir, self.review_fpir):
            if fpir is not None and not LOWEST_FPIR <= fpir <= HIGHEST_FPIR:
                raise ValueError(f"an FPIR must lie between {LOWEST_FPIR:g} and {HIGHEST_FPIR:g}")


@dataclass(frozen=True, slots=True)
class Moment:
    """How a gallery of one size is judged. Intervals hold what the calibration leaves open."""

    gallery_size: int
    review: float  # score; above 1: no score reaches it
    duplicate: float | None  # None: no score proves a duplicate
    extrapolated: bool  # the review threshold lies beyond what the calibration measured
    fpir: Estimate
    fnir: Estimate


@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign with one setting, and what comes of it."""

    calibration_id: str
    population: str  # whose scores were measured
    mated_population: str  # whose misses were measured
    campaign: Campaign
    chosen_by: ChosenBy
    is_reached: bool  # whether what was asked for can be had
    duplicate_fpir: float
    capacity_per_day: int | None
    wanted_fnir: float | None
    start: Moment  # of a gallery that is empty when it begins: when the first day has filled it
    end: Moment
    chosen: Outlook
    trade_off: tuple[TradeOff, ...]  # at several settings, by ascending review_fpir; the chosen one is among them
    warnings: tuple[str, ...]


def plan(calibration: Calibration, campaign: Campaign, wish: Wish) -> Plan:
    """Return the plan that meets the wish, or the nearest one with `is_reached` false and a warning that says why."""
    chosen_by, review_fpir = _choose(calibration, campaign, wish)
    chosen = outlook(calibration, campaign, review_fpir)
    # a gallery refuses a duplicate_fpir above its review_fpir
    duplicate_fpir = min(wish.usual_duplicate_fpir, review_fpir)
    # in an empty gallery nobody is flagged or missed: how strict it is shows when the first day has filled it
    size_first = campaign.size_now or campaign.enrolments_a_day
    start, end = (_moment(calibration, size, review_fpir, duplicate_fpir) for size in (size_first, campaign.size_end))
    problems = _problems(campaign, wish, chosen)
    return Plan(
        calibration_id=calibration.calibration_id,
        population=calibration.population,
        mated_population=calibration.mated_population,
        campaign=campaign,
        chosen_by=chosen_by,
        is_reached=not problems,
        duplicate_fpir=duplicate_fpir,
        capacity_per_day=wish.capacity_per_day,
        wanted_fnir=wish.wanted_fnir,
        start=start,
        end=end,
        chosen=chosen,
        trade_off=tuple(trade_off(calibration, campaign, fpir) for fpir in sorted({*TRADE_OFF_FPIRS, review_fpir})),
        warnings=(*problems, *_doubts(calibration, wish, chosen, end), *_duplicates(wish, duplicate_fpir, end)),
    )


def _choose(calibration: Calibration, campaign: Campaign, wish: Wish) -> tuple[ChosenBy, float]:
    if wish.review_fpir is not None:
        return ChosenBy.REVIEW_FPIR, wish.review_fpir
    if wish.wanted_fnir is not None:
        wanted = wish.wanted_fnir
        too_strict = _loosest(lambda fpir: expected_fnir(calibration, campaign, fpir) > wanted)
        return ChosenBy.WANTED_FNIR, LOWEST_FPIR if too_strict is None else _two_digits(too_strict, math.ceil)
    if wish.capacity_per_day is None:
        return ChosenBy.USUAL, wish.usual_review_fpir
    capacity = wish.capacity_per_day
    fitting = _loosest(lambda fpir: capacity_needed(calibration, campaign, fpir) <= capacity)
    # a setting that fits only because it overlooks the duplicates is no answer
    if fitting is None or _duplicates_a_day(campaign) > capacity:
        return ChosenBy.CAPACITY, wish.usual_review_fpir
    return ChosenBy.CAPACITY, _two_digits(fitting, math.floor)


def _loosest(holds: Callable[[float], bool]) -> float | None:
    """Return the highest FPIR up to which `holds` is true, None where it never is."""
    if holds(HIGHEST_FPIR):
        return HIGHEST_FPIR
    low, high = math.log10(LOWEST_FPIR), math.log10(HIGHEST_FPIR)
    if not holds(LOWEST_FPIR):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(10**middle) else (low, middle)
    return float(10**low)


def _two_digits(fpir: float, rounded: Callable[[float], int]) -> float:
    """Return an FPIR that people can type, on the side of what was asked for."""
    scale = 10.0 ** (1 - math.floor(math.log10(fpir)))
    return min(max(rounded(fpir * scale) / scale, LOWEST_FPIR), HIGHEST_FPIR)


def _moment(calibration: Calibration, size: int, review_fpir: float, duplicate_fpir: float) -> Moment:
    review = review_threshold(calibration, review_fpir, size)
    duplicate = calibration.threshold_by_upper_bound(fmr_for_fpir(duplicate_fpir, stated_size(size)))
    return Moment(
        gallery_size=size,
        review=review,
        duplicate=None if duplicate is None else max(duplicate, review),
        extrapolated=calibration.is_extrapolated(review),
        fpir=fpir_estimate(calibration, review, size),
        fnir=fnir_estimate(calibration, review),
    )


def _duplicates_a_day(campaign: Campaign) -> float:
    return campaign.duplicate_share * campaign.enrolments_a_day


def _problems(campaign: Campaign, wish: Wish, chosen: Outlook) -> list[str]:
    """Say what was asked for and cannot be had."""
    found = []
    if wish.wanted_fnir is not None and chosen.fnir.expected > wish.wanted_fnir:
        found.append(
            f"This pack cannot reach it: even with {percent(chosen.review_fpir)} of all newcomers reviewed it is "
            f"expected to miss {percent(chosen.fnir.expected)} of the duplicates, not {percent(wish.wanted_fnir)}. "
            "Use a better pack, better photographs or a smaller gallery."
        )
    capacity = wish.capacity_per_day
    if capacity is None or chosen.capacity_needed <= capacity:
        return found
    cases, duplicates = chosen.a_day.cases.expected, _duplicates_a_day(campaign)
    if duplicates > capacity:
        found.append(
            f"About {duplicates:,.0f} duplicates a day are expected among those who enrol, and reviewers can decide "
            f"{capacity:,} cases: a stricter setting would only hide duplicates. Plan for {chosen.capacity_needed:,} "
            "cases a day."
        )
    elif cases > capacity:
        left = chosen.whole.cases.expected * (1 - capacity / cases)
        found.append(
            f"Reviewers fall behind: about {cases:,.1f} cases a day come and {capacity:,} can be decided. "
            f"At the end about {left:,.0f} cases are left. Plan for {chosen.capacity_needed:,} a day."
        )
    else:
        found.append(
            f"Reviewers may fall behind: {capacity:,} cases a day are enough on average, but plan for "
            f"{chosen.capacity_needed:,} to be sure that none is left at the end (39 of 40 campaigns)."
        )
    return found


def _doubts(calibration: Calibration, wish: Wish, chosen: Outlook, end: Moment) -> list[str]:
    """Say what a reader of the figures must know about them."""
    found = []
    if end.review > 1:
        found.append(
            f"In a gallery of {end.gallery_size:,} no score is rare enough for a review_fpir of "
            f"{chosen.review_fpir:g}: nothing is found, every duplicate is missed. Use a higher review_fpir."
        )
    elif end.extrapolated:
        found.append(
            f"The thresholds (up to {end.review:.3f}) lie beyond the scores that were measured (up to "
            f"{calibration.measured_to:.3f}): the false alarms there follow from a model, and relatives are not in it."
        )
    if end.fnir.expected > wish.fnir_warning:
        found.append(
            f"At the end {percent(end.fnir.expected)} of the duplicates are expected to be missed: "
            "use a better model pack, a smaller gallery or a higher review_fpir."
        )
    return found


def _duplicates(wish: Wish, duplicate_fpir: float, end: Moment) -> list[str]:
    found = []
    if duplicate_fpir < wish.usual_duplicate_fpir:
        found.append(f"Set duplicate_fpir to {duplicate_fpir:g} too: it must not be above review_fpir.")
    if end.duplicate is None:
        found.append("No score proves a duplicate at the end of the campaign: all findings are REVIEW.")
    return found
