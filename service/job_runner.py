"""Works on jobs of one kind in the background: one thread, one job at a time, behind the requests."""

import logging
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

from service.domain import Lease
from service.errors import BiodedupError, Unavailable, VarUnusable
from service.logs import log_event

LEASE_PERIOD = timedelta(seconds=60)  # renewed with every block, which takes seconds at most
_ALONE = "the one process"
_IDLE_S = 15.0  # between two looks for the jobs of other processes
_RETRY_S = 5.0
_RETRIES = 24  # two minutes: a database comes back, a missing model pack does not
_YIELD_S = 0.05
_YIELDS = 40  # for each block: behind a queue that never empties a job is slow and still ends

_log = logging.getLogger(__name__)


class Job(Protocol):
    """What a runner must know of a job."""

    @property
    def job_id(self) -> int: ...

    @property
    def gallery_id(self) -> str: ...

    @property
    def total(self) -> int: ...

    @property
    def cases_opened(self) -> int: ...

    @property
    def needs_work(self) -> bool: ...


J = TypeVar("J", bound=Job)


class Jobs(Protocol[J]):
    """The use cases about one kind of jobs."""

    @property
    def news(self) -> threading.Event:
        """Set when there is a job to begin."""
        ...

    def unfinished(self) -> list[J]:
        """Return the jobs that need work, oldest first."""
        ...

    def take(self, job: J, lease: Lease) -> J | None:
        """Return it as it stands, to work on it; None where it needs none or somebody else is at it."""
        ...

    def advance(self, job: J, lease: Lease) -> J | None:
        """Do the next block; None where it needs no work or is somebody else's."""
        ...

    def release(self, job: J, owner: str) -> None: ...

    def fail(self, job: J, error_code: str) -> J:
        """Note that it gets no further."""
        ...


class JobRunner(Generic[J]):
    """Takes the oldest job that nobody works on and advances it until it needs no more work.

    Args:
        jobs: the use cases.
        name: of the thread and the events of the log.
        is_alone: no other process works on this record: what a killed one was at is taken up at once, without waiting
            for its lease to run out.
        clock: time zone aware.
        is_busy: whether requests wait.
        retry_s: pause after a failure that may pass.
        on_look: called whenever it looks for jobs.
    """

    def __init__(
        self,
        jobs: Jobs[J],
        *,
        name: str = "sweep",
        is_alone: bool,
        clock: Callable[[], datetime],
        is_busy: Callable[[], bool] = lambda: False,
        retry_s: float = _RETRY_S,
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        self._jobs = jobs
        self._name = name
        self._on_look = on_look
        self._owner = _ALONE if is_alone else uuid.uuid4().hex
        self._clock = clock
        self._is_busy = is_busy
        self._retry_s = retry_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop after the block that is under way; the job goes on with the next start."""
        self._stop.set()
        self._jobs.news.set()
        if self._thread.ident is not None:
            self._thread.join()

    def work(self) -> None:
        """Advance every job that is free to be taken until it needs no more work."""
        for waiting in self._jobs.unfinished():
            taken = self._jobs.take(waiting, self._lease())
            if taken is None:
                continue
            try:
                self._advance(taken)
            finally:
                with suppress(BiodedupError):
                    self._jobs.release(taken, self._owner)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._jobs.news.clear()
            try:
                self._on_look()
                self.work()
            except Exception as error:  # noqa: BLE001  (the thread must outlive whatever one job meets)
                log_event(_log, f"{self._name}.interrupted", level=logging.ERROR, error=error)
            if not self._stop.is_set():
                self._jobs.news.wait(_IDLE_S)

    def _advance(self, job: J) -> None:
        log_event(_log, f"{self._name}.begun", gallery_id=job.gallery_id, job=job.job_id, templates=job.total)
        failures = 0
        while not self._stop.is_set():
            self._let_requests_pass()
            try:
                moved = self._jobs.advance(job, self._lease())
            except (Unavailable, VarUnusable) as error:  # a disk that is full may get room
                failures += 1
                if failures > _RETRIES:
                    self._fail(job, error)
                    return
                self._stop.wait(self._retry_s)
                continue
            except Exception as error:  # noqa: BLE001  (a job that meets a fault of ours fails, and says so)
                self._fail(job, error)
                return
            if moved is None:
                return
            if not moved.needs_work:
                log_event(
                    _log, f"{self._name}.ended", gallery_id=moved.gallery_id, job=moved.job_id, cases=moved.cases_opened
                )
                return
            job, failures = moved, 0

    def _fail(self, job: J, error: Exception) -> None:
        code = error.code if isinstance(error, BiodedupError) else BiodedupError.code
        log_event(
            _log, f"{self._name}.failed", level=logging.ERROR, error=error, gallery_id=job.gallery_id, job=job.job_id
        )
        self._jobs.fail(job, code)

    def _let_requests_pass(self) -> None:
        for _ in range(_YIELDS):
            if not self._is_busy() or self._stop.wait(_YIELD_S):
                return

    def _lease(self) -> Lease:
        return Lease(self._owner, self._clock() + LEASE_PERIOD)
