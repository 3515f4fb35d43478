"""A sweep beside the matrix product of all templates with all, in one run: `python -m benchmarks.speed sweep`."""

import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.filling import fill
from benchmarks.screen import console
from benchmarks.search_gallery import (
    PACK_OF_DIMENSION,
    FloatArray,
    load_population,
    make_gallery,
    mated_probes,
    population_path,
)
from benchmarks.sweep_product import TEMPLATES_EACH, Cost, product_of_all, subject_of, timed
from service.calibration import Calibration
from service.decision import DecisionRule
from service.domain import FacePolicy, Gallery, Lease, Sweep, Template
from service.gallery.segmented_index import SegmentedIndex
from service.matching import Matcher
from service.metrics import Metrics
from service.packs import Pack, Packs
from service.ports import Embedder
from service.store.sql_store import SqlStore
from service.sweep import SweepService, sweep_fmr

GALLERY, MODEL_ID = "sweep", "drawn"
COSINES = (0.40, 0.95)  # of the planted pairs
LEASE = Lease("benchmark", datetime.now(UTC) + timedelta(days=1))


@dataclass(frozen=True)
class Figures:
    """What `--json` writes."""

    gallery_size: int
    dimension: int
    threads: int
    threshold: float
    planted_above_threshold: int
    planted_found: int
    checked_pairs: int  # all at or above the threshold, among the probes whose product was made
    checked_found: int
    cases_opened: int
    killed_at: int  # templates compared when the first process was killed
    index_s: float
    search_share: float  # of the second process's time, spent in searches of the index
    sweep_s: float
    sweep_cpu_s: float
    gemm_s: float
    gemm_cpu_s: float
    gemm_block: int
    gemm_share: float
    sweep_vs_gemm: float
    sweep_vs_gemm_cpu: float


