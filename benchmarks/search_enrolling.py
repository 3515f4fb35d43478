"""Search while others enrol: `python -m benchmarks.speed enrolling`."""

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from benchmarks.screen import console
from benchmarks.search_biodedup import IndexFolder, as_served, fill
from benchmarks.search_gallery import (
    PACK_OF_DIMENSION,
    FloatArray,
    Population,
    drawn_blocks,
    load_population,
    mated_probes,
    population_path,
)
from benchmarks.search_measurement import Figures
from benchmarks.search_truth import threshold_of
from service.gallery.segmented_index import SEAL_AT, SegmentedIndex

FPIR = 0.01
MATE_COSINE = 0.7  # far enough above the threshold for codes to be no excuse
_NON_MATED = 1000
_RECENT = 20_000  # templates that a search looks for one of: some are being sealed, some just were


@dataclass(frozen=True)
class EnrollingPlan:
    """What to measure."""

    gallery_size: int
    dimension: int
    threads: int = 2
    rate: float = 100  # templates a second of the paced phase
    seconds: float = 20  # of each phase
    newcomers: int = 200_000  # at most
    quiet_searches: int = 300
    seal_at: int = SEAL_AT
    seed: int = 0
    folder: Path = Path("var/benchmarks")


def enrolling(
    gallery_size: Annotated[int, typer.Option(min=1000, help="Templates at the beginning.")] = 100_000,
    dimension: Annotated[int, typer.Option(help="128 (statistics of opencv-zoo) or 512 (buffalo_s).")] = 512,
    threads: Annotated[int, typer.Option(min=1, help="Threads of a search.")] = 2,
    rate: Annotated[float, typer.Option(min=1, help="Templates a second that the whole service enrols.")] = 100,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to enrol, paced and then as fast as can be.")] = 20,
    newcomers: Annotated[int, typer.Option(min=1000, help="Templates to enrol, at most.")] = 200_000,
    seed: Annotated[int, typer.Option(help="Another seed, another gallery.")] = 0,
    folder: Annotated[Path, typer.Option(help="Where the index keeps its files.")] = Path("var/benchmarks"),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Search one probe after another while templates are added, at the pace of the service and at full speed."""
    if dimension not in PACK_OF_DIMENSION:
        raise typer.BadParameter(f"--dimension must be one of {', '.join(map(str, PACK_OF_DIMENSION))}")
    if newcomers < SEAL_AT + rate * seconds + 1000:
        raise typer.BadParameter("--newcomers: too few for both phases")
    plan = EnrollingPlan(gallery_size, dimension, threads, rate, seconds, newcomers=newcomers, seed=seed, folder=folder)
    figures = enrol_and_search(plan)
    _print(figures)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        console.print(f"Written: {json_file}")


def enrol_and_search(plan: EnrollingPlan) -> Figures:
    """Fill an index, then search it quietly and while it is added to, twice; return what --json writes."""
    people = load_population(population_path(PACK_OF_DIMENSION[plan.dimension]))
    plan.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="enrolling-", dir=plan.folder) as name, as_served():
        console.print(f"filling up to {plan.gallery_size:,}")
        scene = Scene(plan, people, IndexFolder(Path(name), plan.dimension, plan.threads).open())
        paced = scene.measured(plan.rate)
        full_speed = scene.measured(None)
        scene.index.settle()
    return {
        "gallery_size": plan.gallery_size,
        "dimension": plan.dimension,
        "threads": plan.threads,
        "seed": plan.seed,
        "threshold": scene.threshold,
        "paced": paced,
        "full_speed": full_speed,
    }


class Enroller(threading.Thread):
    """Adds templates one by one until it is stopped or has no more; `acknowledged` counts those whose add returned."""

    def __init__(self, index: SegmentedIndex, newcomers: FloatArray, first_id: int, rate: float | None) -> None:
        super().__init__(daemon=True)
        self._index, self._newcomers, self._first_id, self._rate = index, newcomers, first_id, rate
        self._stopped = threading.Event()
        self.acknowledged = 0
        self.begun = threading.Event()  # the first add has returned, or none will
        self.error: Exception | None = None

    def run(self) -> None:
        began = time.perf_counter()
        try:
            for number, template in enumerate(self._newcomers):
                early = began + number / self._rate - time.perf_counter() if self._rate else 0
                if self._stopped.wait(early) if early > 0 else self._stopped.is_set():
                    return
                self._index.add(self._index.high_water_mark + 1, [self._first_id + number], template[None])
                self.acknowledged = number + 1
                self.begun.set()
        except Exception as error:  # noqa: BLE001  (handed to whoever stops it)
            self.error = error
        finally:
            self.begun.set()

    def stop(self) -> None:
        """Wait for the last add. Raises what an add raised."""
        self._stopped.set()
        self.join()
        if self.error is not None:
            raise self.error


class Scene:
    """An index, those who are in it and those who come."""

    def __init__(self, plan: EnrollingPlan, people: Population, index: SegmentedIndex) -> None:
        self.index, self._plan = index, plan
        self._rng, sample = np.random.default_rng([plan.seed, 4]), people.sampler()
        self._others = sample(self._rng, _NON_MATED)  # what makes a probe differ from its mate
        self._highest = np.full(len(self._others), -np.inf, np.float32)
        self._enrolled = np.empty((0, plan.dimension), np.float32)
        fill(index, self._seen(drawn_blocks(people, plan.seed, 0, plan.gallery_size)))
        self.threshold = threshold_of(self._highest, FPIR)
        coming = drawn_blocks(people, plan.seed, plan.gallery_size, plan.gallery_size + plan.newcomers)
        self._newcomers = np.concatenate([block for _, block in coming])
        self._arrived = 0

    def measured(self, rate: float | None) -> Figures:
        """Search quietly, then while templates are added at this rate a second (None: as fast as can be)."""
        if rate is not None:
            self._fill_open_segment(int(rate * self._plan.seconds / 2))
        self.index.settle()
        quiet = [
            self._timed(self._enrolled[number % len(self._enrolled)])[0] for number in range(self._plan.quiet_searches)
        ]
        enroller = Enroller(self.index, self._newcomers[self._arrived :], self._plan.gallery_size + self._arrived, rate)
        began = time.perf_counter()
        enroller.start()
        searches = list(self._meanwhile(enroller, began + self._plan.seconds))
        seconds, unsealed = time.perf_counter() - began, self._unsealed()
        enroller.stop()
        self._arrived += enroller.acknowledged
        times = 1000 * np.array([each for each, _ in searches])
        return {
            "templates_added": enroller.acknowledged,
            "templates_added_per_s": enroller.acknowledged / seconds,
            "templates_not_sealed_at_end": unsealed,
            "searches": len(searches),
            "quiet_median_ms": float(np.median(quiet)) * 1000,
            "median_ms": float(np.median(times)),
            "p99_ms": float(np.quantile(times, 0.99)),
            "slowdown": float(np.median(times) / (np.median(quiet) * 1000)),
            "missed_acknowledged": sum(not is_found for _, is_found in searches),
        }

    def _seen(self, blocks: Iterator[tuple[int, FloatArray]]) -> Iterator[tuple[int, FloatArray]]:
        """Pass blocks on; note the highest score of each non-mated probe, and some templates to search for."""
        for start, block in blocks:
            np.maximum(self._highest, (self._others @ block.T).max(axis=1), out=self._highest)
            self._enrolled = np.concatenate([self._enrolled, block[::97]])
            yield start, block

    def _fill_open_segment(self, missing: int) -> None:
        """Add templates until only so many are missing: it is then sealed half-way through the phase."""
        count = (self._plan.seal_at - missing - self._unsealed()) % self._plan.seal_at
        rows = self._newcomers[self._arrived : self._arrived + count]
        first = self._plan.gallery_size + self._arrived
        fill(self.index, [(first, rows)] if len(rows) else [])
        self._arrived += len(rows)

    def _meanwhile(self, enroller: Enroller, until: float) -> Iterator[tuple[float, bool]]:
        """Search for one of the latest templates after another, half the time for the very latest."""
        enroller.begun.wait()
        is_over = False
        while not is_over and (acknowledged := enroller.acknowledged):  # read before the search begins
            back = int(self._rng.integers(min(acknowledged, _RECENT))) if self._rng.random() < 0.5 else 0
            newest = self._arrived + acknowledged - 1 - back
            yield self._timed(self._newcomers[newest], self._plan.gallery_size + newest)
            is_over = time.perf_counter() > until or not enroller.is_alive()

    def _timed(self, template: FloatArray, reference_id: int = -1) -> tuple[float, bool]:
        """Return the seconds of a search with another photograph of a template, and whether it was found."""
        other = self._others[self._rng.integers(len(self._others))]
        probe = mated_probes(template[None], other[None], np.array([MATE_COSINE], np.float32))
        began = time.perf_counter()
        (hits,) = self.index.search(probe, self.threshold)
        return time.perf_counter() - began, any(hit.reference_id == reference_id for hit in hits)

    def _unsealed(self) -> int:
        return sum(part.templates for part in self.index.parts() if part.state != "sealed")


_COLUMNS = {
    "templates/s": ("templates_added_per_s", "{:,.0f}"),
    "added": ("templates_added", "{:,}"),
    "searches": ("searches", "{:,}"),
    "quiet ms": ("quiet_median_ms", "{:.2f}"),
    "meanwhile ms": ("median_ms", "{:.2f}"),
    "99th of 100 ms": ("p99_ms", "{:.2f}"),
    "times slower": ("slowdown", "{:.2f}"),
    "missed": ("missed_acknowledged", "{:,}"),
}


def _print(figures: Figures) -> None:
    table = Table(title=f"{figures['gallery_size']:,} templates of {figures['dimension']} dimensions and more")
    table.add_column("enrolling", no_wrap=True)
    for heading in _COLUMNS:
        table.add_column(heading, justify="right")
    for title, key in (("paced", "paced"), ("full speed", "full_speed")):
        table.add_row(title, *(form.format(figures[key][name]) for name, form in _COLUMNS.values()))
    console.print(table)
