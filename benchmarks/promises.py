"""Does a calibration of a few people keep its promise on others? `python -m benchmarks.promises --dataset DIR`.

In each split 200 people are drawn. A calibration is made of their labelled photographs, or of a gallery of one
photograph each in which 2 % are enrolled twice without anybody knowing. Its thresholds are used to search galleries of
the other people, and their false alarms are counted.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from rich.progress import track
from rich.table import Table

from benchmarks.datasets import load_dataset, person_of
from benchmarks.embeddings import FaceSet
from benchmarks.error_rates import measurable_faces
from benchmarks.screen import console
from service.calibration import Calibration, fmr_for_fpir, fpir_of_fmr
from service.calibration_fit import MatedScores, Source, calibrate
from service.domain import Embeddings
from service.errors import BiodedupError
from service.population import population_of

IntArray = npt.NDArray[np.intp]

CALIBRATED = 200
PLANTED_SHARE = 0.02
SMALL = 500
LEFT_OVER = 800  # people who are not enrolled even in the largest gallery
FPIRS = (0.1, 0.03, 0.01)
GALLERIES_A_SPLIT = 3
Method = Literal["photographs", "gallery"]


@dataclass(frozen=True, slots=True)
class Promise:
    """What was asked of one threshold, what came true, and what the calibration said would."""

    method: Method
    gallery_size: int
    fpir: float
    realised: float
    low: float
    high: float

    @property
    def is_covered(self) -> bool:
        return self.low <= self.realised <= self.high


def promises(faces: FaceSet, mated: MatedScores, method: Method, split: int) -> Iterator[Promise]:
    """Yield what one split found. `mated` are those that come with the pack."""
    rng = np.random.default_rng([7, split])
    rows: dict[str, list[int]] = {}
    for photograph, row in faces.row_of.items():
        rows.setdefault(person_of(photograph), []).append(row)
    order = rng.permutation(len(rows))
    people = [np.array(list(rows.values())[number]) for number in order]
    known, others = people[:CALIBRATED], people[CALIBRATED:]
    chosen, names = labelled(known) if method == "photographs" else unlabelled(known, rng)
    population = population_of(faces.embeddings[chosen], names)
    calibration = calibrate(Source("pack", "model", method, "200 people"), population, mated, seed=split)
    for size in (SMALL, len(others) - LEFT_OVER):
        tops = np.array([searched(faces.embeddings, others, size, rng) for _ in range(GALLERIES_A_SPLIT)])
        for fpir in FPIRS:
            yield _promise(calibration, method, size, fpir, tops)


def labelled(people: Sequence[IntArray]) -> tuple[IntArray, list[str]]:
    """Return all photographs of the people, and whose they are."""
    return np.concatenate(people), [f"{number:04d}" for number, rows in enumerate(people) for _ in rows]


def unlabelled(people: Sequence[IntArray], rng: np.random.Generator) -> tuple[IntArray, list[str]]:
    """Return one photograph of each person, and of 2 % of them a second one under another name."""
    shuffled = [rng.permutation(rows) for rows in people]
    twice = [rows for rows in shuffled if len(rows) > 1][: round(PLANTED_SHARE * len(people))]
    chosen = [rows[0] for rows in shuffled] + [rows[1] for rows in twice]
    return np.array(chosen, np.intp), [f"{number:04d}" for number in range(len(chosen))]


def searched(embeddings: Embeddings, people: Sequence[IntArray], size: int, rng: np.random.Generator) -> Embeddings:
    """Return the highest scores of `LEFT_OVER` people who are not among the `size` that are enrolled, (LEFT_OVER,)."""
    order = rng.permutation(len(people))
    one = np.array([rng.choice(people[number]) for number in order[: size + LEFT_OVER]])
    return np.asarray((embeddings[one[size:]] @ embeddings[one[:size]].T).max(axis=1), np.float32)


def _promise(calibration: Calibration, method: Method, size: int, fpir: float, tops: Embeddings) -> Promise:
    threshold = calibration.threshold(fmr_for_fpir(fpir, size))
    return Promise(
        method=method,
        gallery_size=size,
        fpir=fpir,
        realised=float((tops >= threshold).mean()),
        low=fpir_of_fmr(calibration.fmr_lower(threshold), size),
        high=fpir_of_fmr(calibration.false_match_rate(threshold).fmr_upper, size),
    )


def summary(found: Sequence[Promise]) -> Table:
    """Return a line for each method, gallery size and FPIR."""
    table = Table(title="Calibrated on 200 people: false alarms asked for, and those that came")
    for name in ("calibrated from", "gallery", "asked FPIR", "mean realised", "realised / asked", "in the interval"):
        table.add_column(name, justify="right")
    for key in dict.fromkeys((each.method, each.gallery_size, each.fpir) for each in found):
        same = [each for each in found if (each.method, each.gallery_size, each.fpir) == key]
        realised = float(np.mean([each.realised for each in same]))
        method, size, fpir = key
        covered = sum(each.is_covered for each in same)
        table.add_row(
            method, f"{size:,}", f"{fpir:.0%}", f"{realised:.2%}", f"{realised / fpir:.2f}", f"{covered} of {len(same)}"
        )
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.promises", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder with images/, pairs.txt, openset.json")
    parser.add_argument("--pack", nargs="+", default=[], metavar="ID", help="default: all installed")
    parser.add_argument("--splits", type=int, default=20, help="how many times 200 people are drawn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE too")
    given = parser.parse_args(arguments)
    methods: tuple[Method, ...] = ("photographs", "gallery")
    kept: dict[str, list[dict[str, object]]] = {}
    try:
        for pack_id, models_dir, faces in measurable_faces(load_dataset(given.dataset), tuple(given.pack)):
            stored = Calibration.from_json((models_dir / pack_id / "calibration.json").read_text(encoding="utf-8"))
            found = [
                promise
                for method in methods
                for split in track(range(given.splits), f"{pack_id}, {method}", console=console, transient=True)
                for promise in promises(faces, MatedScores.of(stored), method, split)
            ]
            console.print(f"[bold]{pack_id}", summary(found))
            kept[pack_id] = [asdict(promise) for promise in found]
    except (OSError, ValueError, BiodedupError) as error:
        console.print(f"[red]{error}")
        return 1
    if given.json:
        given.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
