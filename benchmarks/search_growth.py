"""How one search grows with the gallery, beside what the memory could do: `python -m benchmarks.speed growth`."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.screen import console
from benchmarks.search_biodedup import CODE_BYTES, IndexFolder, as_served, fill
from benchmarks.search_gallery import (
    MATE_COSINES,
    PACK_OF_DIMENSION,
    FloatArray,
    IntArray,
    Population,
    drawn_blocks,
    load_population,
    mated_probes,
    population_path,
)
from benchmarks.search_measurement import Figures, settled_bytes
from benchmarks.search_methods import MILLION, Flat, rss_anon
from benchmarks.search_truth import Found, threshold_of
from service.gallery.segmented_index import SegmentedIndex

FPIR = 0.01
_BANDWIDTH_BYTES = 128 * 2**20  # a thread: many times the cache
_BANDWIDTH_ROUNDS = 10
_BATCH = 256
_TURNS = 5  # of searches, between measurements of the bandwidth


@dataclass(frozen=True)
class GrowthPlan:
    """What to measure; `sizes` ascend."""

    dimension: int
    sizes: Sequence[int]
    threads: int = 2
    one_probes: int = 200
    probes: int = 1000  # mated at each size, and as many non-mated
    flat_size: int = MILLION  # 0: not measured
    seed: int = 0
    folder: Path = Path("var/benchmarks")


def growth(
    dimension: Annotated[int, typer.Option(help="128 (statistics of opencv-zoo) or 512 (buffalo_s).")] = 512,
    sizes: Annotated[str, typer.Option(help="Templates at which to measure, ascending.")] = "1000000,2000000,5000000",
    threads: Annotated[int, typer.Option(min=1, help="Threads of a search.")] = 2,
    one_probes: Annotated[int, typer.Option(min=100, help="Searches of one probe that are timed.")] = 200,
    flat_size: Annotated[int, typer.Option(help="Templates of faiss's flat index beside it; 0: none.")] = MILLION,
    seed: Annotated[int, typer.Option(help="Another seed, another gallery.")] = 0,
    folder: Annotated[Path, typer.Option(help="Where the index keeps its files.")] = Path("var/benchmarks"),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Let one index grow and time one probe at each size, against the time in which its codes could be read."""
    if dimension not in PACK_OF_DIMENSION:
        raise typer.BadParameter(f"--dimension must be one of {', '.join(map(str, PACK_OF_DIMENSION))}")
    plan = GrowthPlan(
        dimension,
        _sizes(sizes),
        threads,
        one_probes,
        flat_size=flat_size,
        seed=seed,
        folder=folder,
    )
    figures = grow(plan)
    _print(figures)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        console.print(f"Written: {json_file}")


def grow(plan: GrowthPlan) -> Figures:
    """Let the index grow from size to size in one run; return what --json writes."""
    people = load_population(population_path(PACK_OF_DIMENSION[plan.dimension]))
    plan.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="growth-", dir=plan.folder) as name, as_served():
        flat = _flat_figures(plan, people, Path(name)) if plan.flat_size else None
        grown = list(_Growing(plan, people, Path(name)).entries())
    code_bytes = CODE_BYTES[plan.dimension]
    for entry in grown:
        entry["limit_ms"] = entry["templates"] * code_bytes / entry["bandwidth_gb_per_s"] / 1e6
        entry["times_limit"] = entry["one_probe_median_ms"] / entry["limit_ms"]
    return {
        "dimension": plan.dimension,
        "threads": plan.threads,
        "seed": plan.seed,
        "code_bytes": code_bytes,
        "sizes": grown,
        "growth": grown[-1]["times_limit"] / grown[0]["times_limit"],
        "flat": flat,
        "flat_1m_one_probe_ms": flat["one_probe_median_ms"] if flat and flat["templates"] == MILLION else None,
    }


