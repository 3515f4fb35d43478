"""What a registration campaign will see at one review_fpir: cases, false alarms, duplicates found and missed (pure).

Two things are not known beforehand, and every interval says which it holds:

- what the calibration leaves open: its bounds of the false match rate, and the interval of its misses. One
  draw of both holds for the whole campaign: a calibration that is off is off every day;
- chance: how many duplicates come, and which people look alike. Each enrolment is one draw of its own.

The counts of enrolments are mixtures of binomial distributions, one for each of `_DRAWS` draws of what is left open.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtri
from scipy.stats import qmc

from service.calibration import Calibration, fmr_for_fpir, fpir_of_fmr
from service.decision import stated_size

FloatArray = npt.NDArray[np.float64]

_SIZES = 16  # of the growing gallery, at which rates are taken: the middles of equal parts of the campaign
_DRAWS = 256  # of what the calibration leaves open: evenly spread, not random, so that a plan repeats
_Z = 1.96  # normal quantile of a two-sided interval of 95 %
_LOW, _HIGH = 0.025, 0.975
_FAR = 8.0  # standard deviations: no quantile lies farther out


@dataclass(frozen=True, slots=True)
class Campaign:
    """Enrolments, one photograph each, into a gallery that grows by every one of them, duplicates included."""

    size_now: int  # templates in the gallery when it begins
    size_end: int  # and when it ends
    enrolments_per_day: int
    duplicate_share: float  # of the enrolments, 0..1: people who are in the gallery already

    def __post_init__(self) -> None:
        """Raises ValueError: this is no campaign."""
        if self.size_now < 0 or self.size_end <= self.size_now:
            raise ValueError("the gallery must be larger at the end of the campaign than now")
        if self.enrolments_per_day < 1:
            raise ValueError("a campaign has at least one enrolment a day")
        if not 0 <= self.duplicate_share < 1:
            raise ValueError("the share of duplicates must be 0 or more and below 1")

    @property
    def enrolments(self) -> int:
        return self.size_end - self.size_now

    @property
    def days(self) -> int:
        """The last of them may be shorter."""
        return math.ceil(self.enrolments / self.enrolments_per_day)

    @property
    def enrolments_a_day(self) -> int:
        """Of a full day; a campaign shorter than a day has no longer one."""
        return min(self.enrolments_per_day, self.enrolments)

    def sizes(self) -> list[int]:
        """Return sizes of the gallery that stand for equal parts of the campaign, ascending."""
        step = self.enrolments / _SIZES
        return [max(1, round(self.size_now + (part + 0.5) * step)) for part in range(_SIZES)]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What to expect, and an interval of 95 %."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Workload:
    """Counts over a day or a campaign. Their intervals hold what the calibration leaves open, and chance."""

    cases: Estimate  # for a human: an enrolment opens one at the most, however many candidates it has
    false_alarms: Estimate  # cases without the person's own earlier enrolment among the candidates
    found_duplicates: Estimate  # cases with it
    missed_duplicates: Estimate  # opened no case for their own earlier enrolment


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a campaign will see at one review_fpir."""

    review_fpir: float
    a_day: Workload  # of full length, on average over the campaign
    whole: Workload
    fnir: Estimate  # share of the duplicates that is missed; the interval holds what the calibration leaves open
    capacity_needed: int
    """Cases a day that must be decided so that none is left at the end of the campaign, in 39 of 40 campaigns."""


@dataclass(frozen=True, slots=True)
class TradeOff:
    """What one review_fpir costs and what it misses; the fields are those of `Outlook`."""

    review_fpir: float
    cases_a_day: Estimate
    missed_a_day: Estimate
    fnir: Estimate
    capacity_needed: int


@dataclass(frozen=True, slots=True)
class _Shares:
    """Of the enrolments of a campaign; the first is the expected one, then one for each draw of what is left open."""

    found: FloatArray  # (1 + _DRAWS,)
    missed: FloatArray
    false_alarms: FloatArray
    fnir: FloatArray

    @property
    def cases(self) -> FloatArray:
        return self.found + self.false_alarms


def outlook(calibration: Calibration, campaign: Campaign, review_fpir: float) -> Outlook:
    """Return what the campaign will see with the review threshold that follows the growing gallery."""
    shares = _shares(calibration, campaign, review_fpir)
    whole = _workload(shares, campaign.enrolments)
    return Outlook(
        review_fpir=review_fpir,
        a_day=_workload(shares, campaign.enrolments_a_day),
        whole=whole,
        fnir=_left_open(shares.fnir),
        capacity_needed=_capacity(campaign, whole.cases),
    )


def trade_off(calibration: Calibration, campaign: Campaign, review_fpir: float) -> TradeOff:
    """Return the part of `outlook` that settings are compared by; it takes less than half of its time."""
    shares = _shares(calibration, campaign, review_fpir)
    return TradeOff(
        review_fpir=review_fpir,
        cases_a_day=_count(shares.cases, campaign.enrolments_a_day),
        missed_a_day=_count(shares.missed, campaign.enrolments_a_day),
        fnir=_left_open(shares.fnir),
        capacity_needed=_capacity(campaign, _count(shares.cases, campaign.enrolments)),
    )


def capacity_needed(calibration: Calibration, campaign: Campaign, review_fpir: float) -> int:
    """Return that of `outlook` alone, for a search."""
    return _capacity(campaign, _count(_shares(calibration, campaign, review_fpir).cases, campaign.enrolments))


