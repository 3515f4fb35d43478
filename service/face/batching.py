"""Lets a few calls compute at once, lines the others up and turns away what would wait too long.

Measured on two cores: two callers, each on its own thread, embed 71 crops a second with SFace (100 to 125 with
ArcFace MobileFaceNet); one worker on two threads 50 to 55 (72) one by one and 41 (68) in batches of 8. So what waits is
not merged into batches; it takes the next free slot, first come first served.
"""

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Event, Lock

from service.errors import NotReady, Overloaded

_SMOOTHING = 0.1  # weight of the newest call in the running mean of how long a call takes


class _Ticket:
    """A place in the line."""

    def __init__(self) -> None:
        self.called = Event()
        self.has_slot = False


class SlotQueue:
    """A fixed number of slots and a bounded line before them. Safe for use by many threads."""

    def __init__(self, slots: int, *, queue_limit: int, max_wait_s: float) -> None:
        """Allow `slots` calls at once and `queue_limit` waiting ones, none longer than `max_wait_s`."""
        if slots < 1 or queue_limit < 0 or max_wait_s <= 0:
            raise ValueError("a queue needs a slot, a limit of 0 or more and a positive wait")
        self._slots, self._queue_limit, self._max_wait_s = slots, queue_limit, max_wait_s
        self._lock = Lock()
        self._all_free = Condition(self._lock)
        self._free = slots
        self._line: deque[_Ticket] = deque()
        self._mean_call_s = 0.1
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """Calls in the line now."""
        return len(self._line)

    @contextmanager
    def slot(self) -> Iterator[float]:
        """Hold a slot; the value is the time waited for it in seconds.

        Raises:
            Overloaded: the line is full, or no slot came free in time; `retry_after_s` says when to come back.
            NotReady: the queue is closed.
        """
        asked = time.monotonic()
        self._enter()
        entered = time.monotonic()
        try:
            yield entered - asked
        finally:
            self._leave(time.monotonic() - entered)

    def close(self) -> None:
        """Turn away new and waiting calls and return when the running ones have ended."""
        with self._lock:
            self._is_closed = True
            for ticket in self._line:
                ticket.called.set()
            self._line.clear()
            self._all_free.wait_for(lambda: self._free == self._slots)

    def _enter(self) -> None:
        with self._lock:
            self._refuse_if_closed()
            if self._free and not self._line:
                self._free -= 1
                return
            if len(self._line) >= self._queue_limit:
                raise self._overloaded("too many samples are being worked on")
            ticket = _Ticket()
            self._line.append(ticket)
        ticket.called.wait(self._max_wait_s)
        with self._lock:
            # a slot that was handed over is used, even if the queue was closed since: `close` waits for it
            if ticket.has_slot:
                return
            self._refuse_if_closed()
            self._line.remove(ticket)
            raise self._overloaded("no slot came free in time")

    def _leave(self, call_s: float) -> None:
        with self._lock:
            self._mean_call_s += _SMOOTHING * (call_s - self._mean_call_s)
            if self._line:
                # the slot passes straight to the longest waiting call, so no newcomer can overtake it
                ticket = self._line.popleft()
                ticket.has_slot = True
                ticket.called.set()
                return
            self._free += 1
            self._all_free.notify_all()

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise NotReady("the service is stopping")

    def _overloaded(self, reason: str) -> Overloaded:
        expected_s = (len(self._line) + 1) * self._mean_call_s / self._slots
        return Overloaded(f"{reason}: try again later", retry_after_s=max(1, math.ceil(expected_s)))
