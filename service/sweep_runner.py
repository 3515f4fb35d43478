"""Works on sweeps in the background: one thread, one sweep at a time, behind the requests."""

import logging
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from service.domain import JobState, Lease, Sweep
from service.errors import BiodedupError, Unavailable
from service.logs import log_event
from service.sweep import SweepService

LEASE_PERIOD = timedelta(seconds=60)  # renewed with every block, which takes seconds at most
_ALONE = "the one process"
_IDLE_S = 15.0  # between two looks for the sweeps of other processes
_RETRY_S = 5.0
_RETRIES = 24  # two minutes: a database comes back, a missing model pack does not
_YIELD_S = 0.05
_YIELDS = 40  # for each block: behind a queue that never empties a sweep is slow and still ends

_log = logging.getLogger(__name__)


class SweepRunner:
    """Takes the oldest sweep that nobody works on and advances it until it ends.

    Args:
        sweeps: the use cases.
        is_alone: no other process works on this record: what a killed one was at is taken up at once, without waiting
            for its lease to run out.
        clock: time zone aware.
        is_busy: whether requests wait.
        retry_s: pause after a failure that may pass.
    """

    def __init__(
        self,
        sweeps: SweepService,
        *,
        is_alone: bool,
        clock: Callable[[], datetime],
        is_busy: Callable[[], bool] = lambda: False,
        retry_s: float = _RETRY_S,
    ) -> None:
        self._sweeps = sweeps
        self._owner = _ALONE if is_alone else uuid.uuid4().hex
        self._clock = clock
        self._is_busy = is_busy
        self._retry_s = retry_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop after the block that is under way; the sweep goes on with the next start."""
        self._stop.set()
        self._sweeps.news.set()
        if self._thread.ident is not None:
            self._thread.join()

    def work(self) -> None:
        """Advance every sweep that is free to be taken until it ends."""
        for waiting in self._sweeps.unfinished():
            taken = self._sweeps.take(waiting, self._lease())
            if taken is None:
                continue
            try:
                self._advance(taken)
            finally:
                with suppress(BiodedupError):
                    self._sweeps.release(taken, self._owner)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._sweeps.news.clear()
            try:
                self.work()
            except Exception as error:  # noqa: BLE001  (the thread must outlive whatever one sweep meets)
                log_event(_log, "sweep.interrupted", level=logging.ERROR, error=error)
            if not self._stop.is_set():
                self._sweeps.news.wait(_IDLE_S)

    def _advance(self, sweep: Sweep) -> None:
        log_event(_log, "sweep.begun", gallery_id=sweep.gallery_id, job=sweep.job_id, templates=sweep.total)
        failures = 0
        while not self._stop.is_set():
            self._let_requests_pass()
            try:
                moved = self._sweeps.advance(sweep, self._lease())
            except Unavailable as error:
                failures += 1
                if failures > _RETRIES:
                    self._fail(sweep, error)
                    return
                self._stop.wait(self._retry_s)
                continue
            except Exception as error:  # noqa: BLE001  (a sweep that meets a fault of ours fails, and says so)
                self._fail(sweep, error)
                return
            if moved is None:
                return
            if moved.state.has_ended:
                log_event(_log, "sweep.ended", gallery_id=moved.gallery_id, job=moved.job_id, cases=moved.cases_opened)
                return
            sweep, failures = moved, 0

    def _fail(self, sweep: Sweep, error: Exception) -> None:
        code = error.code if isinstance(error, BiodedupError) else BiodedupError.code
        log_event(_log, "sweep.failed", level=logging.ERROR, error=error, gallery_id=sweep.gallery_id, job=sweep.job_id)
        self._sweeps.end(sweep, JobState.FAILED, code)

    def _let_requests_pass(self) -> None:
        for _ in range(_YIELDS):
            if not self._is_busy() or self._stop.wait(_YIELD_S):
                return

    def _lease(self) -> Lease:
        return Lease(self._owner, self._clock() + LEASE_PERIOD)
