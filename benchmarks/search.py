"""1:N search of biodedup beside other libraries, in one run: `python -m benchmarks.speed search`."""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.datasets import Dataset, load_dataset, person_of
from benchmarks.embeddings import FaceSet, cache_path, extract_faces, load, save
from benchmarks.screen import console
from benchmarks.search_biodedup import Biodedup
from benchmarks.search_gallery import (
    PACK_OF_DIMENSION,
    REAL_SHARE,
    Advance,
    RealMates,
    load_population,
    make_gallery,
    make_probes,
    measure_population,
    population_path,
    real_mates,
    save_population,
)
from benchmarks.search_graphs import Hnswlib, UsearchExact, UsearchGraph
from benchmarks.search_measurement import Figures, Task, measure
from benchmarks.search_methods import FaissHnsw, FaissIvf, Flat, Gemm, Method
from benchmarks.search_servers import PgVectorExact, PgVectorHnsw, QdrantLocal
from benchmarks.search_truth import Truth, find_truth
from service.errors import ModelPackError
from service.face.model_packs import installed_pack
from service.settings import Settings

FACES = Path("../shared/data/lfw-dev")
CORE = (Biodedup, Flat, Gemm)
OTHERS = (FaissHnsw, FaissIvf, Hnswlib, UsearchExact, UsearchGraph, PgVectorExact, PgVectorHnsw, QdrantLocal)
METHODS: dict[str, type[Method]] = {kind.name: kind for kind in (*CORE, *OTHERS)}
# how a library that is not installed, or a server that does not start here, makes itself known
NOT_USABLE = (ImportError, LookupError, OSError, psycopg.Error, subprocess.SubprocessError)


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    gallery_size: int
    dimension: int
    threads: int
    methods: Sequence[type[Method]]
    probes: int = 1000  # mated, and as many non-mated
    one_probes: int = 200
    seed: int = 0
    budget_s: float = 60
    folder: Path = Path("var/benchmarks")


def search(
    gallery_size: Annotated[int, typer.Option(min=1000, help="Templates in the gallery.")] = 100_000,
    dimension: Annotated[int, typer.Option(help="128 (statistics of opencv-zoo) or 512 (buffalo_s).")] = 128,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every method.")] = 2,
    methods: Annotated[str, typer.Option(help=f"all, or some of: {', '.join(METHODS)}.")] = "biodedup,flat,gemm",
    probes: Annotated[int, typer.Option(min=100, help="Mated probes, and as many non-mated ones.")] = 1000,
    one_probes: Annotated[int, typer.Option(min=100, help="Searches of one probe that are timed.")] = 200,
    seed: Annotated[int, typer.Option(help="Another seed, another gallery.")] = 0,
    budget: Annotated[float, typer.Option(help="Seconds of searches, where a method is slow.")] = 60,
    faces: Annotated[Path, typer.Option(help="Photographs whose real mates are mixed in, where present.")] = FACES,
    folder: Annotated[Path, typer.Option(help="Where the gallery is kept during the run.")] = Path("var/benchmarks"),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Search a gallery with each method: seconds, bytes, and what share of the pairs above the threshold is found."""
    if dimension not in PACK_OF_DIMENSION:
        raise typer.BadParameter(f"--dimension must be one of {', '.join(map(str, PACK_OF_DIMENSION))}")
    plan = Plan(gallery_size, dimension, threads, _chosen(methods), probes, one_probes, seed, budget, folder)
    try:
        figures = run(plan, _real(faces, dimension, int(min(probes * REAL_SHARE, gallery_size / 10))))
    except (OSError, ValueError) as error:
        console.print(f"[red]{error}")
        raise typer.Exit(1) from error
    _print(figures)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        console.print(f"Written: {json_file}")


def population(
    pack_id: Annotated[str, typer.Option("--pack", help="Model pack.")] = "opencv-zoo",
    faces: Annotated[Path, typer.Option(help="Folder of photographs.")] = FACES,
) -> None:
    """Measure the mean and covariance of a pack's templates and write benchmarks/population/PACK.npz anew."""
    measured = measure_population(_extracted(load_dataset(faces), pack_id))
    save_population(population_path(pack_id), measured)
    console.print(f"Written: {population_path(pack_id)}")


def run(plan: Plan, real: RealMates | None = None) -> dict[str, Any]:
    """Make the gallery, find the truth, measure every method; return what --json writes."""
    people = load_population(population_path(PACK_OF_DIMENSION[plan.dimension]))
    first = (real.gallery,) if real else ()
    plan.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="search-", dir=plan.folder) as name:
        folder = Path(name)
        with _steps("making the gallery", plan.gallery_size) as advance:
            gallery = make_gallery(folder / "gallery", people, plan.gallery_size, plan.seed, first, advance)
        probes = make_probes(gallery, people, plan.probes, plan.seed, real.probes if real else None)
        with _steps("exact search of all probes", plan.gallery_size) as advance:
            truth = find_truth(gallery, probes, advance)
        task = Task(gallery, probes, truth, plan.threads, plan.one_probes, plan.budget_s, folder, _steps)
        methods, skipped = _measure_all(plan, task)
    _compare(methods)
    return {
        "gallery_size": plan.gallery_size,
        "dimension": plan.dimension,
        "threads": plan.threads,
        "seed": plan.seed,
        "probes": {"mated": plan.probes, "non_mated": plan.probes, "mated_real": int(probes.is_real.sum())},
        **_truth_as_json(truth),
        "methods": methods,
        "skipped": skipped,
    }


