"""What several samples of a person are worth, on half of the people: `python -m benchmarks.fusion --dataset DIR`."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.datasets import Dataset, load_dataset, person_of
from benchmarks.embeddings import FaceSet, cache_path, extract_faces, load, save
from benchmarks.fusion_rates import (
    FMRS,
    RULES,
    SERVICE,
    Draw,
    FloatArray,
    Measured,
    at_calibrated,
    draws,
    false_matches,
    fnir_at_fpir,
    measured,
    weights_of,
)
from benchmarks.screen import console
from service.calibration import Calibration, fmr_for_fpir
from service.errors import BiodedupError
from service.face.model_packs import InstalledPack, installed_pack, list_packs
from service.fusion import comparisons
from service.population import Population, blocks, population_of
from service.settings import Settings, load_settings

SHAPES = ((2, 1), (3, 1), (1, 2), (1, 3), (2, 2))
"""Probes and references of a person."""
FPIRS = (0.1, 0.03, 0.01)
HALVES = ("tuning", "reporting")
_SEED = 2017  # of the halves
_LIKE_ONE_PERSON = 0.35  # share of mated pairs that score lower: both packs name the same six pairs of people
"""Those are in the data under two names (docs/accuracy.md, "The floor"); the second name is left out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fusion", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder with images/, pairs.txt, openset.json")
    parser.add_argument("--half", choices=HALVES, default="reporting", help="of the people")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE too")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings(os.environ)
        dataset = load_dataset(given.dataset)
        found = {}
        for status in list_packs(settings.models_dir):
            # measuring is not running a service: the licence was accepted when the pack was fetched
            pack = installed_pack(settings.models_dir, status.pack_id, accepted_licences=frozenset({status.pack_id}))
            found[status.pack_id] = _measure(dataset, pack, settings, given.half)
    except (OSError, ValueError, BiodedupError) as error:
        console.print(f"[red]{error}")
        return 1
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def _measure(dataset: Dataset, pack: InstalledPack, settings: Settings, half: str) -> dict[str, Any]:
    pack_id = pack.manifest.pack_id
    calibration = Calibration.from_json((settings.models_dir / pack_id / "calibration.json").read_text("utf-8"))
    population = half_of(_templates(dataset, pack, settings), half, calibration)
    console.rule(f"{pack_id}: {population.people:,} people of the {half} half")
    return {
        f"{probes}x{references}": _shape(population, calibration, probes, references) for probes, references in SHAPES
    }


def half_of(faces: FaceSet, half: str, calibration: Calibration) -> Population:
    """Return half of the people, without those who are in the data under two names."""
    names = [person_of(photograph) for photograph in faces.row_of]
    everybody = population_of(faces.embeddings, names)
    twice = _second_names(everybody, float(np.quantile(calibration.mated_scores, _LIKE_ONE_PERSON)))
    order = np.random.default_rng(_SEED).permutation(everybody.people)
    place = HALVES.index(half)
    chosen = np.zeros(everybody.people, np.bool_)
    chosen[np.array_split(order, len(HALVES))[place]] = True
    chosen[list(twice)] = False
    kept = chosen[everybody.person_of_row]
    return population_of(faces.embeddings[kept], [name for name, keep in zip(names, kept, strict=True) if keep])


def _second_names(population: Population, score: float) -> set[int]:
    person = population.person_of_row
    found = set()
    for people, block in blocks(population):
        rows, columns = np.nonzero(block >= score)
        first, second = person[rows + population.starts[people.start]], person[columns]
        found.update(np.maximum(first, second).tolist())
    return found


def _templates(dataset: Dataset, pack: InstalledPack, settings: Settings) -> FaceSet:
    path = cache_path(settings.var_dir / "benchmarks", dataset, pack, settings.min_face_width_px)
    if path.exists():
        return load(path)
    with console.status(f"{pack.manifest.pack_id}: templates of {len(dataset.photographs):,} photographs"):
        faces = extract_faces(
            dataset,
            pack,
            workers=os.cpu_count() or 1,
            min_face_width_px=settings.min_face_width_px,
            progress=lambda _done: None,
        )
    save(path, faces)
    return faces


