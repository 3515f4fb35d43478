"""From scores to false match rates and back, and what a threshold is expected to miss (pure)."""

import hashlib
import json
import math
import operator
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any

from service.domain import FalseMatchRate

_STEPS = 1 << 17  # of a threshold between 0 and 1: well below what a photograph can repeat
_Z = 1.96  # normal quantile of a two-sided interval of 95 %
_ABOVE_ALL = 1.00001  # a threshold that no score reaches
_METHODS = ("photographs", "gallery")

# what a calibration can hold, far beyond all that was ever measured: it may come from anybody
_TEXTS = ("pack_id", "model_id", "population", "mated_population")
_LONGEST_TEXT = 2000  # characters: answers repeat it
_LARGEST = 2**53  # beyond, not every reader of JSON keeps all digits
_COUNTS = ("people", "comparisons", "mated_people")
_COSINES = (-1.001, 1.001)  # a product of float32 vectors of length 1 can be 1.0000001
_LOG10_RATES = (-100.0, 0.0)  # ten to the power of less than -308 is 0, whose logarithm is none
_NUMBERS = {"found_mates": (0.0, _LARGEST), "measured_to": _COSINES}
_MOST_POINTS = 10_000  # of a curve
_CURVES = {
    "scores": _COSINES,
    "log10_fmr": _LOG10_RATES,
    "log10_fmr_lower": _LOG10_RATES,
    "log10_fmr_upper": _LOG10_RATES,
    "mated_scores": _COSINES,
}

Curve = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the scores of one model mean, measured on one population. Terms: ISO/IEC 19795-1.

    `log10_fmr` is the rate to expect at each of `scores`, a mean over what the data leave open; 95 % of that lies
    between the other two curves. `service.calibration_fit` makes all of it.
    """

    pack_id: str
    model_id: str  # of the templates that were compared
    method: str  # "photographs" of known people, or "gallery": templates of which nobody said whose they are
    population: str  # who the people are, in plain words
    people: int
    comparisons: int  # of photographs, or templates, of different people
    found_mates: float  # pairs that look like one person although nothing says so, by the fit
    scores: Curve  # cosine, ascending, to 1
    log10_fmr: Curve
    log10_fmr_lower: Curve
    log10_fmr_upper: Curve
    measured_to: float  # the score that about twenty pairs of different people reach; beyond, the curve is a model
    mated_scores: Curve  # of mated pairs, ascending: quantiles
    mated_people: int  # who have them
    mated_population: str  # who those are
    calibration_id: str = field(init=False)
    """The pack and a digest of all of the above: two calibrations of one id are the same."""

    def __post_init__(self) -> None:
        """Refuse a curve on which a higher score could look less sure: every threshold rests on that.

        Raises:
            ValueError: a field is of another kind or out of any range, or the lists do not fit each other or are out
                of order.
        """
        _check_fields(self.as_json())
        curves = (self.log10_fmr_upper, self.log10_fmr, self.log10_fmr_lower)
        if len(self.scores) < 2 or any(len(curve) != len(self.scores) for curve in curves):
            raise ValueError("a calibration needs a rate and two bounds for each of at least two scores")
        if any(low >= high for low, high in pairwise(self.scores)):
            raise ValueError("the scores of a calibration must ascend")
        if self.scores[-1] < 1:
            raise ValueError("the scores of a calibration must reach 1")
        if any(left < right for curve in curves for left, right in pairwise(curve)):
            raise ValueError("the false match rates of a calibration must not rise")
        if any(not lower <= middle <= upper for upper, middle, lower in zip(*curves, strict=True)):
            raise ValueError("a rate of a calibration lies outside its bounds")
        if not self.mated_scores or any(left > right for left, right in pairwise(self.mated_scores)):
            raise ValueError("a calibration needs mated scores in ascending order")
        digest = hashlib.sha256(json.dumps(self.as_json()).encode()).hexdigest()
        object.__setattr__(self, "calibration_id", f"{self.pack_id}-{digest[:12]}")

    @classmethod
    def from_json(cls, text: str) -> "Calibration":
        """Read what `to_json` wrote.

        Raises:
            ValueError: it is something else, or was changed since.
        """
        data = json.loads(text)
        names = [each.name for each in fields(cls)]
        if not isinstance(data, dict) or any(name not in data for name in names):
            raise ValueError("this is no calibration")
        given = {each.name: data[each.name] for each in fields(cls) if each.init}
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
        read = cls(**values)
        if data["calibration_id"] != read.calibration_id:
            raise ValueError("the calibration was changed since it was made")
        return read

    def to_json(self) -> str:
        """Return the text of a `calibration.json`, a line a key."""
        entries = {"calibration_id": self.calibration_id, **self.as_json()}
        lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items())
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def as_json(self) -> dict[str, Any]:
        """Return everything but the id, which is a digest of it."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.init}

    def false_match_rate(self, score: float) -> FalseMatchRate:
        """Return the chance that two different people score at least this high."""
        return FalseMatchRate(
            fmr=10 ** self._log10(score, self.log10_fmr),
            fmr_upper=10 ** self._log10(score, self.log10_fmr_upper),
            extrapolated=self.is_extrapolated(score),
        )

    def fmr_lower(self, score: float) -> float:
        """Return the lower 95 % bound of the false match rate."""
        return float(10 ** self._log10(score, self.log10_fmr_lower))

    def threshold(self, fmr: float) -> float:
        """Return the lowest score whose expected false match rate is at most `fmr` (0..1).

        Where that is none, it lies above every possible score: nothing is found, and `expected_fnir` says so.
        """
        found = self._lowest(math.log10(fmr), self.log10_fmr)
        return _ABOVE_ALL if found is None else found

    def threshold_by_upper_bound(self, fmr: float) -> float | None:
        """Return the lowest score whose upper 95 % bound of the false match rate is at most `fmr`, None if none is."""
        return self._lowest(math.log10(fmr), self.log10_fmr_upper)

    def expected_fnir(self, threshold: float) -> float:
        """Return the share of mated pairs of the measured population that score below `threshold`."""
        return bisect_left(self.mated_scores, threshold) / len(self.mated_scores)

    def expected_fnir_interval(self, threshold: float) -> tuple[float, float]:
        """Return the 95 % interval of `expected_fnir`, by Wilson's score (1927), each person counted once."""
        share, people = self.expected_fnir(threshold), self.mated_people
        return wilson_interval(share * people, people)

    def is_extrapolated(self, threshold: float) -> bool:
        return threshold > self.measured_to

    def _log10(self, score: float, curve: Curve) -> float:
        right = bisect_right(self.scores, score)
        if right == 0:
            return 0.0
        if right == len(self.scores):
            return curve[-1]
        low, high = self.scores[right - 1], self.scores[right]
        share = (score - low) / (high - low)
        # between the two ends whatever the rounding: a higher score must never look less sure
        return max(curve[right - 1] + share * (curve[right] - curve[right - 1]), curve[right])

    def _lowest(self, wanted: float, curve: Curve) -> float | None:
        """Return the lowest step above -1 and up to 1 at which the curve is at most `wanted`, None if none is.

        It lies within rounding of where the curve crosses it: two looks, nearly always.
        """
        if curve[-1] > wanted:
            return None
        step = max(1, math.ceil((self._crossing(wanted, curve) + 1) * _STEPS))
        while step > 1 and self._log10((step - 1) / _STEPS - 1, curve) <= wanted:
            step -= 1
        while self._log10(step / _STEPS - 1, curve) > wanted:
            step += 1
        return step / _STEPS - 1

    def _crossing(self, wanted: float, curve: Curve) -> float:
        """Return the score at which the curve has fallen to `wanted`, as far as rounding lets it."""
        right = bisect_left(curve, -wanted, key=operator.neg)
        if right == 0:
            return self.scores[0] if wanted < 0 else -1.0
        low, high = self.scores[right - 1], self.scores[right]
        share = (wanted - curve[right - 1]) / (curve[right] - curve[right - 1])
        return low + share * (high - low)


