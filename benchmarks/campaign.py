"""Does a plan come true? `python -m benchmarks.campaign --dataset DIR`.

In each split 1,000 people are drawn, with all their photographs: they are calibrated on. A campaign with the others is
planned from that, and then simulated: 300 are enrolled when it begins, 1,000 enrol in ten days, and one in ten of them
is enrolled already. What came stands beside the plan.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import track
from rich.table import Table

from benchmarks.campaign_simulation import MEASURES, Counted, held, simulate, total
from benchmarks.datasets import load_dataset, person_of
from benchmarks.embeddings import FaceSet
from benchmarks.error_rates import measurable_faces
from benchmarks.screen import console
from service.calibration import Calibration
from service.calibration_fit import Source, calibrate, mated_scores
from service.campaign import Campaign, Outlook, outlook
from service.decision import DecisionRule
from service.errors import BiodedupError
from service.population import population_of

CALIBRATED = 1000
CAMPAIGN = Campaign(size_now=300, size_end=1300, enrolments_per_day=100, duplicate_share=0.1)
FPIRS = (0.1, 0.03, 0.01)

_NAMES = {
    "cases": "cases",
    "false_alarms": "false alarms",
    "found_duplicates": "duplicates found",
    "missed_duplicates": "duplicates missed",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one split planned at one review_fpir, and what came."""

    review_fpir: float
    planned: Outlook
    days: tuple[Counted, ...]

    @property
    def whole(self) -> Counted:
        return total(self.days)

    @property
    def is_capacity_enough(self) -> bool:
        return self.whole.cases <= self.planned.capacity_needed * len(self.days)


def compared(
    faces: FaceSet, split: int, calibrated_people: int = CALIBRATED, campaign: Campaign = CAMPAIGN
) -> Iterator[Comparison]:
    """Yield the campaign of one split at each review_fpir, each with another order of people.

    Raises:
        ValueError: too few people, or too few with several photographs.
    """
    rng = np.random.default_rng([13, split])
    people = people_of(faces)
    order = rng.permutation(len(people))
    known, others = (
        [people[number] for number in part] for part in (order[:calibrated_people], order[calibrated_people:])
    )
    calibration = calibrated(faces, known, split)
    rule = DecisionRule(calibration, fnir_warning=1.0)
    for fpir in FPIRS:
        days = simulate(rule, fpir, campaign, faces.embeddings, others, rng)
        yield Comparison(fpir, outlook(calibration, campaign, fpir), tuple(days))


def people_of(faces: FaceSet) -> list[npt.NDArray[np.intp]]:
    """Return the rows of each person."""
    rows: dict[str, list[int]] = {}
    for photograph, row in faces.row_of.items():
        rows.setdefault(person_of(photograph), []).append(row)
    return [np.array(found, np.intp) for found in rows.values()]


def calibrated(faces: FaceSet, people: Sequence[npt.NDArray[np.intp]], seed: int) -> Calibration:
    """Raises ValueError: too few people, or too few with several photographs."""
    names = [f"{number:04d}" for number, rows in enumerate(people) for _ in rows]
    population = population_of(faces.embeddings[np.concatenate(people)], names)
    mated = mated_scores(population, "the same people")
    if mated is None:
        raise ValueError("too few people with several photographs")
    source = Source("pack", "model", "photographs", f"{len(people):,} people")
    return calibrate(source, population, mated, seed=seed)


def summary(found: Sequence[Comparison]) -> Table:
    """Return a line for each review_fpir and measure: means over the splits, and how often the intervals held."""
    table = Table(title="Campaigns: what was planned, and what came")
    for name in ("review_fpir", "", "planned", "mean interval", "came, mean", "in the interval", "days in theirs"):
        table.add_column(name, justify="right")
    for fpir in FPIRS:
        same = [each for each in found if each.review_fpir == fpir]
        for name in MEASURES:
            planned = [getattr(each.planned.whole, name) for each in same]
            expected, low, high = (
                np.mean([getattr(each, end) for each in planned]) for end in ("expected", "low", "high")
            )
            came = np.mean([getattr(each.whole, name) for each in same])
            holds = sum(held(each.planned.whole, each.whole)[name] for each in same)
            days = [held(each.planned.a_day, day)[name] for each in same for day in each.days]
            table.add_row(
                f"{fpir:.0%}",
                _NAMES[name],
                f"{expected:.1f}",
                f"{low:.0f} to {high:.0f}",
                f"{came:.1f}",
                f"{holds} of {len(same)}",
                f"{np.mean(days):.1%} of {len(days)}",
            )
        enough = sum(each.is_capacity_enough for each in same)
        table.add_row(f"{fpir:.0%}", "capacity was enough", "", "", "", f"{enough} of {len(same)}", "")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan, simulate, print and write; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.campaign", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder with images/, pairs.txt, openset.json")
    parser.add_argument("--pack", nargs="+", default=[], metavar="ID", help="default: all installed")
    parser.add_argument("--splits", type=int, default=20, help="how many times the people are divided")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE too")
    given = parser.parse_args(arguments)
    kept: dict[str, list[dict[str, object]]] = {}
    try:
        for pack_id, _, faces in measurable_faces(load_dataset(given.dataset), tuple(given.pack)):
            splits = track(range(given.splits), pack_id, console=console, transient=True)
            found = [comparison for split in splits for comparison in compared(faces, split)]
            console.print(f"[bold]{pack_id}", summary(found))
            kept[pack_id] = [asdict(each) for each in found]
    except (OSError, ValueError, BiodedupError) as error:
        console.print(f"[red]{error}")
        return 1
    if given.json:
        given.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