def sweep(
    gallery_size: Annotated[int, typer.Option(min=1000, help="Templates.")] = 200_000,
    dimension: Annotated[int, typer.Option(help="128 or 512.")] = 512,
    planted: Annotated[int, typer.Option(min=2, help="Pairs of subjects who are one person.")] = 1000,
    threads: Annotated[int, typer.Option(min=1, help="Of a search, and of the matrix product.")] = 2,
    share: Annotated[float, typer.Option(min=0.001, max=1, help="Of the matrix product that is measured.")] = 0.1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Time to find the duplicates of a gallery, killed half-way, beside float32 GEMM for the same comparisons.

    Both compare every template with all, the pair (a, b) and the pair (b, a). The sweep is the service's own: from the
    record, with its index, to the cases.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows, pairs = _planted(Path(folder), gallery_size, dimension, planted)
        url = f"sqlite:///{folder}/record.sqlite"
        with console.status("filling the record"):
            threshold = _fill(url, rows, dimension)
        half = gallery_size // 2
        first = _killed(url, dimension, threads, half)
        console.print(f"killed at {first.done:,} of {gallery_size:,} templates")
        with console.status("filling the index again"):
            second = _Sweeper(url, dimension, threads)
        rest = timed(second.finish)
        found = second.found()
        second.close()
        block, gemm, checked = product_of_all(rows, threshold, threads, share)
    total = first.cost + rest
    truth = {frozenset((subject_of(a), subject_of(b))) for a, b in pairs if rows[a] @ rows[b] >= threshold}
    figures = Figures(
        gallery_size=gallery_size,
        dimension=dimension,
        threads=threads,
        threshold=threshold,
        planted_above_threshold=len(truth),
        planted_found=len(truth & found),
        checked_pairs=len(checked),
        checked_found=len(checked & found),
        cases_opened=len(found),
        killed_at=first.done,
        index_s=second.index_s,
        search_share=second.search_s() / rest.wall_s,
        sweep_s=total.wall_s,
        sweep_cpu_s=total.cpu_s,
        gemm_s=gemm.wall_s,
        gemm_cpu_s=gemm.cpu_s,
        gemm_block=block,
        gemm_share=share,
        sweep_vs_gemm=gemm.wall_s / total.wall_s,
        sweep_vs_gemm_cpu=gemm.cpu_s / total.cpu_s,
    )
    _report(figures, json_file)


def _planted(folder: Path, size: int, dimension: int, planted: int) -> tuple[FloatArray, Sequence[tuple[int, int]]]:
    """Return a seeded gallery, (size, dimension), and the numbers of its planted pairs."""
    population = load_population(population_path(PACK_OF_DIMENSION[dimension]))
    gallery = make_gallery(folder / "gallery", population, size, seed=1)
    rows = np.concatenate([block for _, block in gallery.blocks()])
    gallery.path.unlink()
    rng = np.random.default_rng(2)
    # of different subjects, and never one template in two pairs
    half = size // 2 // TEMPLATES_EACH * TEMPLATES_EACH
    first = rng.choice(half, planted, replace=False)
    second = half + rng.choice(size - half, planted, replace=False)
    cosines = rng.uniform(*COSINES, planted).astype(np.float32)
    rows[second] = mated_probes(rows[first], rows[second], cosines)
    return rows, list(zip(first.tolist(), second.tolist(), strict=True))


def _fill(url: str, rows: FloatArray, dimension: int) -> float:
    """Make the record, queue the sweep and return its threshold."""
    store = SqlStore(url)
    store.migrate()
    pack_id = PACK_OF_DIMENSION[dimension]
    store.create_gallery(
        Gallery(GALLERY, pack_id, 0.01, 0.001, 0.001, keep_samples=False, created_at=datetime.now(UTC))
    )
    subjects = (
        (subject_of(start), rows[start : start + TEMPLATES_EACH]) for start in range(0, len(rows), TEMPLATES_EACH)
    )
    fill(store, GALLERY, subjects, pack_id=pack_id, model_id=MODEL_ID)
    with store.sweeping(GALLERY) as sweeping:
        gallery = sweeping.gallery(GALLERY)
        threshold = _calibration(dimension).threshold(sweep_fmr(gallery, gallery, 10))
        sweeping.begin_sweep(10, threshold)
    store.close()
    return threshold


def _calibration(dimension: int) -> Calibration:
    path = Path(__file__).parent.parent / "models" / PACK_OF_DIMENSION[dimension] / "calibration.json"
    return Calibration.from_json(path.read_text())


class _NoEmbedder:
    """A pack's place: a sweep embeds nothing."""

    model_id = MODEL_ID

    def __init__(self, dimension: int) -> None:
        self.pack_id, self.dimension = PACK_OF_DIMENSION[dimension], dimension

    def extract(self, data: bytes, policy: FacePolicy) -> Template:
        raise NotImplementedError  # a sweep reads templates, it never makes any


class _Sweeper:
    """A process's part of the sweep, as the service wires it."""

    def __init__(self, url: str, dimension: int, threads: int) -> None:
        start = time.perf_counter()
        self._store = SqlStore(url)
        self._indexes: list[SegmentedIndex] = []
        rule = DecisionRule(_calibration(dimension), fnir_warning=0.1)
        packs = Packs({PACK_OF_DIMENSION[dimension]: Pack(_NoEmbedder(dimension), rule)})
        self._metrics = Metrics(version="benchmark")

        def new_index(gallery: Gallery, embedder: Embedder) -> SegmentedIndex:  # noqa: ARG001  (a `NewIndex`)
            self._indexes.append(SegmentedIndex(embedder.dimension, threads=threads))
            return self._indexes[-1]

        matcher = Matcher(self._store, new_index, packs, self._metrics)
        threadpool_limits(limits=1)  # as the service does: the index shares the cores out itself
        matcher.catch_up(GALLERY)
        self._indexes[0].settle()
        self.index_s = time.perf_counter() - start
        self._sweeps = SweepService(self._store, matcher, packs, self._metrics)

    def steps(self) -> Iterator[Sweep]:
        """Yield the sweep after each of its blocks."""
        for waiting in self._sweeps.unfinished():  # none, if the process that is killed was quicker
            moved = self._sweeps.take(waiting, LEASE)
            while moved is not None and not moved.state.has_ended:
                moved = self._sweeps.advance(moved, LEASE)
                if moved is not None:
                    yield moved

    def finish(self) -> None:
        for _ in self.steps():
            pass

    def found(self) -> set[frozenset[str | None]]:
        """Return the pair of every case."""
        found: set[frozenset[str | None]] = set()
        after: str | None = None
        while True:
            page = self._store.cases(GALLERY, after, 1000)
            found |= {frozenset((each.subject_id, each.candidate.subject_id)) for each in page.items if each.candidate}
            after = page.next_after
            if after is None:
                return found

    def search_s(self) -> float:
        return self._metrics.registry.get_sample_value("biodedup_phase_seconds_sum", {"phase": "sweep"}) or 0.0

    def close(self) -> None:
        self._store.close()


@dataclass(frozen=True)
class _Half:
    """What a process did until it was killed."""

    done: int
    cost: Cost


def _killed(url: str, dimension: int, threads: int, at: int) -> _Half:
    """Let a process of its own sweep until it has compared `at` templates, then kill it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_sweep_until_killed, args=(theirs, url, dimension, threads))
    with console.status("filling the index"):
        process.start()
        theirs.close()
        begun = ours.recv()
    start, last = time.perf_counter(), begun
    while last[0] < at:
        last = ours.recv()
    process.kill()
    wall = time.perf_counter() - start
    process.join()
    return _Half(last[0], Cost(wall, last[1] - begun[1]))


def _sweep_until_killed(pipe: Connection, url: str, dimension: int, threads: int) -> None:
    sweeper = _Sweeper(url, dimension, threads)
    pipe.send((0, time.process_time()))
    for moved in sweeper.steps():
        pipe.send((moved.done, time.process_time()))


def _report(figures: Figures, json_file: Path | None) -> None:
    table = Table(title=f"{figures.gallery_size:,} x {figures.dimension}, threshold {figures.threshold:.3f}")
    for heading in ("method", "seconds", "processor seconds", "times the sweep"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    table.add_row("sweep", f"{figures.sweep_s:.1f}", f"{figures.sweep_cpu_s:.1f}", "1")
    gemm = f"{figures.gemm_s:.1f}", f"{figures.gemm_cpu_s:.1f}", f"{figures.sweep_vs_gemm:.2f}"
    table.add_row(f"GEMM, {figures.gemm_share:.0%} measured", *gemm)
    console.print(table)
    console.print(
        f"planted pairs found: {figures.planted_found} of {figures.planted_above_threshold}; pairs of the product "
        f"found: {figures.checked_found} of {figures.checked_pairs}; the index took {figures.index_s:.0f} s; "
        f"searches are {figures.search_share:.0%} of the sweep"
    )
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(figures), indent=2) + "\n")
