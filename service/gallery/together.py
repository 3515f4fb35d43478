"""Searches that come while another one runs are made together when it ends: many probes cost little more than one."""

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from service.domain import Embeddings, Hit

Found = list[list[Hit]]
SearchAll = Callable[[Embeddings, float], Found]
_PAUSE_S = 0.001  # without an addition: whoever adds is in no hurry, and waits for nobody
_USED_S = 1.0  # after a search
_PATIENCE_S = 0.005  # that one addition waits for a search at most
_NICE = 5  # of 19
MOST = 256  # probes searched together; more gain nothing and keep the first of them waiting


@dataclass(slots=True, eq=False)
class _Request:
    """A search that waits, until it is `called`: to lead the next batch, or because its answer is there."""

    probes: Embeddings
    threshold: float
    called: threading.Event = field(default_factory=threading.Event)
    found: Found | None = None
    error: BaseException | None = None


class Together:
    """Makes one search at a time, of all that wait with the same threshold. Safe for use by many threads.

    The thread of the first one that waits leads: it searches for all of them, then calls the next to lead. A search
    begins after it was asked for, so that whatever was added before is in it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)  # a search, of one batch
        self._waiting: list[_Request] = []
        self._is_led = False
        self._last_s = -math.inf  # when a search ended

    def search(self, search_all: SearchAll, probes: Embeddings, threshold: float) -> Found:
        """Return what is found for `probes`, (n, D) float32. Raises what the search raises, for all who were in it.

        Args:
            search_all: always the same; not kept here, or an index and its gigabytes would hold themselves.
            probes: (n, D) float32.
            threshold: cosine.
        """
        mine = _Request(probes, threshold)
        with self._lock:
            self._waiting.append(mine)
            leads, self._is_led = not self._is_led, True
        if not leads:
            mine.called.wait()
        if mine.found is None and mine.error is None:
            self._lead(search_all, mine)
        if mine.error is not None:
            try:
                raise mine.error
            finally:
                mine.error = None  # it holds this frame, which would hold it, and with it the index
        assert mine.found is not None
        return mine.found

    def is_used(self) -> bool:
        """Whether anybody searches, or did a moment ago."""
        with self._lock:
            return self._is_led or time.perf_counter() - self._last_s < _USED_S

    def wait_for_end(self, at_most_s: float) -> None:
        """Wait until the search that runs now has ended, if one runs."""
        with self._lock:
            if self._is_led:
                self._ended.wait(at_most_s)

    def _lead(self, search_all: SearchAll, mine: _Request) -> None:
        batch = [mine]
        try:
            batch = self._taken(mine)
            probes = np.concatenate([each.probes for each in batch]) if len(batch) > 1 else mine.probes
            found = search_all(probes, mine.threshold)
            start = 0
            for each in batch:
                each.found = found[start : start + len(each.probes)]
                start += len(each.probes)
        except BaseException as error:  # noqa: BLE001  (raised again by each of the threads that asked)
            for each in batch:
                each.error = error
        finally:
            self._pass_on(batch)

    def _taken(self, mine: _Request) -> list[_Request]:
        """Take `mine` and those that wait with its threshold, as many as fit."""
        with self._lock:
            self._waiting.remove(mine)
            batch, room = [mine], MOST - len(mine.probes)
            for each in self._waiting:
                if each.threshold == mine.threshold and len(each.probes) <= room:
                    batch.append(each)
                    room -= len(each.probes)
            self._waiting = [each for each in self._waiting if each not in batch]
            return batch

    def _pass_on(self, batch: list[_Request]) -> None:
        with self._lock:
            self._is_led = bool(self._waiting)
            self._last_s = time.perf_counter()
            following = self._waiting[:1]
            self._ended.notify_all()
        for each in (*batch[1:], *following):
            each.called.set()


class Turn:
    """Held while templates are added: one addition right after another lets a search that runs end first.

    Both need the interpreter's lock, and whoever searches is a person at a desk.
    """

    def __init__(self, together: Together) -> None:
        self._together = together
        self._last_s = 0.0

    def __enter__(self) -> bool:
        """Return whether it should wait for more: it comes right after another, and somebody searches."""
        is_in_a_row = time.perf_counter() - self._last_s < _PAUSE_S
        if is_in_a_row:
            self._together.wait_for_end(_PATIENCE_S)
        return is_in_a_row and self._together.is_used()

    def __exit__(self, *_: object) -> None:
        self._last_s = time.perf_counter()


def leave_cores_to_others() -> None:
    """Give the calling thread a third of the share of a core that another one gets, where all are busy.

    Only on Linux has a thread a priority of its own.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # where a container forbids it, all have the same share
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
