"""The worker processes: the same templates as in one process, and nobody's answer lost when a worker is."""

import dataclasses
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from service.domain import FacePolicy, Template
from service.errors import ImageTooSlow, ImageUnreadable, NoFace, NotReady, Overloaded, PackGraphUnsupported
from service.face.extractor import Extractor
from service.face.image import ImageLimits
from service.face.model_packs import InstalledPack, installed_pack
from service.face.worker import Setup
from service.face.worker_pool import PooledEmbedder, WorkerPool
from tests.conftest import installed_models

pytestmark = pytest.mark.models


@dataclasses.dataclass
class Bench:
    """A pool of one worker, its embedder, and what it reported."""

    pool: WorkerPool
    embedder: PooledEmbedder
    phases: list[str]
    losses: list[None]

    @property
    def worker_id(self) -> int:
        return self.pool.process_ids[0]


@pytest.fixture(scope="module")
def zoo() -> InstalledPack:
    return installed_pack(installed_models(), "opencv-zoo", accepted_licences=frozenset())


def new_setup(pack: InstalledPack) -> Setup:
    return Setup((pack,), ImageLimits(), min_face_width_px=20, log_level="warning")


@pytest.fixture
def new_bench(zoo: InstalledPack) -> Iterator[Callable[..., Bench]]:
    pools: list[WorkerPool] = []

    def make(*, queue_limit: int = 8, max_sample_s: float = 60.0) -> Bench:
        phases: list[str] = []
        losses: list[None] = []
        pool = WorkerPool(
            new_setup(zoo),
            workers=1,
            queue_limit=queue_limit,
            max_wait_s=60,
            max_sample_s=max_sample_s,
            observe=lambda phase, _seconds: phases.append(phase),
            on_loss=lambda: losses.append(None),
        )
        pools.append(pool)
        return Bench(pool, PooledEmbedder(pool, zoo), phases, losses)

    yield make
    for pool in pools:
        pool.close()


@pytest.fixture
def sample(t1_path: Path) -> bytes:
    return t1_path.read_bytes()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def begin(bench: Bench, sample: bytes, threads: ThreadPoolExecutor, outstanding: int = 1) -> "Future[Template]":
    """Send a sample and return when the pool has given it to its worker."""
    asked = threads.submit(bench.embedder.extract, sample, FacePolicy.LARGEST)
    wait_until(lambda: len(bench.pool._workers[0]._jobs) == outstanding or asked.done())
    return asked


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def is_running(process_id: int) -> bool:
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_a_worker_gives_what_this_process_gives(
    new_bench: Callable[..., Bench], zoo: InstalledPack, sample: bytes
) -> None:
    bench = new_bench()
    here = Extractor(zoo, limits=ImageLimits(), min_face_width_px=20, observe=lambda _phase, _seconds: None)
    assert (bench.embedder.model_id, bench.embedder.dimension) == (here.model_id, here.dimension)
    there, expected = (each.extract(sample, FacePolicy.LARGEST) for each in (bench.embedder, here))
    assert np.array_equal(there.embedding, expected.embedding)
    assert (there.box, there.quality, there.pack_id) == (expected.box, expected.quality, expected.pack_id)
    assert bench.phases == ["wait", "decode", "detect", "refine", "align", "quality", "embed", "attack"]


def test_a_rejection_keeps_its_code_and_its_words(new_bench: Callable[..., Bench]) -> None:
    with pytest.raises(ImageUnreadable, match="damaged or cut off"):
        new_bench().embedder.extract(b"\xff\xd8 no image", FacePolicy.REFUSE)


def test_a_worker_that_died_while_idle_costs_nobody_an_answer(new_bench: Callable[..., Bench], sample: bytes) -> None:
    bench = new_bench()
    os.kill(bench.worker_id, signal.SIGKILL)
    assert bench.embedder.extract(sample, FacePolicy.LARGEST).pack_id == "opencv-zoo"
    assert len(bench.losses) == 1


def test_a_sample_that_kills_two_workers_is_refused_and_the_next_one_served(
    new_bench: Callable[..., Bench], sample: bytes, threads: ThreadPoolExecutor
) -> None:
    bench = new_bench()
    slow = io.BytesIO()
    PIL.Image.new("RGB", (5000, 5000)).save(slow, "PNG")  # every view is tried in vain: seconds
    asked = begin(bench, slow.getvalue(), threads)
    first = bench.worker_id
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: bench.worker_id != first and len(bench.pool._workers[0]._jobs) == 1)
    os.kill(bench.worker_id, signal.SIGKILL)
    with pytest.raises(ImageUnreadable, match="stops the reader"):
        asked.result(60)
    assert len(bench.losses) == 2
    assert bench.embedder.extract(sample, FacePolicy.LARGEST).pack_id == "opencv-zoo"


