"""Whether a calibration keeps its promise of false alarms, with a test that seldom accuses it wrongly (pure)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from scipy.stats import binom

from service.evaluation.figures import Figure

FALSE_VERDICTS = 0.05  # of the reports of a calibration that keeps all its promises, at most
NO_DIFFERENCE, MORE, FEWER = "no clear difference", "may be more", "may be fewer"

_SEEN = 0.8  # chance that a doubled share of false alarms is noticed
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Promise:
    """The share of false alarms that a calibration promises at one size of the gallery, and what was found."""

    found: Figure  # fpir
    missed: Figure | None  # fnir at the same threshold
    tests: int  # in the same report
    verdict: str

    @property
    def target(self) -> float:
        return self.found.target or 0.0

    @property
    def shows_from(self) -> float:
        """The lowest share of false alarms that is called more than promised."""
        return _shows_from(self.target, self.found.people, self.tests)

    @property
    def people_needed(self) -> int:
        """How many people it takes to notice a doubled share most of the time, to two digits."""
        noticed, seen = NormalDist().inv_cdf(1 - _tail(self.tests)), NormalDist().inv_cdf(_SEEN)
        double = min(2 * self.target, 1 - self.target)
        spread = noticed * _deviation(self.target) + seen * _deviation(double)
        return int(float(f"{(spread / (double - self.target)) ** 2:.2g}"))


def promises(figures: Sequence[Figure]) -> list[Promise]:
    """Return each promise that was tested, in the order of the figures."""
    claimed = [each for each in figures if each.chosen_by == "calibration" and each.rank is None]
    missed = {(each.gallery_size, each.target): each for each in claimed if each.measure == "fnir"}
    tested = [each for each in claimed if each.measure == "fpir"]
    return [
        Promise(each, missed.get((each.gallery_size, each.target)), len(tested), verdict(each, len(tested)))
        for each in tested
    ]


def verdict(found: Figure, tests: int) -> str:
    """Return whether an FPIR differs from its target, as one of so many tests.

    Everyone is one trial, however many of the divisions they were searched in, and the tests share `FALSE_VERDICTS`
    (Bonferroni). The interval of the figure cannot tell: it leaves out who was enrolled beside whom, and one test in
    twenty fails by chance. By it, more than a quarter of the reports on the calibration's own people saw a difference.
    """
    target = found.target or 0.0
    flagged = found.value * found.people
    if binom.sf(math.floor(flagged + _ROUNDING) - 1, found.people, target) < _tail(tests):
        return MORE
    return FEWER if binom.cdf(math.ceil(flagged - _ROUNDING), found.people, target) < _tail(tests) else NO_DIFFERENCE


def _shows_from(target: float, people: int, tests: int) -> float:
    # isf(q) is the lowest count that is exceeded with a chance of q at most
    return min(1.0, (float(binom.isf(_tail(tests), people, target)) + 1) / people)


def _tail(tests: int) -> float:
    return FALSE_VERDICTS / 2 / tests


def _deviation(share: float) -> float:
    return math.sqrt(share * (1 - share))
