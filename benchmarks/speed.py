"""Speed of the service beside the bare model sessions, in one run: `python -m benchmarks.speed pipeline`."""

import io
import json
import os
import queue
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import numpy.typing as npt
import onnxruntime
import psutil
import typer
from PIL import Image
from rich.table import Table

from benchmarks.bare_service import PARTS
from benchmarks.datasets import load_dataset
from benchmarks.demo_photographs import NEW, built_in
from benchmarks.filling import fill
from benchmarks.recapture import recapture
from benchmarks.screen import console
from benchmarks.search import population, search
from benchmarks.search_enrolling import enrolling
from benchmarks.search_growth import growth
from benchmarks.search_plots import plot
from benchmarks.search_tables import table
from benchmarks.sweep_speed import sweep
from service.access import Client, Grant, Role
from service.api_keys import make_key
from service.domain import FacePolicy, Gallery
from service.errors import BiodedupError
from service.face import scrfd, yunet
from service.face.alignment import align
from service.face.detection import FaceDetector
from service.face.extractor import PIPELINE_VERSION
from service.face.image import ImageLimits, decode
from service.face.model_packs import InstalledPack, installed_pack
from service.settings import Settings
from service.store.sql_store import SqlStore

GALLERY = "speed"
FloatArray = npt.NDArray[np.float32]

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@app.callback()
def main() -> None:
    """Each command prints a table and, with --json, writes its figures."""


app.command()(search)
app.command()(population)
app.command()(sweep)
app.command()(growth)
app.command()(enrolling)
app.command()(plot)
app.command()(table)


@dataclass(frozen=True)
class Work:
    """One photograph: its bytes for the service, and what the bare sessions are given for it."""

    sample: bytes
    detector_input: FloatArray
    recogniser_input: FloatArray


@dataclass(frozen=True)
class Desk:
    """Where enrolments are sent, the API key they are sent with, and the process that answers."""

    port: int
    key: str
    pid: int

    def cpu_s(self) -> float:
        """Return the seconds of processor time that the service and its workers have taken so far."""
        service = psutil.Process(self.pid)
        return sum(sum(one.cpu_times()[:2]) for one in (service, *service.children(recursive=True)))


@dataclass(frozen=True)
class Round:
    """Photographs a second of the bare sessions and of the service, measured one after the other."""

    bare: float
    service: float


@dataclass(frozen=True)
class Share:
    """What the service reaches with all its parts, against itself without some, one after the other."""

    throughput: float
    cpu: float  # of processor time an enrolment in the service: where others use the machine, it varies less