def test_a_sample_that_waits_behind_a_deadly_one_is_not_blamed(
    new_bench: Callable[..., Bench], sample: bytes, threads: ThreadPoolExecutor
) -> None:
    bench = new_bench()
    for _ in range(2):  # each sample is first in one of the two deaths
        worker_id = bench.worker_id
        os.kill(worker_id, signal.SIGSTOP)
        asked = [begin(bench, sample, threads, outstanding) for outstanding in (1, 2)]
        os.kill(worker_id, signal.SIGKILL)
        for one in asked:
            assert one.result(60).pack_id == "opencv-zoo"
    assert len(bench.losses) == 2


def test_a_sample_that_takes_too_long_is_refused_and_its_worker_replaced(
    new_bench: Callable[..., Bench], sample: bytes
) -> None:
    bench = new_bench(max_sample_s=1.0)
    hanging = bench.worker_id
    os.kill(hanging, signal.SIGSTOP)
    with pytest.raises(ImageTooSlow, match="in 1 s"):
        bench.embedder.extract(sample, FacePolicy.LARGEST)
    assert not is_running(hanging)
    assert bench.embedder.extract(sample, FacePolicy.LARGEST).pack_id == "opencv-zoo"
    assert len(bench.losses) == 1


def test_what_finds_no_room_is_turned_away(
    new_bench: Callable[..., Bench], sample: bytes, threads: ThreadPoolExecutor
) -> None:
    bench = new_bench(queue_limit=0)
    os.kill(bench.worker_id, signal.SIGSTOP)
    asked = [begin(bench, sample, threads, outstanding) for outstanding in (1, 2)]
    with pytest.raises(Overloaded):
        bench.embedder.extract(sample, FacePolicy.LARGEST)
    os.kill(bench.worker_id, signal.SIGCONT)
    assert {one.result(60).pack_id for one in asked} == {"opencv-zoo"}


def test_closing_lets_the_running_sample_end_and_turns_others_away(
    new_bench: Callable[..., Bench], sample: bytes, threads: ThreadPoolExecutor
) -> None:
    bench = new_bench()
    worker_id = bench.worker_id
    os.kill(worker_id, signal.SIGSTOP)
    running = begin(bench, sample, threads)
    closing = threads.submit(bench.pool.close)
    os.kill(worker_id, signal.SIGCONT)
    assert running.result(60).pack_id == "opencv-zoo"
    closing.result(60)
    assert not is_running(worker_id)
    with pytest.raises(NotReady):
        bench.embedder.extract(sample, FacePolicy.LARGEST)


def test_a_signal_to_the_whole_group_does_not_stop_a_worker(new_bench: Callable[..., Bench], sample: bytes) -> None:
    bench = new_bench()
    worker_id = bench.worker_id
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker_id, number)
    assert bench.embedder.extract(sample, FacePolicy.LARGEST).pack_id == "opencv-zoo"
    assert bench.worker_id == worker_id
    assert bench.losses == []


def test_a_large_sample_fits_through(new_bench: Callable[..., Bench]) -> None:
    grey = np.full((1500, 1500, 3), 128, np.uint8)
    bitmap = b"BM" + (54 + grey.nbytes).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    bitmap += (40).to_bytes(4, "little") + (1500).to_bytes(4, "little") * 2 + b"\1\0\x18\0" + bytes(24) + grey.tobytes()
    with pytest.raises(NoFace):
        new_bench().embedder.extract(bitmap, FacePolicy.REFUSE)


def test_a_graph_that_cannot_be_loaded_says_so_at_the_start(zoo: InstalledPack, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(PackGraphUnsupported, match=r"broken\.onnx"):
        WorkerPool(
            new_setup(dataclasses.replace(zoo, detector_path=broken)),
            workers=1,
            queue_limit=1,
            max_wait_s=1,
            max_sample_s=1,
            observe=lambda _phase, _seconds: None,
            on_loss=lambda: None,
        )


def test_a_worker_ends_when_its_service_is_killed() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(installed_models())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    with owner:
        worker_id = int(owner.stdout.readline())
        assert is_running(worker_id)
        owner.kill()
    wait_until(lambda: not is_running(worker_id))


_OWNER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from service.face.image import ImageLimits
    from service.face.model_packs import installed_pack
    from service.face.worker import Setup
    from service.face.worker_pool import WorkerPool

    pack = installed_pack(Path(sys.argv[1]), "opencv-zoo", accepted_licences=frozenset())
    pool = WorkerPool(
        Setup((pack,), ImageLimits(), 20, "warning"), workers=1, queue_limit=1, max_wait_s=1, max_sample_s=1,
        observe=lambda phase, seconds: None, on_loss=lambda: None,
    )
    print(pool.process_ids[0], flush=True)
    sys.stdin.read()
    """
)
