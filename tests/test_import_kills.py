"""kill -9 in the middle of an import: the next process goes on there, brings nobody twice and leaves nobody out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.import_request import ImportState
from service.store.sql_store import SqlStore
from tests import postgres
from tests.importing import import_of, saved, unit_rows
from tests.store.building import SQL_KINDS
from tests.world import GALLERY, START, World

ROWS = 8_200  # 17 blocks, the last not full


def kill_after(url: str, path: Path, blocks: int) -> int:
    """Import in a process of its own, kill it while it goes on after `blocks` blocks; return how far it said it was."""
    command = [sys.executable, "-m", "tests.dying_import", url, str(path), "0.005"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(blocks)]
        process.kill()
    return said[-1]


@pytest.mark.parametrize("kind", SQL_KINDS)
def test_an_import_survives_kills(kind: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/record.sqlite" if kind == "sqlite" else postgres.fresh_database()
    store = SqlStore(url, lambda: START)
    store.migrate()
    World(store)
    rows = unit_rows(ROWS, 16)
    path = saved(tmp_path / "t.npy", rows)
    for blocks in (1, 4, 2):
        work = import_of(store, path)
        before = work.state().done
        said = kill_after(url, path, blocks)
        assert before < said <= work.state().done < ROWS

    assert import_of(store, path).run() == ImportState(ROWS, ROWS)

    counts = store.gallery_counts(GALLERY)
    assert (counts.subjects, counts.encounters, counts.templates) == (ROWS, ROWS, ROWS)
    with store.reading() as reading:
        assert reading.gallery(GALLERY).last_seq == ROWS
        changes = reading.changes_after(GALLERY, 0, ROWS + 1)
        held = reading.references_after(GALLERY, 0, 10**9, ROWS + 1)
    assert [change.seq for change in changes] == list(range(1, ROWS + 1))
    # row by row, in the order of the file
    assert [each.subject_id for each in held] == [f"p-{row:09}" for row in range(ROWS)]
    np.testing.assert_array_equal(np.stack([each.embedding for each in held]), rows)
    np.testing.assert_array_equal(np.stack([change.added[0][1] for change in changes]), rows)
    store.close()
