"""Error rates of the installed model packs, through the service's own code: `python -m benchmarks.error_rates`."""

import argparse
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.datasets import Dataset, load_dataset
from benchmarks.embeddings import FaceSet, cache_path, extract_faces, load, save
from benchmarks.pack_rates import FPIRS, PackRates, measure
from benchmarks.rates import Rate
from benchmarks.screen import console
from service.calibration import Calibration, fmr_for_fpir
from service.errors import BiodedupError, ModelPackError
from service.face.model_packs import InstalledPack, installed_pack, list_packs
from service.settings import Settings, load_settings

GALLERY_SIZES = (10_000, 100_000, 1_000_000)
REVIEW_FPIR = 0.01


@dataclass(frozen=True)
class Options:
    """The command line, checked."""

    dataset: Path
    packs: tuple[str, ...]  # empty: all that are installed
    json_file: Path | None
    fresh: bool
    workers: int
    models_dir: Path
    cache_dir: Path
    min_face_width_px: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; return the exit code."""
    options = _options(arguments)
    try:
        return _run(options)
    except (OSError, ValueError, BiodedupError) as error:
        console.print(f"[red]{error}")
        return 1


def _run(options: Options) -> int:
    dataset = load_dataset(options.dataset)
    packs = list(usable_packs(options))
    if not packs:
        console.print("No model pack can be measured. Run: biodedup models fetch opencv-zoo")
        return 1
    rates, calibrations = [], {}
    for pack in packs:
        faces = faces_of(dataset, pack, options)
        rates.append(measure(dataset, pack.manifest.pack_id, pack.model_id, faces))
        calibrations[pack.manifest.pack_id] = _stored_calibration(options.models_dir, pack.manifest.pack_id)
    _print_rates(rates)
    _print_expected_misses(calibrations)
    if options.json_file:
        options.json_file.write_text(json.dumps(as_json(rates), indent=2) + "\n", encoding="utf-8")
        console.print(f"Written: {options.json_file}")
    return 0


def as_json(rates: Iterable[PackRates]) -> dict[str, Any]:
    """Return the figures by pack; `intervals` repeats them as [low, high] of 95 %."""
    return {"packs": {pack.pack_id: _pack_as_json(pack) for pack in rates}}


def _pack_as_json(pack: PackRates) -> dict[str, Any]:
    return {
        "failure_to_acquire": pack.failure_to_acquire.value,
        "accuracy": pack.accuracy.value,
        "fnir_at_fpir": {f"{fpir:g}": rate.value for fpir, rate in pack.fnir.items()},
        "fnir_at_fpir_rank_1": {f"{fpir:g}": rate.value for fpir, rate in pack.fnir_rank_1.items()},
        "threshold_at_fpir": {f"{fpir:g}": threshold for fpir, threshold in pack.thresholds.items()},
        "intervals": {
            "failure_to_acquire": _interval(pack.failure_to_acquire),
            "accuracy": _interval(pack.accuracy),
            "fnir_at_fpir": {f"{fpir:g}": _interval(rate) for fpir, rate in pack.fnir.items()},
            "fnir_at_fpir_rank_1": {f"{fpir:g}": _interval(rate) for fpir, rate in pack.fnir_rank_1.items()},
        },
        "model_id": pack.model_id,
        "photographs": pack.photographs,
        "people": pack.people,
        "gallery_size": pack.gallery_size,
    }


def _interval(rate: Rate) -> list[float]:
    return [rate.low, rate.high]


def _options(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.error_rates", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder with images/, pairs.txt, openset.json")
    parser.add_argument("--pack", nargs="+", action="extend", default=[], metavar="ID", help="default: all installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE too")
    parser.add_argument("--fresh", action="store_true", help="extract anew instead of using kept templates")
    parser.add_argument("--workers", type=int, default=0, help="photographs at once; 0: one a core")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings(os.environ)
    except BiodedupError as error:
        parser.error(str(error))
    if given.workers < 0:
        parser.error("--workers must be 0 or more")
    return checked(given, settings)


def checked(given: argparse.Namespace, settings: Settings) -> Options:
    return Options(
        dataset=given.dataset,
        packs=tuple(given.pack),
        json_file=given.json,
        fresh=given.fresh,
        workers=given.workers or os.cpu_count() or 1,
        models_dir=settings.models_dir,
        cache_dir=settings.var_dir / "benchmarks",
        min_face_width_px=settings.min_face_width_px,
    )


def usable_packs(options: Options) -> Iterable[InstalledPack]:
    """Yield the packs to measure and say of the others why not; one that was asked for by name must be usable.

    A restricted licence was accepted when its pack was fetched, and measuring is not running a service.
    """
    known = [status.pack_id for status in list_packs(options.models_dir)]
    for pack_id in options.packs or known:
        try:
            yield installed_pack(options.models_dir, pack_id, accepted_licences=frozenset({pack_id}))
        except ModelPackError as error:
            if options.packs:
                raise
            console.print(f"[yellow]Not measured: {error}")


def faces_of(dataset: Dataset, pack: InstalledPack, options: Options) -> FaceSet:
    path = cache_path(options.cache_dir, dataset, pack, options.min_face_width_px)
    if path.exists() and not options.fresh:
        console.print(f"{pack.manifest.pack_id}: templates of an earlier run, same model and code (--fresh: anew)")
        return load(path)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"{pack.manifest.pack_id}: photographs", total=len(dataset.photographs))
        faces = extract_faces(
            dataset,
            pack,
            workers=options.workers,
            min_face_width_px=options.min_face_width_px,
            progress=lambda done: bar.update(task, completed=done),
        )
    save(path, faces)
    return faces


def measurable_faces(dataset: Dataset, pack_ids: tuple[str, ...] = ()) -> Iterable[tuple[str, Path, FaceSet]]:
    """Yield each installed pack, or those that are named, with the folder of models and the templates.

    Raises:
        ModelPackError: a pack that is named cannot be used.
    """
    options = _options(["--dataset", str(dataset.root), *(["--pack", *pack_ids] if pack_ids else [])])
    for pack in usable_packs(options):
        yield pack.manifest.pack_id, options.models_dir, faces_of(dataset, pack, options)


def _stored_calibration(models_dir: Path, pack_id: str) -> Calibration | None:
    path = models_dir / pack_id / "calibration.json"
    return Calibration.from_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def _print_rates(rates: Sequence[PackRates]) -> None:
    first = rates[0]
    table = Table(title=f"Error rates on {first.photographs:,} photographs of {first.people:,} people (95 % interval)")
    table.add_column("What")
    for pack in rates:
        table.add_column(pack.pack_id, justify="right")
    table.add_row(
        "Failure to acquire: photographs without a usable face",
        *(f"{_percent(pack.failure_to_acquire)}" for pack in rates),
    )
    table.add_row(
        "Accuracy 1:1: same or different person? (balanced, ten folds by person)",
        *(_percent(pack.accuracy) for pack in rates),
    )
    for fpir in FPIRS:
        table.add_row(
            f"FNIR: enrolled people not found among {first.gallery_size:,}, when {fpir:.0%} of the new people "
            "are flagged by mistake (FPIR)",
            *(f"{_percent(pack.fnir[fpir])}\nscore >= {pack.thresholds[fpir]:.3f}" for pack in rates),
        )
    console.print(table)


def _print_expected_misses(calibrations: dict[str, Calibration | None]) -> None:
    known = {pack_id: calibration for pack_id, calibration in calibrations.items() if calibration}
    if not known:
        return
    table = Table(title=f"Duplicates that a review threshold of FPIR {REVIEW_FPIR:.0%} is expected to miss")
    table.add_column("People enrolled", justify="right")
    for pack_id in known:
        table.add_column(pack_id, justify="right")
    for size in GALLERY_SIZES:
        thresholds = [calibration.threshold(fmr_for_fpir(REVIEW_FPIR, size)) for calibration in known.values()]
        cells = [
            f"{calibration.expected_fnir(threshold):.0%} (score >= {threshold:.3f})"
            for calibration, threshold in zip(known.values(), thresholds, strict=True)
        ]
        table.add_row(f"{size:,}", *cells)
    console.print(table)
    for pack_id, calibration in known.items():
        console.print(f"{pack_id} was calibrated on {calibration.population}.")


def _percent(rate: Rate) -> str:
    return f"{rate.value:.2%} ({rate.low:.2%} to {rate.high:.2%})"


if __name__ == "__main__":
    raise SystemExit(main())
