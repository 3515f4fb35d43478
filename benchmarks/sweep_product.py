"""The matrix product of all templates with all: what a sweep is measured beside."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.search_gallery import BLOCK, FloatArray

TEMPLATES_EACH = 8  # of a subject: the record fills in a minute
PROBE_BLOCKS = (256, 1024, 4096)  # the best of them is measured

Pairs = set[frozenset[str | None]]
"""Pairs of subjects."""


def subject_of(number: int) -> str:
    return f"s-{number // TEMPLATES_EACH}"


@dataclass(frozen=True)
class Cost:
    """Seconds on the wall and of all processors."""

    wall_s: float
    cpu_s: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)


def timed(work: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def product_of_all(rows: FloatArray, threshold: float, threads: int, share: float) -> tuple[int, Cost, Pairs]:
    """Return the best block of probes, the cost of the whole product, and the pairs in the part that was measured."""
    found: Pairs = set()
    with threadpool_limits(limits=threads):
        trials = {block: timed(lambda block=block: _product(rows, 0, block, threshold)) for block in PROBE_BLOCKS}  # type: ignore[misc]  # mypy cannot infer such a lambda
        best = min(trials, key=lambda block: trials[block].wall_s / block)
        count = max(round(share * len(rows) / best), 1)
        starts = np.linspace(0, max(len(rows) - best, 0), count).astype(int).tolist()
        cost = timed(lambda: found.update(*(_product(rows, start, best, threshold) for start in starts)))
    scale = len(rows) / min(best * count, len(rows))
    return best, Cost(cost.wall_s * scale, cost.cpu_s * scale), found


def _product(rows: FloatArray, start: int, block: int, threshold: float) -> Pairs:
    """Return the pairs of subjects at or above the threshold, one of them among `block` probes from `start` on."""
    probes = rows[start : start + block]
    found: Pairs = set()
    for first in range(0, len(rows), BLOCK):
        scores = rows[first : first + BLOCK] @ probes.T
        for row, column in zip(*np.divmod(np.flatnonzero(scores.ravel() >= threshold), len(probes)), strict=True):
            pair = frozenset((subject_of(first + int(row)), subject_of(start + int(column))))
            if len(pair) == 2:
                found.add(pair)
    return found
