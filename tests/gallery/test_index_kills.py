"""kill -9 during sealing, merging, compaction and snapshots: the next index over the folder is right each time."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from service.gallery.exact_index import ExactIndex
from tests.gallery.dying_index import DIMENSION, Change, change_log, follow, open_index

STEP = 24  # changes between two kills
EVERY_ID = 2**40


class DyingIndex:
    """The process that follows the log and dies."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.gallery.dying_index", str(folder), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def run(self, up_to: int, moment: int) -> tuple[int, int]:
        """Return the signal that ended it, and how many moments there were (0: it did not come to the end)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{up_to} {moment}\n")
        self._process.stdin.flush()
        ended_by, moments = self._process.stdout.readline().split()
        return int(ended_by), int(moments)

    def close(self) -> None:
        self._process.communicate()


def check(folder: Path, exact: ExactIndex, changes: Sequence[Change]) -> None:
    """Compare the index over the folder with exact arithmetic, before and after it followed the log to its end."""
    damages: list[str] = []
    index = open_index(folder, len(changes), damages)
    assert damages == []
    follow(index, changes)
    follow(exact, changes)
    index.settle()
    ids, rows = index.templates(-1, EVERY_ID)
    true_ids, true_rows = exact.templates(-1, EVERY_ID)
    assert ids.tolist() == true_ids.tolist()
    assert rows.tobytes() == true_rows.tobytes()
    known = np.concatenate([rows for _, rows in changes if rows is not None])  # erased people too
    probes = known[np.random.default_rng(len(changes)).integers(0, len(known), 20)]
    for found, true in zip(index.search(probes, 0.8), exact.search(probes, 0.8), strict=True):
        assert [hit.reference_id for hit in found] == [hit.reference_id for hit in true]
        assert np.allclose([hit.score for hit in found], [hit.score for hit in true], atol=1e-5)


def kill_again_and_again(folder: Path, kills: int, seed: int) -> int:
    """Return how many of the kills came before the log was followed to its end."""
    rng, exact, dying = random.Random(seed), ExactIndex(DIMENSION), DyingIndex(folder, seed)
    changes = change_log(seed, STEP * (kills + 1))
    early = 0
    try:
        ended_by, moments = dying.run(STEP, 0)
        assert ended_by == signal.SIGTERM
        for number in range(1, kills + 1):
            up_to = STEP * (number + 1)
            ended_by, reached = dying.run(up_to, rng.randrange(1, moments))
            assert ended_by == signal.SIGKILL
            early += reached == 0
            check(folder, exact, changes[:up_to])
    finally:
        dying.close()
    return early


def test_the_next_index_is_right_after_each_kill(tmp_path: Path) -> None:
    assert kill_again_and_again(tmp_path / "index", 5, seed=11) >= 2


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))  # a log five times as long would take longer to follow than to be killed
def test_the_next_index_is_right_after_each_of_a_hundred_kills(tmp_path: Path, seed: int) -> None:
    assert kill_again_and_again(tmp_path / "index", 20, seed) >= 12
