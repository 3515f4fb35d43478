"""kill -9 in the middle of a retention run: the next process goes on where it was and counts nothing twice."""

import subprocess
import sys
from pathlib import Path

import pytest

from service.audit_chain import AuditEvent
from service.retention_rule import ReportState
from service.store.sql_store import SqlStore
from tests.retaining import LEASE, RULE, database_url, hold, people_in, retention_of, runner_of, see, with_samples
from tests.store.building import SQL_KINDS, Clock
from tests.world import GALLERY, World

DUE, LATER = 40, 20


def kill_after(url: str, clock: Clock, lines: int) -> int:
    """Run in a process of its own, kill it while it goes on after `lines` lines; return how far it said it was."""
    command = [sys.executable, "-m", "tests.dying_retention", url, clock.now.isoformat(), "0.02"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(lines)]
        process.kill()
    return said[-1]


@pytest.mark.parametrize("kind", SQL_KINDS)
def test_a_run_survives_kills(kind: str, tmp_path: Path) -> None:
    clock = Clock()
    url = database_url(kind, tmp_path)
    store = SqlStore(url, clock)
    store.migrate()
    world = World(store)
    for number in range(DUE):
        see(store, f"due-{number:02}")
    clock.pass_by(days=60)
    for number in range(LATER):
        see(store, f"later-{number:02}")
    clock.pass_by(days=41)
    hold(store, "s-due-00")
    retention = retention_of(world, store)
    retention.set_rule(RULE)
    report = retention.report(GALLERY)
    hold(store, "s-due-20")
    retention.run(GALLERY, report.report_id)

    for lines in (3, 20, 25):  # in the first block, over the skipped one, among the samples
        before = retention.report_of(GALLERY, report.report_id).done
        said = kill_after(url, clock, lines)
        killed = retention.report_of(GALLERY, report.report_id)
        assert killed.state is ReportState.RUNNING
        assert before < said <= killed.done < killed.total
        # each line that was counted is gone or skipped, and no other
        assert killed.done == killed.erased_subjects + killed.erased_samples + killed.skipped_held
        assert killed.erased_subjects == DUE + LATER - len(people_in(store))
        samples_left = len(with_samples(store))
        assert killed.erased_samples == LATER + DUE - killed.erased_subjects - samples_left

    (left,) = retention.unfinished()
    taken = store.retention_runs.lease_run(left, LEASE)  # the killed one's lease: it is this owner's
    assert taken is not None
    store.retention_runs.release_run(taken, LEASE.owner)
    runner_of(retention, clock).work()

    ended = retention.report_of(GALLERY, report.report_id)
    assert (ended.state, ended.done, ended.total) == (ReportState.DONE, DUE - 1 + LATER, DUE - 1 + LATER)
    assert (ended.erased_subjects, ended.erased_samples) == (DUE - 2, LATER)
    assert (ended.held, ended.skipped_held, ended.already_gone) == (1, 1, 0)
    assert people_in(store) == {"s-due-00", "s-due-20", *(f"s-later-{number:02}" for number in range(LATER))}
    assert with_samples(store) == {"e-due-00", "e-due-20"}
    erased = store.audit(GALLERY, None, 1000, AuditEvent.SUBJECT_ERASED).items
    assert len(erased) == DUE - 2
    store.close()
