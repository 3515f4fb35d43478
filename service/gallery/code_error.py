"""What the codes of a sealed segment make of a score: how low a code may be, and how long a shortlist must be."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# a candidate is missed if its code makes it look worse by more than this many standard deviations: 3 of 100,000 of
# those that lie exactly at the threshold, fewer above it
SURE_DEVIATIONS = 4.0

SHORTEST = 16  # templates of a shortlist; the next are twice as long each
_WIDER = 3  # lengths further, eight times as long, is the second shortlist
_LONGEST_SHARE = 8  # of the segment: longer lists cost more than comparing all of it


@dataclass(frozen=True, slots=True)
class CodeError:
    """Measured when the segment was sealed.

    A probe at cosine c to a template is c times the template and sqrt(1 - c^2) times something else. The code shows of
    the first part about `slope`, more of one template and less of another (`own_deviation`), and of the second part
    noise (`other_deviation`). The few templates whose code shows very little of them are `odd`: always compared
    exactly.
    """

    slope: float
    own_deviation: float
    other_deviation: float
    odd: npt.NDArray[np.int64]  # places, ascending
    tails: tuple[float, ...]  # of a shortlist of each of `lengths`: where nine probes of ten have its end, or lower

    def cutoff(self, threshold: float) -> float:
        """Return the code's score below which a candidate at `threshold` hardly ever falls.

        A threshold can lie above 1, where no score reaches: a calibration says so that the wanted rate is out of reach.
        """
        deviation = math.hypot(
            threshold * self.own_deviation, math.sqrt(max(0.0, 1 - threshold**2)) * self.other_deviation
        )
        return self.slope * threshold - SURE_DEVIATIONS * deviation

    def attempts(self, threshold: float) -> list[int]:
        """Return how long the first shortlist should be and, where that ends too early, the second.

        None are worth it where even the longest is likely to end above the cutoff.
        """
        cutoff = self.cutoff(threshold)
        first = next((number for number, tail in enumerate(self.tails) if tail < cutoff), None)
        if first is None:
            return []
        second = min(first + _WIDER, len(self.tails) - 1)
        return [SHORTEST << number for number in sorted({first, second})]


def lengths(templates: int) -> list[int]:
    """Return the possible lengths of a shortlist from a segment of so many templates, ascending."""
    found = []
    length = SHORTEST
    while length * _LONGEST_SHARE <= templates:
        found.append(length)
        length *= 2
    return found
