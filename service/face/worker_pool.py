"""The worker processes behind the embedders: who works on which sample, and what happens when one dies."""

import logging
import pickle
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Lock

from service.domain import FacePolicy, Template
from service.errors import BiodedupError, ImageTooSlow, ImageUnreadable, NotReady
from service.face.batching import SlotQueue
from service.face.extractor import Observe, template_model_id
from service.face.model_packs import InstalledPack
from service.face.worker import Answer, Request, Setup
from service.logs import log_event

_log = logging.getLogger(__name__)

# samples that a worker holds at once: it works on one, and finds the next without waiting for this process
SAMPLES_A_WORKER = 2

# not `-m`: what it sends back would then be classes of `__main__`
_COMMAND = "from service.face.worker import main; main()"

_START_S = 120.0  # a worker imports ONNX Runtime and loads its packs in two seconds; a slow disk takes longer
_STOP_S = 10.0
_DEATHS_A_SAMPLE = 2  # the first may have had another reason, such as a machine out of memory
_TRIES = 6  # a sample can also lose its worker to others


@dataclass(slots=True)
class _Job:
    """One request that waits for its worker's answer. The worker's first job is the one it works on."""

    answer: Answer | None = None
    has_ended: bool = False
    was_first: bool = False  # when the worker was lost
    was_too_slow: bool = False


class _WorkerLost(Exception):
    """The worker died or was stopped before it answered."""

    def __init__(self, job: _Job) -> None:
        super().__init__()
        self.was_first, self.was_too_slow = job.was_first, job.was_too_slow