@app.command()
def pipeline(
    dataset: Annotated[Path, typer.Option(help="Folder of photographs (../shared/data/lfw-dev).")] = Path(
        "../shared/data/lfw-dev"
    ),
    pack_id: Annotated[str, typer.Option("--pack", help="Model pack.")] = "opencv-zoo",
    clients: Annotated[int, typer.Option(min=1, help="HTTP clients; they share the cores with the service.")] = 8,
    enrolled: Annotated[int, typer.Option(min=0, help="Templates in the gallery before the first request.")] = 10_000,
    each: Annotated[int, typer.Option(min=1, help="Templates of each person in it.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each measures both sides, in turn.")] = 3,
    photographs: Annotated[int, typer.Option(min=1, help="Photographs a round.")] = 480,
    without: Annotated[
        list[str],
        typer.Option(help=f"Measure the service without this part, too, in turn: {', '.join(PARTS)}; may be repeated."),
    ] = [],  # noqa: B006  (Typer copies it)
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Enrolments a second through HTTP, against the bare detector and recogniser sessions on the same photographs.

    The bare side runs the two repaired graphs on inputs prepared beforehand, with two threads: the better of two
    threads of one-thread sessions and one thread of two-thread sessions. The service does all the rest as well:
    HTTP, decoding, alignment, quality, search, decision, a durable commit.
    """
    accepted = frozenset({pack_id})  # measuring is no production use
    pack = installed_pack(Settings().models_dir, pack_id, accepted_licences=accepted)
    samples = _samples(dataset, rounds * photographs)
    console.print(
        f"{len(samples)} different photographs, {enrolled:,} templates enrolled, {clients} clients, {pack_id}"
    )
    work = _prepared(pack, samples)
    results: list[Round] = []
    shares: list[Share] = []
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        desk = running.enter_context(_service(pack, folder / "whole", enrolled, each))
        other = running.enter_context(_service(pack, folder / "less", enrolled, each, without)) if without else None
        for warmed in filter(None, (desk, other)):
            _enrol_all(warmed, [one.sample for one in work[:20]], clients)
        for number in range(rounds):
            part = work[number * photographs : (number + 1) * photographs]
            bare = max(_bare(pack, part, threads=2, intra=1), _bare(pack, part, threads=1, intra=2))
            service, cpu_s = _enrol_and_count(desk, part, clients)
            results.append(Round(bare, service))
            console.print(f"round {number + 1}: bare {bare:.1f}/s, service {service:.1f}/s, ratio {service / bare:.2f}")
            if other is not None:
                lighter, lighter_cpu_s = _enrol_and_count(other, part, clients)
                shares.append(Share(service / lighter, cpu_s / lighter_cpu_s))
                _say_cost(without, shares[-1:])
    _report(results, pack_id, clients, enrolled, json_file)
    if shares:
        _say_cost(without, shares)


def _say_cost(without: Sequence[str], shares: Sequence[Share]) -> None:
    throughput = statistics.median(share.throughput for share in shares) - 1
    cpu = statistics.median(share.cpu for share in shares) - 1
    rounds = f", medians of {len(shares)} rounds" if len(shares) > 1 else ""
    console.print(f"  {', '.join(without)}: throughput {throughput:+.1%}, processor time {cpu:+.1%}{rounds}")


def _samples(dataset: Path, wanted: int) -> list[bytes]:
    """One photograph a person, so that the service's work is that of new enrolments."""
    if not dataset.is_dir():
        # without it: re-captures of the seven people that the installed packages show
        people = [Image.open(io.BytesIO(photograph.content)) for photograph in built_in() if photograph.kind == NEW]
        return [recapture(people[number % len(people)], seed=number) for number in range(wanted)]
    data = load_dataset(dataset)
    photographs = [*data.open_set.gallery, *data.open_set.non_mated]
    return [data.read(photograph) for photograph in photographs[:wanted]]


def _prepared(pack: InstalledPack, samples: Sequence[bytes]) -> list[Work]:
    """Decode, detect and align beforehand: the bare side is given no more than its two graphs' work."""
    limits = ImageLimits()
    detector = FaceDetector(pack.detector_path, pack.manifest.detector.kind)
    to_input = yunet.to_input if pack.manifest.detector.kind == "yunet" else scrfd.to_input
    mean, scale = pack.manifest.recogniser.mean, pack.manifest.recogniser.scale
    work = []
    for sample in samples:
        image = decode(sample, limits)
        faces = detector.detect(image)
        if not faces:
            continue
        crop = align(image, faces[0].landmarks).astype(np.float32)
        pixels = ((crop - mean) / scale).transpose(2, 0, 1)[None].astype(np.float32)
        work.append(Work(sample, to_input(image), np.ascontiguousarray(pixels)))
    return work


def _bare(pack: InstalledPack, work: Sequence[Work], *, threads: int, intra: int) -> float:
    """Photographs a second that the two graphs alone reach."""
    detector, recogniser = (_session(path, intra) for path in (pack.detector_path, pack.recogniser_path))
    names = detector.get_inputs()[0].name, recogniser.get_inputs()[0].name

    def run(one: Work) -> None:
        detector.run(None, {names[0]: one.detector_input})
        recogniser.run(None, {names[1]: one.recogniser_input})

    for one in work[:4]:
        run(one)
    return _rate(work, threads, lambda: run)


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _rate(items: Sequence[object], threads: int, new_worker: Callable[[], Callable[..., None]]) -> float:
    """Items a second when `threads` workers take them from one queue."""
    todo: queue.SimpleQueue[object] = queue.SimpleQueue()
    for item in items:
        todo.put(item)
    failures: list[BaseException] = []

    def take() -> None:
        work = new_worker()
        while True:
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            try:
                work(item)
            except (OSError, RuntimeError) as error:
                failures.append(error)
                return

    workers = [threading.Thread(target=take) for _ in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    return len(items) / (time.perf_counter() - began)


def _enrol_and_count(desk: Desk, work: Sequence[Work], clients: int) -> tuple[float, float]:
    """Enrolments a second over HTTP, and the service's seconds of processor time for all of them."""
    before = desk.cpu_s()
    return _enrol_all(desk, [one.sample for one in work], clients), desk.cpu_s() - before


def _enrol_all(desk: Desk, samples: Sequence[bytes], clients: int) -> float:
    """Enrolments a second over HTTP; every one must be answered 201."""
    # written out beforehand: the clients share the cores, and a registration system's work is not the service's
    requests = [_request(desk.key, sample) for sample in samples]

    def new_client() -> Callable[[bytes], None]:
        connection = socket.create_connection(("127.0.0.1", desk.port), timeout=120)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def enrol(request: bytes) -> None:
            connection.sendall(request)
            answer = _answer(connection)
            if not answer.startswith(b"HTTP/1.1 201 "):
                raise RuntimeError(f"the service answered {answer[:300]!r}")

        return enrol

    return _rate(requests, clients, new_client)


def _request(key: str, sample: bytes) -> bytes:
    """One enrolment as it goes over the wire."""
    boundary = uuid.uuid4().hex
    form = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="sample"; filename="a.jpg"\r\n\r\n'.encode()
        + sample
        + f"\r\n--{boundary}--\r\n".encode()
    )
    head = (
        f"POST /v1/galleries/{GALLERY}/enrolments HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {key}\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\nContent-Length: {len(form)}\r\n\r\n"
    )
    return head.encode() + form


def _answer(connection: socket.socket) -> bytes:
    """Read one whole answer, whose length its head tells."""
    data = b""
    while True:
        part = connection.recv(65536)
        if not part:
            raise OSError("the service closed the connection")
        data += part
        head, found, body = data.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            return data


@contextmanager
def _service(
    pack: InstalledPack, folder: Path, enrolled: int, each: int, without: Sequence[str] = ()
) -> Iterator[Desk]:
    """`biodedup serve`, all of it or `without` parts, in a process of its own with a filled gallery."""
    folder.mkdir()
    key = _fill(folder / "biodedup.sqlite", pack, enrolled, each)
    pack_id, port = pack.manifest.pack_id, _free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BIODEDUP_")} | {
        "BIODEDUP_VAR_DIR": str(folder),
        "BIODEDUP_PORT": str(port),
        "BIODEDUP_PACK": pack_id,
        "BIODEDUP_ACCEPTED_LICENCES": pack_id,
        "BIODEDUP_FACE_POLICY": FacePolicy.CENTRAL.value,
        "BIODEDUP_LOG_LEVEL": "warning",
        # what is measured is the machine, not what a client may have of it; it is counted all the same
        "BIODEDUP_LIMIT_REQUESTS_PER_MINUTE": "1000000",
        "BIODEDUP_LIMIT_SEARCHES_PER_MINUTE": "1000000",
        "BIODEDUP_LIMIT_MIB_PER_MINUTE": "1000000",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare_service", *without], env=environ, stdout=subprocess.DEVNULL
    )
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}", process)
        yield Desk(port, key, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.1)
    raise RuntimeError("the service did not become ready")


