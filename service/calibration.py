"""From scores to false match rates and back, and what a threshold is expected to miss (pure)."""

import json
import math
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from service.domain import FalseMatchRate

_CONFIDENCE_Z = 1.96  # normal quantile: the upper end of the two-sided 95 % interval
_STEPS = 1 << 17  # of a threshold between 0 and 1: well below what a photograph can repeat
_ABOVE_ALL = 1.00001  # a threshold that no score reaches


@dataclass(frozen=True, slots=True)
class Tail:
    """The straight part of log10 FMR against score: log10 FMR = intercept + slope * (score - centre).

    Fitted between FMR 1e-3 and 1e-5; beyond, label errors of the data bend the curve. The variances and the covariance
    come from a bootstrap over people, not over pairs, since pairs that share a person are not independent.
    """

    centre: float
    intercept: float
    slope: float
    intercept_variance: float
    slope_variance: float
    covariance: float

    def log10_fmr(self, score: float) -> float:
        return self.intercept + self.slope * (score - self.centre)

    def log10_fmr_upper(self, score: float) -> float:
        x = score - self.centre
        variance = self.intercept_variance + 2 * x * self.covariance + x * x * self.slope_variance
        return self.log10_fmr(score) + _CONFIDENCE_Z * math.sqrt(max(variance, 0.0))

    def score_of(self, log10_fmr: float) -> float:
        return self.centre + (log10_fmr - self.intercept) / self.slope

    def score_of_upper(self, log10_fmr: float) -> float:
        """Return the score whose upper bound this is: with the root squared away, the larger of two solutions."""
        z2, over = _CONFIDENCE_Z**2, log10_fmr - self.intercept
        a = self.slope**2 - z2 * self.slope_variance
        b = over * self.slope + z2 * self.covariance
        c = over**2 - z2 * self.intercept_variance
        return self.centre + (b + math.sqrt(max(b * b - a * c, 0.0))) / a


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the scores of one model mean, measured on one population.

    `scores`, `log10_fmr` and `log10_fmr_upper` are the measured curve, scores ascending; `mated_scores` are the sorted
    scores of mated pairs. Terms: ISO/IEC 19795-1.
    """

    pack_id: str
    population: str
    comparisons: int
    people: int
    scores: tuple[float, ...]
    log10_fmr: tuple[float, ...]
    log10_fmr_upper: tuple[float, ...]
    tail: Tail
    mated_scores: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse a curve on which a higher score could look less sure: every threshold rests on that.

        Raises:
            ValueError: the lists do not fit each other or are out of order, or the tail or its upper bound rises.
        """
        if not len(self.scores) == len(self.log10_fmr) == len(self.log10_fmr_upper) >= 2:
            raise ValueError("a calibration needs a rate and an upper bound for each of at least two scores")
        if any(low >= high for low, high in pairwise(self.scores)):
            raise ValueError("the scores of a calibration must ascend")
        if any(left < right for curve in (self.log10_fmr, self.log10_fmr_upper) for left, right in pairwise(curve)):
            raise ValueError("the false match rates of a calibration must not rise with the score")
        if any(upper < middle for upper, middle in zip(self.log10_fmr_upper, self.log10_fmr, strict=True)):
            raise ValueError("an upper bound of a calibration lies below its estimate")
        # the spread of the tail grows by at most the spread of its slope, so then the bound falls everywhere
        if self.tail.slope + _CONFIDENCE_Z * math.sqrt(max(self.tail.slope_variance, 0.0)) >= 0:
            raise ValueError("the tail of a calibration must fall, its upper bound too")
        if not self.mated_scores or any(left > right for left, right in pairwise(self.mated_scores)):
            raise ValueError("a calibration needs mated scores in ascending order")

    @classmethod
    def from_json(cls, text: str) -> "Calibration":
        """Read a `calibration.json` as `python -m benchmarks.error_rates --write-calibration` makes it."""
        data = json.loads(text)
        return cls(
            pack_id=data["pack_id"],
            population=data["population"],
            comparisons=data["comparisons"],
            people=data["people"],
            scores=tuple(data["scores"]),
            log10_fmr=tuple(data["log10_fmr"]),
            log10_fmr_upper=tuple(data["log10_fmr_upper"]),
            tail=Tail(**data["tail"]),
            mated_scores=tuple(data["mated_scores"]),
        )

    def false_match_rate(self, score: float) -> FalseMatchRate:
        """Return the chance that two different people score at least this high."""
        return FalseMatchRate(
            fmr=10 ** self._log10_fmr(score),
            fmr_upper=10 ** self._log10_fmr_upper(score),
            extrapolated=self.is_extrapolated(score),
        )

    def threshold(self, fmr: float) -> float:
        """Return the lowest score whose false match rate is at most `fmr` (0..1), by the central estimate.

        A straight tail falls for ever, so beyond score 1 the threshold is above every possible score: nothing is found,
        and `expected_fnir` says so.
        """
        wanted = math.log10(fmr)
        found = _lowest(self._log10_fmr, wanted, self._guess(wanted))
        return _ABOVE_ALL if found is None else found

    def threshold_by_upper_bound(self, fmr: float) -> float | None:
        """Return the lowest score whose upper 95 % bound of the false match rate is at most `fmr`, None if none is."""
        wanted = math.log10(fmr)
        return _lowest(self._log10_fmr_upper, wanted, max(self._guess(wanted), self._guess_upper(wanted)))

    def expected_fnir(self, threshold: float) -> float:
        """Return the share of mated pairs of the measured population that score below `threshold`."""
        return bisect_left(self.mated_scores, threshold) / len(self.mated_scores)

    def is_extrapolated(self, threshold: float) -> bool:
        return threshold > self.scores[-1]

    def _log10_fmr(self, score: float) -> float:
        return min(self._log10(score, self.log10_fmr, self.tail.log10_fmr), 0.0)

    def _log10_fmr_upper(self, score: float) -> float:
        upper = self._log10(score, self.log10_fmr_upper, self.tail.log10_fmr_upper)
        # the two are lifted to their measured ends by different amounts, which must not let them cross
        return max(min(upper, 0.0), self._log10_fmr(score))

    def _log10(self, score: float, curve: tuple[float, ...], tail: Callable[[float], float]) -> float:
        if score <= self.scores[0]:
            return curve[0] if score == self.scores[0] else 0.0
        if score > self.scores[-1]:
            # the tail starts where the measured curve ends: without a jump, and never on the surer side of the fit
            lift = max(0.0, curve[-1] - tail(self.scores[-1]))
            return min(tail(score) + lift, curve[-1])
        right = bisect_right(self.scores, score)
        if right == len(self.scores):
            return curve[-1]
        low, high = self.scores[right - 1], self.scores[right]
        share = (score - low) / (high - low)
        return curve[right - 1] + share * (curve[right] - curve[right - 1])

    def _guess(self, log10_fmr: float) -> float:
        return self._score_of(log10_fmr, self.log10_fmr, self.tail.log10_fmr, self.tail.score_of)

    def _guess_upper(self, log10_fmr: float) -> float:
        return self._score_of(log10_fmr, self.log10_fmr_upper, self.tail.log10_fmr_upper, self.tail.score_of_upper)

    def _score_of(
        self,
        wanted: float,
        curve: tuple[float, ...],
        tail: Callable[[float], float],
        score_of: Callable[[float], float],
    ) -> float:
        """Return the lowest score at which `_log10` is `wanted`, as far as rounding lets it."""
        right = bisect_left(curve, -wanted, key=operator.neg)
        if right == len(curve):
            return score_of(wanted - max(0.0, curve[-1] - tail(self.scores[-1])))
        if right == 0:
            return self.scores[0]
        low, high = self.scores[right - 1], self.scores[right]
        share = (wanted - curve[right - 1]) / (curve[right] - curve[right - 1])
        return low + share * (high - low)