def expected_fnir(calibration: Calibration, campaign: Campaign, review_fpir: float) -> float:
    """Return the share of the duplicates of the campaign that is expected to be missed."""
    thresholds = [review_threshold(calibration, review_fpir, size) for size in campaign.sizes()]
    return sum(calibration.expected_fnir(threshold) for threshold in thresholds) / len(thresholds)


def review_threshold(calibration: Calibration, review_fpir: float, gallery_size: int) -> float:
    """Return the threshold that the next enrolment into a gallery of this size will use, as `DecisionRule` does."""
    return calibration.threshold(fmr_for_fpir(review_fpir, stated_size(gallery_size)))


def fpir_estimate(calibration: Calibration, threshold: float, gallery_size: int) -> Estimate:
    """Return the share of new people who are flagged; the interval holds what the calibration leaves open."""
    rate = calibration.false_match_rate(threshold)
    rates = (rate.fmr, calibration.fmr_lower(threshold), rate.fmr_upper)
    return Estimate(*(0.0 if threshold > 1 else fpir_of_fmr(fmr, gallery_size) for fmr in rates))


def fnir_estimate(calibration: Calibration, threshold: float) -> Estimate:
    """Return the share of duplicates that is missed; the interval holds what the calibration leaves open."""
    if threshold > 1:
        return Estimate(1.0, 1.0, 1.0)  # that nothing is found there needs no measurement
    return Estimate(calibration.expected_fnir(threshold), *calibration.expected_fnir_interval(threshold))


def _shares(calibration: Calibration, campaign: Campaign, review_fpir: float) -> _Shares:
    z_fmr, z_fnir = _draws()
    found, missed, alarms, fnirs = (np.zeros(1 + _DRAWS) for _ in range(4))
    sizes = campaign.sizes()
    for size in sizes:
        threshold = review_threshold(calibration, review_fpir, size)
        fpir = _fpirs(calibration, threshold, size, z_fmr)
        fnir = _fnirs(calibration, threshold, z_fnir)
        found_now = campaign.duplicate_share * (1 - fnir)
        found += found_now / len(sizes)
        missed += campaign.duplicate_share * fnir / len(sizes)
        # whoever is not found as a duplicate, the missed ones too, may look like a stranger
        alarms += (1 - found_now) * fpir / len(sizes)
        fnirs += fnir / len(sizes)
    return _Shares(found, missed, alarms, fnirs)


def _draws() -> tuple[FloatArray, FloatArray]:
    """Return standard normal draws for the false match rate and for the misses, each after a 0: the expected one."""
    even = qmc.Halton(2, scramble=False).random(_DRAWS + 1)[1:]  # the first point is the corner
    drawn = ndtri(even)
    return np.append(0.0, drawn[:, 0]), np.append(0.0, drawn[:, 1])


def _fpirs(calibration: Calibration, threshold: float, size: int, z: FloatArray) -> FloatArray:
    """Return the share of new people flagged where the false match rate lies z deviations from the expected one.

    Its logarithm is taken as normal on either side, with the calibration's bounds at -1.96 and 1.96.
    """
    if threshold > 1:
        return np.zeros_like(z)
    rate = calibration.false_match_rate(threshold)
    middle = math.log10(rate.fmr)
    down, up = middle - math.log10(calibration.fmr_lower(threshold)), math.log10(rate.fmr_upper) - middle
    fmr = np.minimum(10 ** (middle + z / _Z * np.where(z < 0, down, up)), 1 - 1e-12)
    return np.asarray(-np.expm1(size * np.log1p(-fmr)))


def _fnirs(calibration: Calibration, threshold: float, z: FloatArray) -> FloatArray:
    """Return the share of duplicates missed at z deviations; -1.96 and 1.96 give `expected_fnir_interval`."""
    if threshold > 1:
        return np.ones_like(z)
    share, people = calibration.expected_fnir(threshold), calibration.mated_people
    middle = share + z**2 / (2 * people)
    half = z * np.sqrt(share * (1 - share) / people + (z / (2 * people)) ** 2)
    return np.asarray(np.clip((middle + half) / (1 + z**2 / people), 0.0, 1.0))


def _workload(shares: _Shares, enrolments: int) -> Workload:
    return Workload(
        cases=_count(shares.cases, enrolments),
        false_alarms=_count(shares.false_alarms, enrolments),
        found_duplicates=_count(shares.found, enrolments),
        missed_duplicates=_count(shares.missed, enrolments),
    )


def _left_open(shares: FloatArray) -> Estimate:
    low, high = np.quantile(shares[1:], (_LOW, _HIGH))
    return Estimate(float(shares[0]), float(low), float(high))


def _capacity(campaign: Campaign, cases: Estimate) -> int:
    return math.ceil(cases.high * campaign.enrolments_a_day / campaign.enrolments)


def _count(shares: FloatArray, enrolments: int) -> Estimate:
    expected, drawn = float(shares[0]) * enrolments, np.clip(shares[1:], 0.0, 1.0)
    spread = _FAR * np.sqrt(enrolments * drawn * (1 - drawn)) + _FAR
    least = max(0, math.floor((enrolments * drawn - spread).min()))
    most = min(enrolments, math.ceil((enrolments * drawn + spread).max()))

    def reaches(count: int, level: float) -> bool:
        return float(bdtr(count, enrolments, drawn).mean()) >= level

    low, high = (_first(least, most, partial(reaches, level=level)) for level in (_LOW, _HIGH))
    return Estimate(expected, float(low), float(high))


def _first(least: int, most: int, holds: Callable[[int], bool]) -> int:
    """Return the least number of a range from which on `holds` is true; the last one where it never is."""
    while least < most:
        middle = (least + most) // 2
        if holds(middle):
            most = middle
        else:
            least = middle + 1
    return least
