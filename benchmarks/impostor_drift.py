"""How much does live drift scatter where nothing drifts? `python -m benchmarks.impostor_drift --dataset DIR`.

People are enrolled in random order, each compared with a sample of 256 others that is drawn anew after 200, as
`service.live_accuracy` does. Counted is how far the share of comparisons at or above the score of a false match rate
lies from that rate, which is that of all pairs: chance alone.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.table import Table

from benchmarks.datasets import load_dataset, person_of
from benchmarks.error_rates import measurable_faces
from benchmarks.screen import console
from service.domain import Embeddings
from service.errors import BiodedupError
from service.impostor_sample import SAMPLE_SIZE

LEVELS = (0.01, 0.001)
PROBES = (50, 100, 200, 400, 800)
A_SAMPLE = 200  # probes until it is drawn anew
DRAWS = 300


def ratios(
    embeddings: Embeddings, level: float, probes: int, draws: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return counted divided by claimed exceedances, one for each draw of people.

    Args:
        embeddings: (n, D) float32, rows of L2 norm 1, one a person; more than `probes`.
        level: false match rate, 0..1.
        probes: people that are compared.
        draws: how many times.
        rng: draws.
    """
    people = len(embeddings)
    scores = embeddings @ embeddings.T
    reached = scores >= np.quantile(scores[np.triu_indices(people, 1)], 1 - level)
    found = np.empty(draws)
    for draw in range(draws):
        order = rng.permutation(people)
        counted = compared = 0
        for start in range(0, probes, A_SAMPLE):
            sample = rng.choice(order[probes:], min(SAMPLE_SIZE, people - probes), replace=False)
            block = reached[np.ix_(order[start : min(start + A_SAMPLE, probes)], sample)]
            counted, compared = counted + int(block.sum()), compared + block.size
        found[draw] = counted / (compared * level)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.impostor_drift", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="folder with images/, pairs.txt, openset.json")
    parser.add_argument("--pack", nargs="+", default=[], metavar="ID", help="default: all installed")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        dataset = load_dataset(given.dataset)
        for pack_id, _, faces in measurable_faces(dataset, tuple(given.pack)):
            one_each = {person_of(photograph): photograph for photograph in faces.row_of}
            rows = faces.rows(list(one_each.values()))
            console.print(f"[bold]{pack_id}", table(rows, np.random.default_rng(given.seed)))
    except (OSError, ValueError, BiodedupError) as error:
        console.print(f"[red]{error}")
        return 1
    return 0


def table(embeddings: Embeddings, rng: np.random.Generator) -> Table:
    shown = Table("FMR", "people compared", "deviation", "if independent", "99 % of the draws between")
    for level in LEVELS:
        for probes in PROBES:
            found = ratios(embeddings, level, probes, DRAWS, rng)
            low, high = np.quantile(found, (0.005, 0.995))
            independent = np.sqrt((1 - level) / level / (probes * SAMPLE_SIZE))
            shown.add_row(f"{level}", f"{probes}", f"{found.std():.3f}", f"{independent:.3f}", f"{low:.2f}, {high:.2f}")
    return shown


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