class _Worker:
    """One process. It answers in the order of the requests; whoever waits reads the next answer for whom it is."""

    def __init__(self, setup: Setup, max_sample_s: float) -> None:
        self._setup, self._max_sample_s = setup, max_sample_s
        self._sending, self._receiving = Lock(), Lock()
        self._jobs: deque[_Job] = deque()
        self._first_since = 0.0  # when the worker could begin with its first job
        self._connection: Connection | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.outstanding = 0  # kept by the pool

    def start(self) -> None:
        """Start the process without waiting until it is ready."""
        ours, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-c", _COMMAND, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: S603  (our own module)
        ours.send(self._setup)
        self._connection = ours

    def wait_until_ready(self) -> None:
        """Raises what keeps the worker from its packs, or NotReady."""
        assert self._connection is not None
        try:
            problem = self._connection.recv() if self._connection.poll(_START_S) else NotReady("no worker came up")
        except (EOFError, OSError) as error:
            self._drop()
            raise NotReady("a worker that extracts templates could not be started") from error
        if problem is not None:
            self._drop()
            raise problem

    def ask(self, request: Request) -> Answer:
        """Raises _WorkerLost, NotReady."""
        job = _Job()
        with self._sending:
            connection = self._connected()
            if not self._jobs:
                self._first_since = time.monotonic()
            self._jobs.append(job)
            with suppress(OSError):  # the worker is gone: the receiving side finds out
                connection.send_bytes(pickle.dumps(request))  # `send` builds a pickler of its own
        while not job.has_ended:
            with self._receiving:
                if not job.has_ended:
                    self._receive()
        if job.answer is None:
            raise _WorkerLost(job)
        return job.answer

    def stop(self) -> None:
        """Let the process end."""
        with self._sending:
            self._drop()

    @property
    def process_id(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def _connected(self) -> Connection:
        """Return the connection to the process, a new one where the last was lost."""
        if self._connection is None:
            self.start()
            self.wait_until_ready()
        assert self._connection is not None
        return self._connection

    def _receive(self) -> None:
        """Read the next answer for the first job."""
        connection = self._connection
        assert connection is not None
        waiting = select.poll()  # `Connection.poll` builds a selector each time
        waiting.register(connection.fileno(), select.POLLIN)
        left_s = self._first_since + self._max_sample_s - time.monotonic()
        has_answer = bool(waiting.poll(max(left_s, 0) * 1000))
        try:
            answer: Answer | None = connection.recv() if has_answer else None
        except (EOFError, OSError):
            answer = None
        if answer is None:
            self._lose(was_too_slow=not has_answer)
            return
        self._first_since = time.monotonic()
        job = self._jobs.popleft()
        job.answer, job.has_ended = answer, True

    def _lose(self, *, was_too_slow: bool) -> None:
        """Give up the process; the next request starts another."""
        assert self._process is not None
        self._process.kill()  # a sender that waits for room in the pipe is freed by it
        with self._sending:
            self._drop()
            for place, job in enumerate(self._jobs):
                job.was_first, job.was_too_slow, job.has_ended = place == 0, was_too_slow and place == 0, True
            self._jobs.clear()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class WorkerPool:
    """A fixed number of workers behind one bounded line. Safe for use by many threads."""

    def __init__(
        self,
        setup: Setup,
        *,
        workers: int,
        queue_limit: int,
        max_wait_s: float,
        max_sample_s: float,
        observe: Observe,
        on_loss: Callable[[], None],
    ) -> None:
        """Start the workers and wait until all are warm.

        Args:
            setup: what each worker loads.
            workers: processes; one a core is best.
            queue_limit: samples that may wait for a worker.
            max_wait_s: and how long.
            max_sample_s: a worker that is busy with one sample for longer is stopped.
            observe: told the phases of each sample.
            on_loss: called whenever a worker died or was stopped.

        Raises:
            PackGraphUnsupported: a graph cannot be loaded or does not fit its manifest.
            NotReady: a worker did not come up.
        """
        self._queue = SlotQueue(workers * SAMPLES_A_WORKER, queue_limit=queue_limit, max_wait_s=max_wait_s)
        self._observe, self._on_loss, self._max_sample_s = observe, on_loss, max_sample_s
        self._choosing = Lock()
        self._workers = [_Worker(setup, max_sample_s) for _ in range(workers)]
        try:
            for worker in self._workers:
                worker.start()
            for worker in self._workers:
                worker.wait_until_ready()
        except BaseException:
            self.close()
            raise

    @property
    def waiting(self) -> int:
        """Samples in the line now."""
        return self._queue.waiting

    @property
    def process_ids(self) -> list[int]:
        """Of the workers, for operators and tests."""
        return [worker.process_id for worker in self._workers if worker.process_id is not None]

    def extract(self, request: Request) -> Template:
        """Return the template of one sample.

        Raises:
            SampleRejected: no usable face, or a file that no worker survives or ends in time.
            Overloaded: too many samples are waiting.
            NotReady: the pool is closed, or its workers cannot be started.
        """
        asked = time.monotonic()
        with self._queue.slot():
            answer = self._answer(request)
        self._observe("wait", max(0.0, time.monotonic() - asked - sum(seconds for _, seconds in answer.phases)))
        for phase, seconds in answer.phases:
            self._observe(phase, seconds)
        if answer.result is None:
            raise RuntimeError("a worker failed unexpectedly; its own line in the log says where")
        if isinstance(answer.result, BiodedupError):
            raise answer.result
        return answer.result

    def close(self) -> None:
        """Turn away new and waiting samples, let the running ones end, and end the workers."""
        self._queue.close()
        for worker in self._workers:
            worker.stop()

    def _answer(self, request: Request) -> Answer:
        deaths = 0
        for _ in range(_TRIES):
            with self._choosing:
                worker = min(self._workers, key=lambda each: each.outstanding)
                worker.outstanding += 1
            try:
                return worker.ask(request)
            except _WorkerLost as lost:
                deaths += self._count_loss(lost)
            finally:
                with self._choosing:
                    worker.outstanding -= 1
            if deaths == _DEATHS_A_SAMPLE:
                raise ImageUnreadable("the image is damaged in a way that stops the reader: take a new photograph")
        raise NotReady("the workers that extract templates keep stopping; try again")

    def _count_loss(self, lost: _WorkerLost) -> int:
        """Return 1 if the worker was at this sample when it died. Raises ImageTooSlow if it was stopped there."""
        if lost.was_first:
            self._on_loss()
            log_event(_log, "worker.lost", level=logging.ERROR)
        if lost.was_too_slow:
            raise ImageTooSlow(f"the image could not be worked on in {self._max_sample_s:g} s: send a smaller one")
        return int(lost.was_first)


class PooledEmbedder:
    """One model pack of a pool: `service.ports.Embedder`."""

    def __init__(self, pool: WorkerPool, pack: InstalledPack) -> None:
        self._pool = pool
        self.pack_id: str = pack.manifest.pack_id
        self.model_id = template_model_id(pack)
        self.dimension = pack.manifest.dimension

    def extract(self, data: bytes, policy: FacePolicy) -> Template:
        """Return the template of the face in an image file; its box is in the upright file's own pixels.

        Raises:
            SampleRejected, Overloaded, NotReady: see `WorkerPool.extract`.
        """
        return self._pool.extract((self.pack_id, data, policy))


def embedders(pool: WorkerPool, packs: Sequence[InstalledPack]) -> dict[str, PooledEmbedder]:
    """Return one embedder a pack, by its id."""
    return {pack.manifest.pack_id: PooledEmbedder(pool, pack) for pack in packs}
