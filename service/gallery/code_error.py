"""What the codes of a sealed segment make of a score: how low that of a candidate may be."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# a candidate is missed if its code makes it look worse by more than this many standard deviations: 3 of a million of
# those that lie exactly at the threshold, fewer above it
COARSE_SURE = 4.5
# the errors of fine codes are small but not normal (2 of 10,000 beyond four deviations), and rows are few
FINE_SURE = 6.0


@dataclass(frozen=True, slots=True)
class CodeError:
    """Of one kind of codes, measured when the segment was sealed.

    A probe at cosine c to a template is c times the template and sqrt(1 - c^2) times something else. The code shows of
    the first part about `slope`, more of one template and less of another (`own_deviation`), and of the second part
    noise (`other_deviation`).
    """

    slope: float
    own_deviation: float
    other_deviation: float
    sure: float  # deviations that are left below what is expected

    def cutoff(self, threshold: float) -> float:
        """Return the code's score below which a candidate at `threshold` hardly ever falls.

        A threshold can lie above 1, where no score reaches: a calibration says so that the wanted rate is out of reach.
        Its cutoff is that of 1: above what codes can show, FAISS's numbers of 16 bits may turn over, and all is found.
        """
        threshold = min(threshold, 1.0)
        deviation = math.hypot(
            threshold * self.own_deviation, math.sqrt(max(0.0, 1 - threshold**2)) * self.other_deviation
        )
        return self.slope * threshold - self.sure * deviation


@dataclass(frozen=True, slots=True)
class CodeErrors:
    """Of both codes of a segment. The few templates whose codes show very little of them are `odd`: always compared
    exactly.
    """

    coarse: CodeError
    fine: CodeError
    odd: npt.NDArray[np.int64]  # places, ascending