def _shape(population: Population, calibration: Calibration, probes: int, references: int) -> dict[str, Any]:
    found = draws(population, probes, references, calibration, mixed=False)
    weights = weights_of(population)
    console.print(
        f"\n[bold]{probes} sample(s) against {references} reference(s)[/]: {len(found[0].mated)} mated and "
        f"{len(found[0].searched)} non-mated people, {len(found)} draws"
    )
    figures = {
        "fnir": _print_fnir(found, weights),
        "calibrated": _print_calibrated(found, weights, calibration, probes),
        "false_matches": _print_false_matches(found, weights),
    }
    if probes > 1:
        with_stranger = draws(population, probes, references, calibration, mixed=True)
        console.print("One of the samples shows somebody else, who is enrolled too (so nobody is non-mated):")
        figures["with_a_stranger"] = _print_calibrated(with_stranger, weights, calibration, probes)
    return figures


def _print_fnir(found: Sequence[Draw], weights: FloatArray) -> dict[str, Any]:
    table = Table(title="FNIR at equal realised FPIR; the difference from one sample; from the best single pair")
    table.add_column("compared by")
    for fpir in FPIRS:
        table.add_column(f"FPIR {fpir:.0%}", justify="right")
    rates = {rule: [fnir_at_fpir(found, rule, fpir, weights) for fpir in FPIRS] for rule in RULES}
    figures: dict[str, Any] = {}
    for rule, some in rates.items():
        cells, figures[rule] = [], {}
        for fpir, each, one, pair in zip(FPIRS, some, rates["one"], rates["pair"], strict=True):
            rate, less_one, less_pair = measured(each), measured(each - one), measured(each - pair)
            cells.append("\n".join((percent(rate), percent(less_one, signed=True), percent(less_pair, signed=True))))
            figures[rule][f"{fpir:g}"] = {
                "fnir": asdict(rate),
                "less_one": asdict(less_one),
                "less_pair": asdict(less_pair),
            }
        table.add_row(rule, *cells)
    console.print(table)
    return figures


def _print_calibrated(
    found: Sequence[Draw], weights: FloatArray, calibration: Calibration, probes: int
) -> dict[str, Any]:
    table = Table(title="At the thresholds of the calibration")
    for column in ("compared by", "promised FPIR", "comparisons", "score", "FPIR", "FNIR", "FNIR less the pair's"):
        table.add_column(column, justify="right")
    templates = found[0].templates
    counted = {
        "one": found[0].people,
        "pair": templates * probes,
        SERVICE: comparisons(templates, found[0].several, probes + (probes > 1)),
    }
    figures: dict[str, Any] = {rule: {} for rule in counted}
    for fpir in FPIRS:
        limits = {rule: calibration.threshold(fmr_for_fpir(fpir, count)) for rule, count in counted.items()}
        not_fused = {**limits, SERVICE: limits["pair"]} if probes > 1 else limits
        rates = {rule: at_calibrated(found, rule, (not_fused[rule], limits[rule]), weights) for rule in counted}
        for rule, (flagged, missed) in rates.items():
            threshold = limits[rule]
            less = measured(missed - rates["pair"][1])
            shares = (percent(measured(flagged)), percent(measured(missed)), percent(less, signed=True))
            table.add_row(rule, f"{fpir:.0%}", f"{counted[rule]:,}", f"{threshold:.3f}", *shares)
            figures[rule][f"{fpir:g}"] = {
                "comparisons": counted[rule],
                "threshold": threshold,
                "fpir": asdict(measured(flagged)),
                "fnir": asdict(measured(missed)),
                "less_pair": asdict(less),
            }
    console.print(table)
    return figures


def _print_false_matches(found: Sequence[Draw], weights: FloatArray) -> dict[str, Any]:
    table = Table(title="False matches: how many times those of a single pair at the same score")
    table.add_column("compared by")
    for fmr in FMRS:
        table.add_column(f"FMR {fmr:.0e}", justify="right")
    figures: dict[str, Any] = {}
    for rule in ("pair", "mean templates", SERVICE):
        times = {f"{fmr:g}": measured(each) for fmr, each in false_matches(found, rule, weights)}
        table.add_row(rule, *(f"{each.value:.2f} ({each.low:.2f} to {each.high:.2f})" for each in times.values()))
        figures[rule] = {fmr: asdict(each) for fmr, each in times.items()}
    console.print(table)
    return figures


def percent(share: Measured, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    value, low, high = (f"{100 * each:{sign}.2f}" for each in (share.value, share.low, share.high))
    return f"{value} % ({low} to {high})"


if __name__ == "__main__":
    raise SystemExit(main())