def _lowest(log10_rate: Callable[[float], float], wanted: float, guess: float) -> float | None:
    """Return the lowest step above -1 and up to 1 at which the falling function is at most `wanted`, None if none is.

    Where it lies at the `guess`, as nearly always, that takes two looks; else all steps are bisected.
    """

    def is_met(step: int) -> bool:
        return log10_rate(step / _STEPS - 1) <= wanted

    steps = range(1, 2 * _STEPS + 1)
    guessed = math.ceil((max(-1.0, min(guess, 1.0)) + 1) * _STEPS)
    if guessed in steps and is_met(guessed) and not is_met(guessed - 1):
        return guessed / _STEPS - 1
    found = bisect_left(steps, x=True, key=is_met)
    return steps[found] / _STEPS - 1 if found < len(steps) else None


def fmr_for_fpir(fpir: float, comparisons: int) -> float:
    """Return the false match rate of one comparison that gives `fpir` over `comparisons` independent ones.

    FMR* = 1 - (1 - FPIR)^(1/N), computed without cancellation. An empty gallery is treated as N = 1: someone who enrols
    during the search is then judged as strictly as the operation asked.

    Raises:
        ValueError: fpir not in (0, 1), or comparisons negative.
    """
    if not 0 < fpir < 1 or comparisons < 0:
        raise ValueError("fpir must lie between 0 and 1, and comparisons must not be negative")
    return -math.expm1(math.log1p(-fpir) / max(comparisons, 1))
