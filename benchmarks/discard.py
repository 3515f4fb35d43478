"""What the measures of quality are worth: error-versus-discard curves. `python -m benchmarks.discard --dataset DIR`.

The scale of the unified score is made on one half of the people (--write-scale), every figure is of the other.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.datasets import Dataset, load_dataset, person_of
from benchmarks.discard_curves import (
    FMR,
    MEASURES,
    STATED_SHARE,
    UNIFIED,
    Half,
    Point,
    begin,
    curve,
    discarded_at_random,
    false_match_rate,
    fnmr,
    is_reported,
    kept_of,
)
from benchmarks.discard_plot import draw
from benchmarks.embeddings import FaceSet
from benchmarks.error_rates import Options, checked, faces_of, usable_packs
from benchmarks.screen import console
from service.domain import Quality, QualityGate
from service.errors import BiodedupError
from service.face.model_packs import InstalledPack
from service.face.unified import UnifiedScale, scale_of, scale_path
from service.quality_rule import advice_on, refuses
from service.settings import load_settings

POPULATION = "news photographs of public figures, mostly adult men (Labeled Faces in the Wild, half of the people)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; return the exit code."""
    given, options = _options(arguments)
    try:
        figures = _run(options, write_scale=given.write_scale)
        if given.json:
            given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        if given.svg:
            draw(figures, given.svg)
    except (OSError, ValueError, BiodedupError) as error:
        console.print(f"[red]{error}")
        return 1
    return 0


def fit_scale(pack_id: str, norms: Sequence[float], people: int) -> UnifiedScale:
    """Return the scale on which these norms, those of the half that is not reported, have their middle at 50."""
    logarithms = np.log(norms)
    return UnifiedScale(
        pack_id=pack_id,
        population=POPULATION,
        photographs=len(norms),
        people=people,
        mean_log_norm=round(float(logarithms.mean()), 6),
        sd_log_norm=round(float(logarithms.std()), 6),
    )


def measure(pack_id: str, names: Sequence[str], faces: FaceSet, scale: UnifiedScale) -> dict[str, Any]:
    """Return the curves of the reported half; `names` are the photographs of the rows."""
    people = [person_of(name) for name in names]
    rows = [row for row, person in enumerate(people) if is_reported(person)]
    people = [people[row] for row in rows]
    qualities = [_rated(faces.qualities[row], scale) for row in rows]
    half = begin(faces.embeddings[rows], people)
    values = {name: [rate(quality) for quality in qualities] for name, rate in MEASURES.items()}
    at_random = discarded_at_random(half)
    kept = kept_of(values[UNIFIED], STATED_SHARE)
    return {
        "pack_id": pack_id,
        "photographs": len(rows),
        "people": half.population.people,
        "people_with_pairs": len(np.unique(half.mated.person)),
        "pairs": len(half.mated.scores),
        "threshold": half.threshold,
        "fmr": FMR,
        "fmr_after_unified": false_match_rate(half, kept, people),
        "gates": {gate.value: _gate(half, gate, qualities) for gate in QualityGate},
        "share_with_advice": float(np.mean([bool(advice_on(quality)) for quality in qualities])),
        "curves": {name: [asdict(point) for point in curve(half, each, at_random)] for name, each in values.items()},
    }


def _gate(half: Half, gate: QualityGate, qualities: Sequence[Quality]) -> dict[str, float]:
    """Return the share of the samples that a gate refuses, and the false non-match rate of the others."""
    is_refused = np.array([refuses(gate, quality) for quality in qualities])
    return {"refused": float(is_refused.mean()), "fnmr": float(fnmr(half, ~is_refused)[0])}


def _rated(quality: Quality, scale: UnifiedScale) -> Quality:
    assert quality.embedding_norm is not None
    return replace(quality, unified=scale.score(quality.embedding_norm))


def _run(options: Options, *, write_scale: bool) -> list[dict[str, Any]]:
    dataset = load_dataset(options.dataset)
    found = []
    for pack in usable_packs(options):
        faces = faces_of(dataset, pack, options)
        if write_scale:
            _write_scale(dataset, pack, faces)
        scale = scale_of(pack)
        if scale is None:
            console.print(f"[yellow]Not measured: {pack.manifest.pack_id} has no quality.json (--write-scale)")
            continue
        found.append(measure(pack.manifest.pack_id, list(faces.row_of), faces, scale))
        _print(found[-1])
    return found


def _write_scale(dataset: Dataset, pack: InstalledPack, faces: FaceSet) -> None:
    names = [name for name in dataset.photographs if name in faces.row_of and not is_reported(person_of(name))]
    norms = [faces.qualities[faces.row_of[name]].embedding_norm or 1.0 for name in names]
    scale = fit_scale(pack.manifest.pack_id, norms, len({person_of(name) for name in names}))
    scale_path(pack).write_text(json.dumps(asdict(scale), indent=2) + "\n", encoding="utf-8")
    console.print(f"Written: {scale_path(pack)}, from {scale.photographs:,} photographs of {scale.people:,} people")


def _print(figures: dict[str, Any]) -> None:
    title = (
        f"{figures['pack_id']}: FNMR at FMR {figures['fmr']:g} after discarding {STATED_SHARE:.0%} of the samples; "
        f"{figures['photographs']:,} photographs, {figures['pairs']:,} pairs of {figures['people_with_pairs']:,} people"
    )
    table = Table(title=title)
    for column in ("lowest by", "FNMR before", "FNMR after", "at random", "lower than at random by"):
        table.add_column(column, justify="left" if column == "lowest by" else "right")
    for name, points in figures["curves"].items():
        before, after = (
            Point(**next(each for each in points if each["share"] == share)) for share in (0, STATED_SHARE)
        )
        table.add_row(
            name,
            f"{before.fnmr:.2%}",
            f"{after.fnmr:.2%} ({after.low:.2%} to {after.high:.2%})",
            f"{after.random_fnmr:.2%}",
            f"{after.gain:.2%} ({after.gain_low:.2%} to {after.gain_high:.2%})",
        )
    console.print(table)
    gates = ", ".join(
        f"{name} {each['refused']:.2%} (FNMR of the others {each['fnmr']:.2%})"
        for name, each in figures["gates"].items()
    )
    console.print(
        f"FMR of what is left, by {UNIFIED}: {figures['fmr_after_unified']:.2e}. Refused by the gates: {gates}. "
        f"With advice: {figures['share_with_advice']:.1%}."
    )


def _options(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Options]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.discard", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder with images/, pairs.txt, openset.json")
    parser.add_argument("--pack", nargs="+", action="extend", default=[], metavar="ID", help="default: all installed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the curves, such as docs/images/discard.svg")
    parser.add_argument("--write-scale", action="store_true", help="write quality.json of each pack")
    parser.add_argument("--fresh", action="store_true", help="extract anew instead of using kept templates")
    parser.add_argument("--workers", type=int, default=0, help="photographs at once; 0: one a core")
    given = parser.parse_args(arguments)
    given.write_calibration, given.population, json_file = False, "", given.json
    try:
        options = checked(given, load_settings(os.environ))
    except BiodedupError as error:
        parser.error(str(error))
    given.json = json_file
    return given, options


if __name__ == "__main__":
    raise SystemExit(main())
