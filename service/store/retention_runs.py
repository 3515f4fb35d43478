"""Retention runs in the record: each line of a report is dealt with in a transaction of its own, and once."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, delete, insert, select, update

from service.audit_chain import AuditEvent, Detail, NewEntry, SeenSubject
from service.domain import JobState, Lease
from service.errors import RetentionReportExpired, RetentionRuleChanged, RetentionUnderway
from service.ports import Writing
from service.retention_rule import (
    RUN_ENDS_WITHIN,
    RUN_RESTS_WITHIN,
    ReportState,
    RetentionItem,
    RetentionReport,
    RetentionRun,
    RunLost,
    SeenAgain,
    SkipReason,
)
from service.store.auditing import Recorder
from service.store.holds import expect_no_hold, lock_gallery
from service.store.leases import release_lease, take_lease
from service.store.retaining import (
    COUNTS,
    OPEN_STATES,
    Transaction,
    expect_clock,
    items_after,
    read_report,
    read_rule,
    update_report,
)
from service.store.rows import AnyRow
from service.store.tables import encounters, jobs, retention_items, retention_reports, retention_rules, samples
from service.store.writing import SqlWriting

RETENTION_KIND = "retention"

_UNFINISHED = (JobState.QUEUED.value, JobState.RUNNING.value)
_SKIPPED = {
    SkipReason.HELD: retention_reports.c.skipped_held,
    SkipReason.SEEN_AGAIN: retention_reports.c.skipped_seen_again,
}
_STATES = {JobState.DONE: ReportState.DONE, JobState.FAILED: ReportState.FAILED}
_RUNS: Select[*tuple[Any, ...]] = select(
    jobs.c.job_id, jobs.c.gallery_id, retention_reports.c.report_id, jobs.c.state, jobs.c.cursor, jobs.c.done,
    jobs.c.total,
).select_from(jobs.join(retention_reports, jobs.c.job_id == retention_reports.c.job_id))  # fmt: skip


class SqlRetentionRuns:
    """`service.ports.RetentionRuns` over SQLAlchemy Core. Each method but `claim` is a transaction of its own.

    Args:
        reading: opens a transaction to read in.
        writing: opens one to write in, committed on leaving.
        clock: time zone aware.
        recorder: of the audit trail.
        empty_log: called after samples were erased.
    """

    def __init__(
        self,
        reading: Transaction,
        writing: Transaction,
        clock: Callable[[], datetime],
        recorder: Recorder,
        empty_log: Callable[[], None],
    ) -> None:
        self._reading = reading
        self._writing = writing
        self._clock = clock
        self._recorder = recorder
        self._empty_log = empty_log

    def begin_run(self, gallery_id: str, report_id: int) -> RetentionReport:
        """Queue a run over the lines of a report; one that was begun already is returned as it is.

        Raises:
            GalleryNotFound, RetentionReportNotFound, RetentionReportExpired, RetentionRuleChanged, RetentionUnderway
            ClockDoubtful: the clock is earlier than the gallery's last change.
            LegalHold: the whole gallery is held.
        """
        with self._writing() as connection:
            lock_gallery(connection, gallery_id)
            report = read_report(connection, gallery_id, report_id)
            if report.job_id is not None:
                return report
            self._expect_usable(connection, report)
            lines = report.due_subjects + report.due_encounters
            row = {
                "gallery_id": gallery_id,
                "kind": RETENTION_KIND,
                "state": JobState.QUEUED.value,
                **dict.fromkeys(("allowed_false_pairs", "cursor", "last_reference_id", "started_seq", "done"), 0),
                **dict.fromkeys(("found_pairs", "cases_opened", "threshold", "worked_s"), 0),
                "total": lines,
                "created_at": self._clock(),
                "updated_at": self._clock(),
            }
            job_id = connection.execute(insert(jobs).values(row).returning(jobs.c.job_id)).scalar_one()
            update_report(connection, report_id, state=ReportState.RUNNING.value, job_id=job_id)
            if not report.automatic:  # somebody saw by its dates that the clock is right
                is_its = retention_rules.c.gallery_id == gallery_id
                connection.execute(update(retention_rules).where(is_its).values(looked_at=self._clock()))
            details: dict[str, Detail] = {"report_id": report_id, "lines": lines}
            entry = NewEntry(AuditEvent.RETENTION_BEGUN, None, details)
            self._recorder.write(connection, gallery_id, entry, self._clock())
            return read_report(connection, gallery_id, report_id)

    def unfinished_runs(self) -> list[RetentionRun]:
        """Return the runs of all galleries that need work, oldest first."""
        is_waiting = jobs.c.kind == RETENTION_KIND, jobs.c.state.in_(_UNFINISHED)
        with self._reading() as connection:
            return [_to_run(row) for row in connection.execute(_RUNS.where(*is_waiting).order_by(jobs.c.job_id))]

    def lease_run(self, run: RetentionRun, lease: Lease) -> RetentionRun | None:
        """Take a run to work on it; None where it ended or somebody else is at it."""
        with self._writing() as connection:
            lock_gallery(connection, run.gallery_id)
            taken = take_lease(connection, run.job_id, lease, jobs.c.state.in_(_UNFINISHED), self._clock())
            return None if taken is None else _run(connection, run.job_id)

    def release_run(self, run: RetentionRun, owner: str) -> None:
        with self._writing() as connection:
            lock_gallery(connection, run.gallery_id)
            release_lease(connection, run.gallery_id, run.job_id, owner)

    def run(self, run: RetentionRun) -> RetentionRun:
        """Return it as it stands."""
        with self._reading() as connection:
            return _run(connection, run.job_id)

    def lines_left(self, run: RetentionRun, limit: int) -> list[RetentionItem]:
        """Return the next lines that the run is to deal with, in their order; those held when reported are none."""
        with self._reading() as connection:
            return items_after(connection, run.report_id, _run(connection, run.job_id).cursor, limit, held=False)

    def claim(self, writing: Writing, run: RetentionRun, item: RetentionItem, lease: Lease) -> None:
        """Within the transaction that erases a subject: see that it still may be, and count the line as done.

        Raises:
            RunLost, SeenAgain, RetentionRuleChanged, RetentionReportExpired, ClockDoubtful
            LegalHold: the subject or the gallery was put on hold.
        """
        assert isinstance(writing, SqlWriting), "of this record"
        connection = writing.connection
        report = self._expect_going_on(connection, run, lease)
        expect_no_hold(connection, run.gallery_id, item.due.subject_id)
        since = select(encounters.c.encounter_id).where(
            encounters.c.gallery_id == run.gallery_id,
            encounters.c.subject_id == item.due.subject_id,
            encounters.c.seq > report.made_seq,
        )
        if connection.execute(since.limit(1)).first() is not None:
            raise SeenAgain
        update_report(connection, run.report_id, erased_subjects=retention_reports.c.erased_subjects + 1)
        self._move(connection, run, item, lease)

    def erase_samples(self, run: RetentionRun, item: RetentionItem, lease: Lease) -> int:
        """Erase the samples of the encounter of a line; its templates stay. Return how many these were.

        Raises:
            RunLost, RetentionRuleChanged, RetentionReportExpired, ClockDoubtful
            LegalHold: the subject or the gallery was put on hold.
        """
        encounter_id = item.due.encounter_id
        with self._writing() as connection:
            lock_gallery(connection, run.gallery_id)
            self._expect_going_on(connection, run, lease)
            expect_no_hold(connection, run.gallery_id, item.due.subject_id)
            line = delete(retention_items).where(retention_items.c.item_id == item.item_id)
            if connection.execute(line).rowcount == 0:
                return 0  # its subject was erased; an encounter of this name would be another one
            is_its = samples.c.gallery_id == run.gallery_id, samples.c.encounter_id == encounter_id
            count = connection.execute(delete(samples).where(*is_its)).rowcount
            total = retention_reports.c.erased_samples + count
            update_report(connection, run.report_id, erased_samples=total)
            self._move(connection, run, item, lease)
            if count:
                whose = SeenSubject(item.due.subject_id, encounter_id=encounter_id)
                erased = NewEntry(AuditEvent.SAMPLES_ERASED, details={"samples": count}, subjects=(whose,))
                self._recorder.write(connection, run.gallery_id, erased, self._clock())
        if count:
            self._empty_log()
        return count

    def skip(self, run: RetentionRun, item: RetentionItem, lease: Lease, reason: SkipReason) -> None:
        """Leave a line alone and say why.

        Raises:
            RunLost, RetentionRuleChanged, RetentionReportExpired, ClockDoubtful
            LegalHold: the whole gallery was put on hold: nothing of it is left to do.
        """
        with self._writing() as connection:
            lock_gallery(connection, run.gallery_id)
            self._expect_going_on(connection, run, lease)
            expect_no_hold(connection, run.gallery_id)
            is_its = retention_items.c.item_id == item.item_id
            connection.execute(update(retention_items).where(is_its).values(skipped=reason.value))
            column = _SKIPPED[reason]
            update_report(connection, run.report_id, **{column.name: column + 1})
            self._move(connection, run, item, lease)

    def finish_run(self, run: RetentionRun, lease: Lease) -> RetentionReport:
        """Let a run be done, with no line left to deal with. Raises RunLost."""
        with self._writing() as connection:
            lock_gallery(connection, run.gallery_id)
            _expect_owner(connection, run, lease)
            return self._end(connection, run, JobState.DONE, None)

    def fail_run(self, run: RetentionRun, error_code: str) -> RetentionReport:
        """Stop a run; one that ended already stays as it is."""
        with self._writing() as connection:
            lock_gallery(connection, run.gallery_id)
            if not _run(connection, run.job_id).needs_work:
                return read_report(connection, run.gallery_id, run.report_id)
            return self._end(connection, run, JobState.FAILED, error_code)

    def withdraw(self) -> int:
        """After a restore: stop all runs, and let no report be acted on that came back; return how many these were."""
        runs = self.unfinished_runs()
        for run in runs:
            self.fail_run(run, RetentionReportExpired.code)
        is_open = retention_reports.c.state.in_(OPEN_STATES)
        with self._writing() as connection:
            superseded = update(retention_reports).where(is_open).values(state=ReportState.SUPERSEDED.value)
            return len(runs) + connection.execute(superseded).rowcount

    def _end(
        self, connection: Connection, run: RetentionRun, state: JobState, error_code: str | None
    ) -> RetentionReport:
        values = {"state": state.value, "error_code": error_code, "leased_by": None, "updated_at": self._clock()}
        ending = update(jobs).where(jobs.c.job_id == run.job_id).values(values)
        ended = connection.execute(ending.returning(jobs.c.done, jobs.c.total)).one()
        # a line goes with its subject: what was not dealt with at the end was erased by somebody else
        gone = ended.total - ended.done if state is JobState.DONE else 0
        update_report(connection, run.report_id, state=_STATES[state].value, already_gone=gone)
        report = read_report(connection, run.gallery_id, run.report_id)
        details: dict[str, Detail] = {"report_id": run.report_id, "error_code": error_code}
        details |= {name: getattr(report, name) for name in COUNTS if not name.startswith("due_")}
        entry = NewEntry(AuditEvent.RETENTION_ENDED, state.value, details)
        self._recorder.write(connection, run.gallery_id, entry, self._clock())
        return report

    def _expect_usable(self, connection: Connection, report: RetentionReport) -> None:
        """Raise where a report may not be acted on now."""
        _expect_rule(connection, report)
        expect_clock(connection, report.gallery_id, self._clock())
        if report.state is not ReportState.MADE:
            raise RetentionReportExpired("another report took the place of this one, or it was never finished")
        if report.expires_at <= self._clock():
            raise RetentionReportExpired("this report is too old to act on: make another one")
        expect_no_hold(connection, report.gallery_id)
        underway = jobs.c.gallery_id == report.gallery_id, jobs.c.kind == RETENTION_KIND, jobs.c.state.in_(_UNFINISHED)
        if connection.execute(select(jobs.c.job_id).where(*underway)).first() is not None:
            raise RetentionUnderway("a retention run of this gallery has not ended yet")

    def _expect_going_on(self, connection: Connection, run: RetentionRun, lease: Lease) -> RetentionReport:
        """Return the report of a run that this process works on.

        Raises:
            RunLost, RetentionRuleChanged, ClockDoubtful
            RetentionReportExpired: the run was interrupted for long, or came back with a restore.
        """
        _expect_owner(connection, run, lease)
        report = read_report(connection, run.gallery_id, run.report_id)
        _expect_rule(connection, report)
        expect_clock(connection, run.gallery_id, self._clock())
        moved_at = connection.execute(select(jobs.c.updated_at).where(jobs.c.job_id == run.job_id)).scalar_one()
        if self._clock() > min(report.expires_at + RUN_ENDS_WITHIN, moved_at + RUN_RESTS_WITHIN):
            raise RetentionReportExpired("the run rested for too long to go on: make another report")
        return report

    def _move(self, connection: Connection, run: RetentionRun, item: RetentionItem, lease: Lease) -> None:
        values = {"done": jobs.c.done + 1, "cursor": item.item_id, "leased_until": lease.until}
        moved = update(jobs).where(jobs.c.job_id == run.job_id).values(**values, updated_at=self._clock())
        connection.execute(moved)


def _expect_owner(connection: Connection, run: RetentionRun, lease: Lease) -> None:
    is_its = jobs.c.job_id == run.job_id, jobs.c.state == JobState.RUNNING.value, jobs.c.leased_by == lease.owner
    if connection.execute(select(jobs.c.job_id).where(*is_its)).first() is None:
        raise RunLost


def _expect_rule(connection: Connection, report: RetentionReport) -> None:
    if read_rule(connection, report.gallery_id).version != report.rule.version:
        raise RetentionRuleChanged("the rule was changed since the report was made: make another report")


def _run(connection: Connection, job_id: int) -> RetentionRun:
    return _to_run(connection.execute(_RUNS.where(jobs.c.job_id == job_id)).one())


def _to_run(row: AnyRow) -> RetentionRun:
    return RetentionRun(row.job_id, row.gallery_id, row.report_id, JobState(row.state), row.cursor, row.done, row.total)