def memory_bandwidth(
    threads: int, array_bytes: int = _BANDWIDTH_BYTES, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the bytes a second that the threads can read together, each its own array: the best of some rounds."""
    arrays = [np.ones(array_bytes // 4, np.float32) for _ in range(threads)]
    best = 0.0
    # which of the two comes closest to the memory's speed depends on the processor and on the number of threads
    readers: tuple[Callable[[FloatArray], object], ...] = (np.sum, lambda array: array @ array)
    with threadpool_limits(limits=1), ThreadPoolExecutor(threads) as pool:
        for read in readers * _BANDWIDTH_ROUNDS:
            began = clock()
            list(pool.map(read, arrays))
            best = max(best, threads * array_bytes / (clock() - began))
    return best


class _Growing:
    """One index, filled from size to size; templates are drawn as they are added and kept nowhere else."""

    def __init__(self, plan: GrowthPlan, people: Population, folder: Path) -> None:
        self._plan, self._people = plan, people
        rng, sample = np.random.default_rng([plan.seed, 2]), people.sampler()
        self._others = sample(rng, plan.probes)
        self._non_mated = sample(rng, plan.probes)
        self._cosines = rng.uniform(*MATE_COSINES, plan.probes).astype(np.float32)
        self._mates = {size: np.sort(rng.choice(size, plan.probes, replace=False)) for size in plan.sizes}
        self._wanted = np.unique(np.concatenate(list(self._mates.values())))
        self._templates = np.empty((len(self._wanted), people.dimension), np.float32)
        self._highest = np.full(plan.probes, -np.inf, np.float32)  # scores of the non-mated probes
        self._files = IndexFolder(folder, people.dimension, plan.threads)

    def entries(self) -> Iterator[Figures]:
        """Yield the figures of each size."""
        index, reached = self._files.open(), 0
        for size in self._plan.sizes:
            console.print(f"filling up to {size:,}")
            began = time.perf_counter()
            fill(index, self._seen(reached, size))
            fill_s, reached = time.perf_counter() - began, size
            yield self._measured(index, size) | {"fill_seconds": fill_s}

    def _seen(self, start: int, end: int) -> Iterator[tuple[int, FloatArray]]:
        """Draw blocks; keep what the mated probes are made of, and the highest score of each non-mated one."""
        for first, block in drawn_blocks(self._people, self._plan.seed, start, end):
            low, high = np.searchsorted(self._wanted, (first, first + len(block)))
            self._templates[low:high] = block[self._wanted[low:high] - first]
            np.maximum(self._highest, (self._non_mated @ block.T).max(axis=1), out=self._highest)
            yield first, block

    def _measured(self, index: SegmentedIndex, size: int) -> Figures:
        mates = self._mates[size]
        templates = self._templates[np.searchsorted(self._wanted, mates)]
        mated = mated_probes(templates, self._others, self._cosines)
        threshold = threshold_of(self._highest, FPIR)
        timed = np.stack([mated, self._non_mated], axis=1).reshape(-1, self._people.dimension)[: self._plan.one_probes]
        milliseconds, bandwidth = self._timed(lambda probe: index.search(probe, threshold), timed)
        return {
            "templates": size,
            "threshold": threshold,
            "bandwidth_gb_per_s": bandwidth / 1e9,
            "one_probe_median_ms": float(np.median(milliseconds)),
            "one_probe_p99_ms": float(np.quantile(milliseconds, 0.99)),
            "mates_at_threshold": int(_reach(templates, mated, threshold).sum()),
            "mates_found": _mates_found(index, mated, mates, _reach(templates, mated, threshold), threshold),
            "rss_anon_bytes": settled_bytes(lambda: rss_anon(os.getpid())),
            "disk_bytes_per_template": self._files.disk_bytes() / size,
        }

    def _timed(self, search: Callable[[FloatArray], object], probes: FloatArray) -> tuple[FloatArray, float]:
        """Return the milliseconds of each probe, and the median of the memory's bandwidth meanwhile.

        It is measured between the searches: where others share the memory it changes by a third within a minute.
        """
        milliseconds, bandwidths = [], [memory_bandwidth(self._plan.threads)]
        for turn in np.array_split(probes, _TURNS):
            milliseconds.append(1000 * np.array(_seconds_of_each(search, turn)))
            bandwidths.append(memory_bandwidth(self._plan.threads))
        return np.concatenate(milliseconds), float(np.median(bandwidths))


def _seconds_of_each(search: Callable[[FloatArray], object], probes: FloatArray) -> list[float]:
    """Search one probe after another; some beforehand warm what there is to warm."""
    for probe in probes[:10]:
        search(probe[None])
    seconds = []
    for probe in probes:
        began = time.perf_counter()
        search(probe[None])
        seconds.append(time.perf_counter() - began)
    return seconds


def _reach(templates: FloatArray, mated: FloatArray, threshold: float) -> npt.NDArray[np.bool_]:
    reach: npt.NDArray[np.bool_] = np.einsum("ij,ij->i", templates, mated) >= threshold
    return reach


def _mates_found(
    index: SegmentedIndex, mated: FloatArray, mates: IntArray, reach: npt.NDArray[np.bool_], threshold: float
) -> float | None:
    """Return the share of the mates at or above the threshold that is found, in batches."""
    wanted, probes = mates[reach].tolist(), mated[reach]
    found: list[bool] = []
    for start in range(0, len(probes), _BATCH):
        answers = index.search(probes[start : start + _BATCH], threshold)
        found += [
            any(hit.reference_id == mate for hit in hits)
            for mate, hits in zip(wanted[start : start + _BATCH], answers, strict=True)
        ]
    return sum(found) / len(found) if found else None


def _flat_figures(plan: GrowthPlan, people: Population, folder: Path) -> Figures:
    """Time faiss's flat index with both of its settings, at a threshold that hardly any score reaches."""
    console.print(f"faiss's flat index of {plan.flat_size:,}")
    flat = Flat(plan.flat_size, plan.dimension, plan.threads, folder)
    flat.build(drawn_blocks(people, plan.seed, 0, plan.flat_size))
    probes = people.sampler()(np.random.default_rng([plan.seed, 3]), plan.one_probes)
    threshold = 0.9

    def search(probe: FloatArray) -> list[Found]:
        return flat.search_batch(probe, threshold)

    medians = []
    with threadpool_limits(limits=plan.threads):
        for setting in flat.settings:
            flat.use(setting)
            medians.append(float(np.median(_seconds_of_each(search, probes))) * 1000)
    return {
        "templates": plan.flat_size,
        "one_probe_median_ms": medians[0],
        "default_one_probe_median_ms": medians[1],
    }


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or sizes != sorted(set(sizes)) or sizes[0] < 1000:
        raise typer.BadParameter("--sizes: numbers from 1000 on, ascending, with commas between them")
    return sizes


_COLUMNS = {
    "templates": ("templates", "{:,}"),
    "one probe ms": ("one_probe_median_ms", "{:.2f}"),
    "GB/s": ("bandwidth_gb_per_s", "{:.1f}"),
    "limit ms": ("limit_ms", "{:.2f}"),
    "times limit": ("times_limit", "{:.2f}"),
    "mates found": ("mates_found", "{:.2%}"),
    "RssAnon MiB": ("rss_anon_mib", "{:,.0f}"),
    "fill s": ("fill_seconds", "{:,.0f}"),
}


def _print(figures: Figures) -> None:
    table = Table(title=f"{figures['dimension']} dimensions")
    for heading in _COLUMNS:
        table.add_column(heading, justify="right")
    for entry in figures["sizes"]:
        row = entry | {"rss_anon_mib": entry["rss_anon_bytes"] / 2**20}
        cells = [(row[key], form) for key, form in _COLUMNS.values()]
        table.add_row(*("" if value is None else form.format(value) for value, form in cells))
    console.print(table)
    console.print(f"growth against the limit: {figures['growth']:.2f}")
    if figures["flat"]:
        flat = figures["flat"]
        console.print(
            f"flat, {flat['templates']:,} templates: {flat['one_probe_median_ms']:.1f} ms a probe, "
            f"{flat['default_one_probe_median_ms']:.1f} with faiss's default"
        )
