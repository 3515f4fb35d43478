"""Builds each method, searches in turn with it and its rivals, and sums up what was measured."""

import ctypes
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from benchmarks.search_gallery import Advance, FloatArray, GalleryFile, Probes
from benchmarks.search_methods import Method
from benchmarks.search_truth import FPIRS, Found, Truth, share_of_mates, share_of_pairs

BATCH = 256
SINGLES_A_TURN = 10
REST_S = 0.3  # before each turn: idle threads of OpenMP and BLAS go on spinning for a while, at the next one's cost

Figures = dict[str, Any]
Steps = Callable[[str, int], AbstractContextManager[Advance]]
"""Given a title and a number of steps: a progress bar and what moves it on."""


@dataclass(frozen=True)
class Task:
    """What every method is measured with."""

    gallery: GalleryFile
    probes: Probes
    truth: Truth
    threads: int
    one_probes: int  # at least 100, for a 99th percentile
    budget_s: float  # a method that is not core searches no longer than this in each measurement
    folder: Path
    steps: Steps


@dataclass
class Run:
    """The answers of one measurement and the seconds each chunk of probes took."""

    found: list[Found] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def search(self, method: Method, probes: FloatArray, threshold: float, *, is_one: bool) -> None:
        began = time.perf_counter()
        found = [method.search_one(probes[0], threshold)] if is_one else method.search_batch(probes, threshold)
        self.seconds.append(time.perf_counter() - began)
        self.sizes.append(len(probes))
        self.found += found

    def seconds_a_probe(self) -> float:
        return float(np.median(np.array(self.seconds) / np.array(self.sizes)))


@dataclass(frozen=True)
class Contestant:
    """A built method with one of its settings, and the chunks it was timed with."""

    method: Method
    setting: int | None
    built: Figures
    one: Run
    batches: dict[float, Run]  # by FPIR
    miss_bounds: dict[float, float | None]  # by FPIR

    @property
    def name(self) -> str:
        return self.method.row_name(self.setting)


def measure(classes: Sequence[type[Method]], task: Task) -> dict[str, Figures]:
    """Build these methods, measure them in turn, free them; return the figures by row of the table."""
    contestants: list[Contestant] = []
    try:
        for one in classes:
            contestants += _build(one, task)
        _search(contestants, task)
        return {contestant.name: _figures(contestant, task) for contestant in contestants}
    finally:
        for method in {contestant.method for contestant in contestants}:
            method.close()


def _build(kind: type[Method], task: Task) -> list[Contestant]:
    """Build a method; a failed one is closed, so that its server does not stay behind."""
    gallery = task.gallery
    with ThreadpoolController().limit(limits=task.threads):
        method = kind(gallery.size, gallery.dimension, task.threads, task.folder)
        try:
            before = settled_bytes(method.ram_bytes)
            with task.steps(f"{kind.name}: building", gallery.size) as advance:
                began = time.perf_counter()
                method.build(_counted(gallery, advance))
                seconds = time.perf_counter() - began
            built = {
                "build_seconds": seconds,
                "ram_bytes_per_template": (settled_bytes(method.ram_bytes) - before) / gallery.size,
                "disk_bytes_per_template": _each(method.disk_bytes(), gallery.size),
            } | _started_again(method, gallery, seconds)
        except BaseException:
            method.close()
            raise
    return [
        Contestant(method, setting, built, Run(), {fpir: Run() for fpir in FPIRS}, {}) for setting in method.settings
    ]


def _started_again(method: Method, gallery: GalleryFile, build_s: float) -> Figures:
    """Return the seconds of a start from the method's files, whose pages are still in memory; nothing without any."""
    if type(method).start_again is Method.start_again:
        return {}
    began = time.perf_counter()
    method.start_again(gallery)
    seconds = time.perf_counter() - began
    return {"startup_seconds": seconds, "startup_vs_build": seconds / build_s}


def _counted(gallery: GalleryFile, advance: Advance) -> Iterator[tuple[int, FloatArray]]:
    for start, block in gallery.blocks():
        yield start, block
        advance(len(block))


def settled_bytes(ram_bytes: Callable[[], int]) -> int:
    """Return what `ram_bytes` counts without what building has left unused in the allocator."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return ram_bytes()


def _each(total: int | None, size: int) -> float | None:
    return None if total is None else total / size


def _search(contestants: Sequence[Contestant], task: Task) -> None:
    """Search one by one and in batches; the methods take turns, so that a busy moment meets all of them."""
    name = " and ".join(dict.fromkeys(contestant.method.name for contestant in contestants))
    probes, thresholds = task.probes.embeddings, task.truth.thresholds
    for contestant in contestants:  # warm
        contestant.method.use(contestant.setting)
        contestant.method.search_one(probes[0], thresholds[min(FPIRS)])
    singles = [(contestant, contestant.one) for contestant in contestants]
    with task.steps(f"{name}: one probe at a time", task.one_probes) as advance:
        _in_turn(singles, probes[: task.one_probes], thresholds[min(FPIRS)], 1, task, advance)
    for fpir in FPIRS:
        runs = [(contestant, contestant.batches[fpir]) for contestant in contestants]
        with task.steps(f"{name}: batches at FPIR {fpir:.0%}", len(probes)) as advance:
            _in_turn(runs, probes, thresholds[fpir], BATCH, task, advance)
        for contestant in contestants:
            contestant.miss_bounds[fpir] = contestant.method.miss_bound


def _in_turn(
    runs: Sequence[tuple[Contestant, Run]],
    probes: FloatArray,
    threshold: float,
    each: int,
    task: Task,
    advance: Advance,
) -> None:
    """Search `each` probes at a time; a turn is one batch, or some single probes."""
    pools, turn = ThreadpoolController(), each if each > 1 else SINGLES_A_TURN
    for number, start in enumerate(range(0, len(probes), turn)):
        part = probes[start : start + turn]
        first = number % len(runs)
        for contestant, run in (*runs[first:], *runs[:first]):
            if not contestant.method.is_core and sum(run.seconds) > task.budget_s:
                continue
            with pools.limit(limits=task.threads):
                contestant.method.use(contestant.setting)
                time.sleep(REST_S)
                for position in range(0, len(part), each):
                    run.search(contestant.method, part[position : position + each], threshold, is_one=each == 1)
        advance(len(part))


def _figures(contestant: Contestant, task: Task) -> Figures:
    strict, loose = FPIRS
    one = contestant.one
    singles = np.array(one.seconds) * 1000
    batch, lower = contestant.batches[strict], contestant.batches[loose]
    return contestant.built | {
        "one_probe_median_ms": float(np.median(singles)),
        "one_probe_p99_ms": float(np.quantile(singles, 0.99)),
        "one_probe_searches": len(singles),
        "one_probe_pairs_found": share_of_pairs(one.found, task.truth, strict),
        "batch_probes_per_s": 1 / batch.seconds_a_probe(),
        "probes_searched": len(batch.found),
        "mates_found": share_of_mates(batch.found, task.truth, task.probes, strict),
        "real_mates_found": share_of_mates(batch.found, task.truth, task.probes, strict, only_real=True),
        "pairs_at_threshold_found": share_of_pairs(batch.found, task.truth, strict),
        "probes_searched_fpir_50": len(lower.found),
        "mates_found_fpir_50": share_of_mates(lower.found, task.truth, task.probes, loose),
        "pairs_at_threshold_found_fpir_50": share_of_pairs(lower.found, task.truth, loose),
        "miss_bound_fpir_1": contestant.miss_bounds[strict],
        "miss_bound": contestant.miss_bounds[loose],
    }
