"""kill -9 while templates are made or deleted: the next process goes on where it was, makes none twice, leaves none."""

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from service import template_making
from service.domain import MigrationStage
from service.store.sql_store import SqlStore
from tests import postgres
from tests.migrating import NEW_PACK, OLD_BLIND, migrations_of, work, world_of
from tests.store.building import SQL_KINDS
from tests.world import GALLERY, START

PEOPLE = 120


def kill_after(url: str, blocks: int) -> int:
    """Work in a process of its own, kill it while it goes on after `blocks` blocks; return how far it said it was."""
    command = [sys.executable, "-m", "tests.dying_migration", url, "0.02"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(blocks)]
        process.kill()
    return said[-1]


@pytest.mark.parametrize("kind", SQL_KINDS)
def test_a_migration_survives_kills(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/record.sqlite" if kind == "sqlite" else postgres.fresh_database()
    store = SqlStore(url, lambda: START)
    store.migrate()
    world = world_of(store)
    for person in range(PEOPLE):
        world.enrol(person, subject_id=f"S{person}")
    migrations = migrations_of(world)
    migrations.begin(GALLERY, NEW_PACK)
    for number, blocks in enumerate((3, 1, 5)):
        before = migrations.report(GALLERY).migration
        said = kill_after(url, blocks)
        killed = migrations.report(GALLERY).migration
        assert killed.stage is MigrationStage.MAKING
        assert before.done < said <= killed.done < killed.total
        # enrolments go on between the kills
        world.enrol(PEOPLE + number, subject_id=f"S{PEOPLE + number}")

    work(world)

    total = PEOPLE + 3
    assert migrations.report(GALLERY).migration.done == PEOPLE
    gallery = world.gallery()
    assert (gallery.template_count, gallery.standby_template_count, gallery.paired_count) == (total, total, total)
    migrations.cut_over(GALLERY)
    for person in range(0, total, 10):
        found = world.identify(person, OLD_BLIND).decision.candidates
        assert [each.subject_id for each in found] == [f"S{person}"]

    monkeypatch.setattr(template_making, "DROP_SIZE", 50)
    migrations.finish(GALLERY)
    work(world)
    with store._reading() as connection:
        left = connection.execute(text("SELECT pack_id, count(*) FROM templates GROUP BY pack_id")).all()
    assert [tuple(row) for row in left] == [(NEW_PACK, total)]
    assert migrations.report(GALLERY).migration.stage is MigrationStage.FINISHED
    store.close()