def _measure_all(plan: Plan, task: Task) -> tuple[dict[str, Figures], dict[str, str]]:
    """Measure the core methods together, the others each by itself; return the figures and why some are missing."""
    figures: dict[str, Figures] = {}
    skipped: dict[str, str] = {}
    usable = []
    for kind in plan.methods:
        if kind.max_size is not None and plan.gallery_size > kind.max_size:
            skipped[kind.name] = f"measured up to {kind.max_size:,} templates only"
        else:
            usable.append(kind)
    core = [kind for kind in usable if kind.is_core]
    for group in ([core] if core else []) + [[kind] for kind in usable if not kind.is_core]:
        try:
            figures |= measure(group, task)
        except NOT_USABLE as error:
            if group is core:
                raise
            skipped[group[0].name] = str(error)
    for name, reason in skipped.items():
        console.print(f"[yellow]Not measured: {name}: {reason}")
    return figures, skipped


def _compare(methods: dict[str, Figures]) -> None:
    """Add to every method how many times faster it is than the baselines of the same run."""
    flats = [figures["one_probe_median_ms"] for name, figures in methods.items() if name.startswith(Flat.name)]
    for figures in methods.values():
        if flats:
            figures["one_probe_vs_flat"] = methods[Flat.name]["one_probe_median_ms"] / figures["one_probe_median_ms"]
            # by threshold, faiss's default for one probe is faster than the setting that its batches by k need
            figures["one_probe_vs_best_flat"] = min(flats) / figures["one_probe_median_ms"]
        if Gemm.name in methods:
            gemm = methods[Gemm.name]["batch_probes_per_s"]
            figures["batch_vs_gemm"] = figures["batch_probes_per_s"] / gemm


def _truth_as_json(truth: Truth) -> dict[str, Any]:
    return {
        "thresholds": {f"{fpir:g}": threshold for fpir, threshold in truth.thresholds.items()},
        "pairs": {f"{fpir:g}": len(truth.pairs(fpir)[0]) for fpir in truth.thresholds},
    }


def _chosen(names: str) -> list[type[Method]]:
    wanted = list(METHODS) if names == "all" else [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in METHODS]
    if unknown:
        raise typer.BadParameter(f"--methods: no method {', '.join(unknown)}; there are {', '.join(METHODS)}")
    return [METHODS[name] for name in wanted]


