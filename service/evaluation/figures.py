"""What a measurement found: one line a rate, each with its interval and what it rests on (pure)."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from service.spreadsheets import cell

FloatArray = npt.NDArray[np.float64]

QUANTILES = (0.025, 0.975)
REPLICATES = 200  # of the bootstrap over people; the outer quantiles then rest on five of them
FEW_PEOPLE = 30  # below, a rate says more of them than of others like them
FEWEST_TOLD = 5  # of a group that is told of: fewer could be recognised by it


@dataclass(frozen=True, slots=True)
class Figure:
    """A rate of ISO/IEC 19795-1 with its 95 % interval, by a bootstrap over people.

    `measure` is failure_to_acquire, fmr, fnmr, fpir or fnir. `target` is the rate that the threshold was chosen for,
    `chosen_by` how: "here" on these photographs, "calibration" by that of the model pack.
    """

    measure: str
    value: float
    low: float
    high: float
    trials: int  # photographs, comparisons or searches, as the measure counts
    people: int
    threshold: float | None = None
    target: float | None = None
    chosen_by: str | None = None
    gallery_size: int | None = None
    rank: int | None = None  # that the right reference must have; None: any
    label: str | None = None
    group: str | None = None

    @property
    def rests_on_few(self) -> bool:
        return self.people < FEW_PEOPLE


def figure(measure: str, value: float, replicates: FloatArray, *, trials: int, people: int, **facts: Any) -> Figure:
    """Return a figure whose interval spans the replicates, (b,); those without a value are NaN and left out.

    Resampling people of whom none (or each) had an error gives none (or each) again: there the interval reaches as far
    as so many people allow, by the same 95 %.
    """
    known = replicates[~np.isnan(replicates)]
    low, high = (float(each) for each in np.quantile(known, QUANTILES)) if len(known) else (value, value)
    allowed = 1 - float(QUANTILES[0]) ** (1 / people)
    if value == 0:
        high = max(high, allowed)
    if value == 1:
        low = min(low, 1 - allowed)
    return Figure(measure, value, min(low, value), max(high, value), trials, people, **facts)


def to_csv(figures: Iterable[Figure]) -> str:
    """Return all figures as CSV, a line each, with the names of the fields as columns."""
    out = io.StringIO()
    names = [field.name for field in fields(Figure)]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for each in figures:
        writer.writerow(_cell(getattr(each, name)) for name in names)
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str):
        return cell(value)
    return "" if value is None else value
