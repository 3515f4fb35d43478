"""How much the codes of sealed segments miss: counted by searches that are repeated exactly."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from scipy.special import betaincinv

from service.domain import Embeddings
from service.errors import IndexUnavailable
from service.gallery.sealed_segment import SealedSegment, Tally
from service.logs import log_event

_log = logging.getLogger(__name__)

AUDIT_EVERY_S = 2.0  # a search is repeated exactly in a stretch of one segment: less than a hundredth of one core
_CONFIDENCE = 0.95


class Auditor:
    """Repeats a live search exactly now and then, in one segment after the other, on a thread of its own."""

    def __init__(self) -> None:
        self._next_s = 0.0
        self._turn = 0

    def now_and_then(
        self,
        segments: Sequence[object],
        probes: Embeddings,
        threshold: float,
        reading: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Repeat this search in one of the sealed ones of `segments`, if the last audit is long ago.

        `reading` is held meanwhile; it raises IndexUnavailable for SnapshotDamaged.
        """
        now = time.monotonic()
        if not len(probes) or now < self._next_s:
            return
        sealed = [segment for segment in segments if isinstance(segment, SealedSegment)]
        if not sealed:
            return
        self._next_s = now + AUDIT_EVERY_S
        self._turn += 1
        segment, audited = sealed[self._turn % len(sealed)], probes[:1].copy()
        threading.Thread(target=_audit, args=(segment, audited, threshold, reading), name="audit", daemon=True).start()


def miss_bound(sealed: Sequence[SealedSegment]) -> float:
    """Return the upper 95 % bound on the share of pairs at or above a threshold that a search misses.

    From all audits of the segments; 0 without any. Source: Clopper and Pearson, Biometrika 26(4), 1934.
    """
    tallies = [segment.tally for segment in sealed]
    return _upper_bound(Tally(sum(each.pairs for each in tallies), sum(each.missed for each in tallies)))


def _audit(
    segment: SealedSegment,
    probes: Embeddings,
    threshold: float,
    reading: Callable[[], AbstractContextManager[None]],
) -> None:
    try:
        with reading():
            missed = segment.audit(probes, threshold)
    except IndexUnavailable as error:
        log_event(_log, "index.audit_failed", level=logging.ERROR, error=error)
        return
    if missed:
        log_event(_log, "index.candidates_missed", level=logging.WARNING, count=missed)


def _upper_bound(tally: Tally) -> float:
    if not tally.pairs:
        return 0.0
    if tally.missed == tally.pairs:
        return 1.0
    return float(betaincinv(tally.missed + 1, tally.pairs - tally.missed, _CONFIDENCE))