def _real(faces: Path, dimension: int, count: int) -> RealMates | None:
    """Return the real mates, where the photographs and the pack are there."""
    if not faces.is_dir():
        console.print(f"No photographs in {faces}: all mates are made.")
        return None
    dataset = load_dataset(faces)
    enrolled = {person_of(photograph): photograph for photograph in dataset.open_set.gallery}
    # a few more than needed: not every photograph shows a usable face
    mated = dataset.open_set.mated[: count + count // 10]
    wanted = {*mated, *(enrolled[person_of(photograph)] for photograph in mated)}
    some = replace(dataset, photographs=tuple(sorted(wanted)), pairs=())
    try:
        return real_mates(dataset, _extracted(some, PACK_OF_DIMENSION[dimension]), count)
    except ModelPackError as error:
        console.print(f"[yellow]All mates are made: {error}")
        return None


def _extracted(dataset: Dataset, pack_id: str) -> FaceSet:
    """Return the templates of the photographs, from an earlier run where there was one."""
    settings = Settings()
    # a restricted licence was accepted when its pack was fetched, and measuring is not running a service
    pack = installed_pack(settings.models_dir, pack_id, accepted_licences=frozenset({pack_id}))
    path = cache_path(settings.var_dir / "benchmarks", dataset, pack, settings.min_face_width_px)
    if path.exists():
        return load(path)
    with _steps(f"{pack_id}: photographs", len(dataset.photographs)) as advance:
        faces = extract_faces(
            dataset,
            pack,
            workers=2,
            min_face_width_px=settings.min_face_width_px,
            progress=lambda _: advance(1),
        )
    save(path, faces)
    return faces


@contextmanager
def _steps(title: str, total: int) -> Iterator[Advance]:
    if not console.is_terminal:
        console.print(title)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.advance(task, done)


_SPEED = {
    "build s": ("build_seconds", "{:.1f}"),
    "start s": ("startup_seconds", "{:.2f}"),
    "RAM bytes a template": ("ram_bytes_per_template", "{:,.0f}"),
    "disk bytes a template": ("disk_bytes_per_template", "{:,.0f}"),
    "one probe ms": ("one_probe_median_ms", "{:.2f}"),
    "99th of 100 ms": ("one_probe_p99_ms", "{:.2f}"),
    "times flat": ("one_probe_vs_flat", "{:.1f}"),
    "batch probes/s": ("batch_probes_per_s", "{:,.0f}"),
    "times GEMM": ("batch_vs_gemm", "{:.2f}"),
}
_FOUND = {
    "probes": ("probes_searched", "{:,}"),
    "mates found": ("mates_found", "{:.2%}"),
    "pairs found": ("pairs_at_threshold_found", "{:.2%}"),
    "probes (50 %)": ("probes_searched_fpir_50", "{:,}"),
    "mates found (50 %)": ("mates_found_fpir_50", "{:.2%}"),
    "pairs found (50 %)": ("pairs_at_threshold_found_fpir_50", "{:.2%}"),
    "miss bound (50 %)": ("miss_bound", "{:.3%}"),
}


def _print(figures: dict[str, Any]) -> None:
    strict, loose = (figures["thresholds"][fpir] for fpir in ("0.01", "0.5"))
    size = f"{figures['gallery_size']:,} templates of {figures['dimension']} dimensions"
    _print_table(f"{size}, {figures['threads']} threads", _SPEED, figures["methods"])
    title = f"{size}: found at score >= {strict:.3f} (FPIR 1 %) and >= {loose:.3f} (50 %)"
    _print_table(title, _FOUND, figures["methods"])


def _print_table(title: str, columns: dict[str, tuple[str, str]], rows: dict[str, Figures]) -> None:
    table = Table(title=title)
    table.add_column("method", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        cells = [(row.get(key), form) for key, form in columns.values()]
        table.add_row(name, *("" if value is None else form.format(value) for value, form in cells))
    console.print(table)
