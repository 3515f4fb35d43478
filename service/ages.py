"""Ages at capture, years between captures, and when somebody is to be captured anew (pure)."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from service.domain import CaptureFacts, EncounterFacts

_DAYS_A_YEAR = 365.2425
YOUNG_CHILD, CHILD = 5, 16
"""Ages, in years, below which the first and the second of the intervals of `RecaptureAdvice` hold."""


def age_at_capture(capture: CaptureFacts) -> int | None:
    """Return the year of capture less the year of birth; the person may be one year younger. None: not known."""
    if capture.birth_year is None or capture.captured_at is None:
        return None
    return max(0, capture.captured_at.year - capture.birth_year)


def least_age(capture: CaptureFacts) -> int | None:
    """Return the least age, in full years, that a person may have had when captured.

    Where nobody says when that was, it counts as captured when it was recorded: at a desk. None was captured later
    than that, whatever somebody says. None: no year of birth.
    """
    moments = [moment for moment in (capture.captured_at, capture.recorded_at) if moment is not None]
    if capture.birth_year is None or not moments:
        return None
    return max(0, min(moments).year - capture.birth_year - 1)


def years_between(one: CaptureFacts, other: CaptureFacts) -> float | None:
    """Return the years between two captures, to a tenth; None where one of the two is not known."""
    if one.captured_at is None or other.captured_at is None:
        return None
    return round(abs(other.captured_at - one.captured_at) / timedelta(days=_DAYS_A_YEAR), 1)


@dataclass(frozen=True, slots=True)
class RecaptureAdvice:
    """After how many years somebody is to be captured anew, by age. A judgement, not a measurement (decision 0019)."""

    years_under_5: float = 1.0
    years_under_16: float = 2.0
    years_from_16: float = 10.0

    def due(self, capture: CaptureFacts) -> datetime | None:
        """Return when a sample is due to be taken anew; None where nobody says when it was captured.

        Somebody of unknown age counts as grown up: the longest interval.
        """
        if capture.captured_at is None:
            return None
        years = self.interval(least_age(capture))
        try:
            return capture.captured_at + timedelta(days=years * _DAYS_A_YEAR)
        except OverflowError:
            return None

    def interval(self, age: int | None) -> float:
        """Return the years for somebody of this age."""
        if age is None or age >= CHILD:
            return self.years_from_16
        return self.years_under_5 if age < YOUNG_CHILD else self.years_under_16

    def newest_due(self, encounters: list[EncounterFacts]) -> datetime | None:
        """Return when a person is due: the latest of what is due of each of their samples."""
        return max((due for facts in encounters if (due := self.due(facts.capture())) is not None), default=None)
