"""kill -9 in the middle of a sweep: the next process goes on where it was, loses no pair and opens no case twice."""

import subprocess
import sys
from pathlib import Path

import pytest

from service.domain import JobState
from service.store.sql_store import SqlStore
from tests import postgres
from tests.store.building import SQL_KINDS
from tests.sweeping import case_pairs, crowd_of, fill, runner_of, sweeps_of
from tests.world import GALLERY, START, World


def kill_after(url: str, blocks: int) -> int:
    """Sweep in a process of its own, kill it while it goes on after `blocks` blocks; return how far it said it was."""
    command = [sys.executable, "-m", "tests.dying_sweep", url, "0.02"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(blocks)]
        process.kill()
    return said[-1]


@pytest.mark.parametrize("kind", SQL_KINDS)
def test_a_sweep_survives_kills(kind: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/record.sqlite" if kind == "sqlite" else postgres.fresh_database()
    store = SqlStore(url, lambda: START)
    store.migrate()
    world = World(store)
    crowd = crowd_of(600, planted=60).turned()
    fill(store, crowd)
    sweeps = sweeps_of(world, block_size=20)
    sweep = sweeps.start(GALLERY, 10)
    for blocks in (3, 1, 5):
        before = sweeps.sweep(GALLERY, sweep.job_id)
        said = kill_after(url, blocks)
        killed = sweeps.sweep(GALLERY, sweep.job_id)
        assert killed.state is JobState.RUNNING
        assert before.done < said <= killed.done < killed.total

    runner_of(sweeps, world).work()

    swept = sweeps.sweep(GALLERY, sweep.job_id)
    found = case_pairs(store)
    assert (swept.state, swept.done) == (JobState.DONE, 600)
    assert set(found) == crowd.pairs(swept.threshold)
    assert len(found) == len(set(found)) == swept.cases_opened == swept.found_pairs
    store.close()