def _fill(path: Path, pack: InstalledPack, count: int, each: int) -> str:
    """Put random unit templates (seeded) into the gallery, through the record, before the service starts.

    Return the key of an enroller.
    """
    store = SqlStore(f"sqlite:///{path}")
    store.migrate()
    manifest, model_id = pack.manifest, f"{pack.model_id}.{PIPELINE_VERSION}"
    store.create_gallery(
        Gallery(GALLERY, manifest.pack_id, 0.01, 0.001, 0.001, keep_samples=False, created_at=datetime.now(UTC))
    )
    rng = np.random.default_rng(0)
    subjects = (
        (f"fill-{start}", _unit(rng.normal(size=(min(each, count - start), manifest.dimension))))
        for start in range(0, count, each)
    )
    fill(store, GALLERY, subjects, pack_id=manifest.pack_id, model_id=model_id)
    now = datetime.now(UTC)
    text, key = make_key(now, timedelta(days=1))
    store.clients.add(Client("desk", (Grant(Role.ENROLLER),), now, keys=(key,)))
    store.close()
    return text


def _unit(rows: npt.NDArray[np.float64]) -> FloatArray:
    unit: FloatArray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _report(results: Sequence[Round], pack_id: str, clients: int, enrolled: int, json_file: Path | None) -> None:
    bare = statistics.median(result.bare for result in results)
    service = statistics.median(result.service for result in results)
    ratio = statistics.median(result.service / result.bare for result in results)
    table = Table(
        title=f"{pack_id}: {clients} clients, {enrolled:,} templates enrolled, medians of {len(results)} rounds"
    )
    for heading in ("bare sessions, photographs/s", "service, enrolments/s", "ratio"):
        table.add_column(heading, justify="right")
    table.add_row(f"{bare:.1f}", f"{service:.1f}", f"{ratio:.2f}")
    console.print(table)
    if json_file is not None:
        figures = {"pack": pack_id, "clients": clients, "templates": enrolled, "bare_per_s": bare}
        figures |= {"service_per_s": service, "ratio": ratio}
        json_file.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    try:
        app()
    except BiodedupError as problem:
        sys.exit(f"error: {problem.message} ({problem.code})")