def _check_fields(values: dict[str, Any]) -> None:
    """Refuse what no reader of a calibration could work with. Raises ValueError."""
    for name in _TEXTS:
        if not _is_text(values[name]):
            raise ValueError(f"the {name} of a calibration must be a text of 1 to {_LONGEST_TEXT} characters")
    if values["method"] not in _METHODS:
        raise ValueError(f"the method of a calibration must be one of {', '.join(_METHODS)}")
    for name in _COUNTS:
        if not isinstance(values[name], int) or not _lies_within(values[name], (1, _LARGEST)):
            raise ValueError(f"the {name} of a calibration must be a whole number of 1 or more")
    for name, limits in _NUMBERS.items():
        if not _lies_within(values[name], limits):
            raise ValueError(f"the {name} of a calibration must be a number from {limits[0]:g} to {limits[1]:g}")
    for name, limits in _CURVES.items():
        if not _is_curve(values[name], limits):
            of_range = f"numbers from {limits[0]:g} to {limits[1]:g}"
            raise ValueError(f"the {name} of a calibration must be up to {_MOST_POINTS:,} {of_range}")


def _is_text(value: object) -> bool:
    # neither a lone surrogate nor NUL can be written into every answer and every record
    return (
        isinstance(value, str)
        and 1 <= len(value) <= _LONGEST_TEXT
        and not any(each == "\0" or "\ud800" <= each <= "\udfff" for each in value)
    )


def _is_curve(value: object, limits: tuple[float, float]) -> bool:
    return isinstance(value, tuple) and len(value) <= _MOST_POINTS and all(_lies_within(each, limits) for each in value)


def _lies_within(value: object, limits: tuple[float, float]) -> bool:
    """Return whether it is a number between the limits; NaN is between none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and limits[0] <= value <= limits[1]


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


def fpir_of_fmr(fmr: float, comparisons: int) -> float:
    """Return the share of searches of new people with a false match, over `comparisons` independent ones."""
    if fmr >= 1:
        return 1.0
    return -math.expm1(max(comparisons, 1) * math.log1p(-fmr))


def wilson_interval(found: float, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, by Wilson's score (1927); 0 to 1 where there are no trials."""
    if not trials:
        return 0.0, 1.0
    share = found / trials
    middle = (share + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
    half = _Z / (1 + _Z**2 / trials) * math.sqrt(share * (1 - share) / trials + (_Z / (2 * trials)) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)
