"""Keeps what receipts promise: files of the index without the erased in time, keys destroyed, logs emptied."""

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from service.errors import BiodedupError
from service.index_care import IndexCare
from service.logs import log_event
from service.metrics import Metrics

LOOK_S = 15.0
AT_ONCE = timedelta(seconds=60)
"""For what an erasure does by itself, and this only where that failed."""

PARTS = ("keys", "log", "key_store", "index")

_log = logging.getLogger(__name__)


class ErasedRecord(Protocol):
    """What a record says of its erasures."""

    def gallery_heads(self) -> dict[str, int]:
        """Return the number of the last change of each gallery."""
        ...

    def first_erasing(self, gallery_id: str, after: int) -> tuple[int, datetime] | None:
        """Return number and time of the first change behind `after` that erased templates."""
        ...

    def finish_erasures(self) -> None:
        """Do what an erasure could not: destroy its key, empty SQLite's log."""
        ...

    def oldest_undestroyed(self) -> datetime | None:
        """Return when the oldest erasure was whose key is not destroyed yet."""
        ...

    @property
    def log_due_since(self) -> datetime | None:
        """Since when SQLite's write-ahead log may hold what was erased."""
        ...


class PurgedKeys(Protocol):
    """Keys of which nothing is left, in memory and in files, once they are destroyed."""

    def forget_destroyed(self) -> None: ...

    def unpurged_since(self) -> datetime | None: ...

    def purge(self) -> None: ...


class ErasureUpkeep:
    """Looks now and then, on a thread of its own, whether anything of the erased is left, and removes it.

    Segments of an index are made anew once the oldest erasure in them has waited for half of its time: many erasures
    cost one compaction, and half of the time is left for what fails. Each process looks after its own index.

    Args:
        record: of the erasures.
        keys: destroyed after them.
        care: of the indexes.
        metrics: told how far anything is beyond its time.
        compact_within: after an erasure, the time by which no file of an index may hold anything of it.
        purge_within: the same of the key store's files.
        clock: time zone aware.
    """

    def __init__(
        self,
        record: ErasedRecord,
        keys: PurgedKeys,
        care: IndexCare,
        metrics: Metrics,
        *,
        compact_within: timedelta,
        purge_within: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self._record, self._keys, self._care, self._metrics = record, keys, care, metrics
        self._compact_within, self._purge_within, self._clock = compact_within, purge_within, clock
        self._compact_to: dict[str, int] = {}  # by gallery: the change up to which its index is compact
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="erasures", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop after what is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Do what is due, then say how far anything is beyond its time. What fails is logged and tried again."""
        self._try(self._record.finish_erasures)
        self._try(self._keys.forget_destroyed)  # those that another process destroyed
        self._try(self._purge_keys)
        self._try(self._compact_due)
        self._try(self._tell)

    def _purge_keys(self) -> None:
        if self._is_due(self._keys.unpurged_since(), self._purge_within):
            self._keys.purge()

    def _compact_due(self) -> None:
        for gallery_id, last_seq in self._record.gallery_heads().items():
            if not self._stopping.is_set():
                self._try(partial(self._compact, gallery_id, last_seq))

    def _compact(self, gallery_id: str, last_seq: int) -> None:
        """Make the index of a gallery compact, if that is due."""
        found = self._first_erasing(gallery_id)
        if found is None:
            # nothing was erased up to there, so that the next look need not read it again
            self._compact_to[gallery_id] = last_seq
        elif self._is_due(found, self._compact_within):
            self._care.compact(gallery_id)
            self._compact_to[gallery_id] = last_seq
            log_event(_log, "erasure.compacted", gallery_id=gallery_id, seq=last_seq)

    def _first_erasing(self, gallery_id: str) -> datetime | None:
        """Return when the first change was whose templates the files of the index may still hold."""
        found = self._record.first_erasing(gallery_id, self._compact_to.get(gallery_id, 0))
        if found is None:
            return None
        seq, when = found
        self._compact_to[gallery_id] = seq - 1
        return when

    def _is_due(self, since: datetime | None, within: timedelta) -> bool:
        return since is not None and since + within / 2 <= self._clock()

    def _tell(self) -> None:
        waiting: dict[str, tuple[Callable[[], Iterable[datetime | None]], timedelta]] = {
            "keys": (lambda: [self._record.oldest_undestroyed()], AT_ONCE),
            "log": (lambda: [self._record.log_due_since], AT_ONCE),
            "key_store": (lambda: [self._keys.unpurged_since()], max(self._purge_within, AT_ONCE)),
            "index": (lambda: map(self._first_erasing, self._record.gallery_heads()), self._compact_within),
        }
        for part, (moments, within) in waiting.items():
            # each by itself: a key store that does not answer must not hide that keys wait for it
            self._try(partial(self._tell_part, part, moments, within))

    def _tell_part(self, part: str, moments: Callable[[], Iterable[datetime | None]], within: timedelta) -> None:
        now = self._clock()
        late = [(now - since - within).total_seconds() for since in moments() if since is not None]
        self._metrics.erasure_overdue.labels(part=part).set(max([0.0, *late]))

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except BiodedupError as error:
            log_event(_log, "erasure.not_finished", level=logging.ERROR, code=error.code, error=error)

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception as error:  # noqa: BLE001  (the thread must outlive whatever one look meets)
                log_event(_log, "erasure.look_failed", level=logging.ERROR, error=error)
            if self._stopping.wait(LOOK_S):
                return
