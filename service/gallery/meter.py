"""What the segments of an index tell the metrics: times of a search, lengths of shortlists, times of building."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.metrics import Metrics


class Meter:
    """Records into one process's metrics. A search of a segment costs it some microseconds, however many probes."""

    def __init__(self, metrics: Metrics) -> None:
        self._codes = metrics.index_search_seconds.labels(phase="codes")
        self._rows = metrics.index_search_seconds.labels(phase="rows")
        self._exact = metrics.index_search_seconds.labels(phase="exact")
        self._open = metrics.index_search_seconds.labels(phase="open")
        self._shortlists = metrics.index_shortlist_templates
        self._second = metrics.index_widenings.labels(step="second")
        self._compared = metrics.index_widenings.labels(step="exact")
        self._together = metrics.index_batch_probes
        self._builds = metrics.index_build_seconds

    def searched_together(self, probes: int) -> None:
        """Record how many probes one search of the whole index had, those of other requests too."""
        self._together.observe(probes)

    def searched_open(self, seconds: float) -> None:
        self._open.observe(seconds)

    def searched_codes(self, codes_s: float, rows_s: float) -> None:
        """Record one shortlist: the scan of the codes, and the true scores of what it found."""
        self._codes.observe(codes_s)
        self._rows.observe(rows_s)

    def shortlisted(self, probes: int, templates: int) -> None:
        """Record the mean shortlist of `probes`, `templates` together: one observation, so that a batch stays cheap."""
        if probes:
            self._shortlists.observe(templates / probes)

    def widened(self, probes: int) -> None:
        self._second.inc(probes)

    def compared_with_all(self, probes: int, seconds: float) -> None:
        """Record probes that no shortlist was long enough for."""
        self._compared.inc(probes)
        self._exact.observe(seconds)

    @contextmanager
    def building(self, kind: str) -> Iterator[None]:
        """Record how long a new segment takes, also when it fails. `kind`: seal, merge or compaction."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._builds.labels(kind=kind).observe(time.perf_counter() - start)
