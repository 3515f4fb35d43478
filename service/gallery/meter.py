"""What an index tells the metrics: times of a search, lengths of shortlists, times of building."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Spent:
    """What one search of an index took, an entry a segment; its threads append side by side."""

    open_s: list[float] = field(default_factory=list)  # seconds: comparing with open segments
    codes_s: list[float] = field(default_factory=list)  # scanning codes for shortlists
    fine_s: list[float] = field(default_factory=list)  # scores of the shortlists by their fine codes
    rows_s: list[float] = field(default_factory=list)  # true scores of what is left of them
    shortlisted: list[int] = field(default_factory=list)  # pairs that the codes could not rule out


class Meter:
    """Records into one process's metrics: once a search, however many segments, for an observation takes as long as a
    thousand comparisons.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._phases = {
            phase: metrics.index_search_seconds.labels(phase=phase) for phase in ("open", "codes", "fine", "rows")
        }
        self._shortlists = metrics.index_shortlist_templates
        self._together = metrics.index_batch_probes
        self._builds = metrics.index_build_seconds

    def searched(self, probes: int, spent: Spent) -> None:
        """Record a search of `probes`, those of other requests too."""
        self._together.observe(probes)
        seconds = {
            "open": spent.open_s,
            "codes": spent.codes_s,
            "fine": spent.fine_s,
            "rows": spent.rows_s,
        }
        for phase, parts in seconds.items():
            if parts:
                self._phases[phase].observe(sum(parts))
        if spent.shortlisted:
            self._shortlists.observe(sum(spent.shortlisted) / probes)

    @contextmanager
    def building(self, kind: str) -> Iterator[None]:
        """Record how long a new segment takes, also when it fails. `kind`: seal, merge or compaction."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._builds.labels(kind=kind).observe(time.perf_counter() - start)
