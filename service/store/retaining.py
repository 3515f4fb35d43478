"""Retention in the record: rules, and the reports made from them; `service.store.retention_runs` acts on these.

Over 300 lines: a rule and what is due by it stand in one place.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, insert, or_, select, update

from service.audit_chain import AuditEvent, Detail, NewEntry, moment_text
from service.domain import Page
from service.errors import (
    ClockDoubtful,
    RetentionReportExpired,
    RetentionReportNotFound,
)
from service.retention_rule import (
    CLOCK_TOLERANCE,
    LONGEST_PAUSE,
    REPORT_HOLDS,
    Due,
    DueReason,
    KeptSamples,
    ReportState,
    RetentionFigures,
    RetentionItem,
    RetentionReport,
    RetentionRule,
    SeenAt,
    SkipReason,
    due_lines,
)
from service.store.auditing import Recorder
from service.store.holds import WHOLE_GALLERY, held_subjects, lock_gallery
from service.store.reading import read_gallery
from service.store.records import to_number
from service.store.rows import AnyRow
from service.store.tables import (
    MAX_ROW_NUMBER,
    changes,
    encounters,
    galleries,
    jobs,
    legal_holds,
    retention_items,
    retention_reports,
    retention_rules,
    samples,
    subjects,
)

SUBJECTS_PER_BLOCK = 2000
"""Looked at in one transaction: enrolments of the gallery wait for tens of milliseconds."""

OPEN_STATES = (ReportState.MAKING.value, ReportState.MADE.value)
COUNTS = ("due_subjects", "due_encounters", "held", "erased_subjects", "erased_samples", "skipped_held",
           "skipped_seen_again", "already_gone")  # fmt: skip
_REPORTS: Select[*tuple[Any, ...]] = select(
    retention_reports, jobs.c.done, jobs.c.total, jobs.c.error_code
).select_from(retention_reports.outerjoin(jobs, jobs.c.job_id == retention_reports.c.job_id))
Transaction = Callable[[], AbstractContextManager[Connection]]


class SqlRetention:
    """`service.ports.RetentionRecord` over SQLAlchemy Core. Each method is a transaction unless it says otherwise.

    Args:
        reading: opens a transaction to read in.
        writing: opens one to write in, committed on leaving.
        clock: time zone aware.
        recorder: of the audit trail.
        block_size: subjects that are looked at together.
    """

    def __init__(
        self,
        reading: Transaction,
        writing: Transaction,
        clock: Callable[[], datetime],
        recorder: Recorder,
        *,
        block_size: int = SUBJECTS_PER_BLOCK,
    ) -> None:
        self._reading = reading
        self._writing = writing
        self._clock = clock
        self._recorder = recorder
        self._block_size = block_size

    def rule(self, gallery_id: str) -> RetentionRule:
        """Return the rule of a gallery; one that limits nothing where none was set. Raises GalleryNotFound."""
        with self._reading() as connection:
            read_gallery(connection, gallery_id)
            return read_rule(connection, gallery_id)

    def set_rule(self, wanted: RetentionRule) -> RetentionRule:
        """Put another rule in the place of a gallery's; the same again changes nothing. Raises GalleryNotFound."""
        with self._writing() as connection:
            lock_gallery(connection, wanted.gallery_id)
            known = read_rule(connection, wanted.gallery_id)
            if _limits(known) == _limits(wanted):
                return known
            now = self._clock()
            row = {**_limits(wanted), "version": known.version + 1, "changed_at": now, "looked_at": None}
            if known.version == 0:
                connection.execute(insert(retention_rules), {"gallery_id": wanted.gallery_id, **row})
            else:
                is_its = retention_rules.c.gallery_id == wanted.gallery_id
                connection.execute(update(retention_rules).where(is_its).values(row))
            self._put_aside(connection, wanted.gallery_id, {True, False})
            details = {
                name: moment_text(value) if isinstance(value, datetime) else value
                for name, value in _limits(wanted).items()
            }
            entry = NewEntry(AuditEvent.RETENTION_CHANGED, None, details)
            self._recorder.write(connection, wanted.gallery_id, entry, self._clock())
            changed = read_rule(connection, wanted.gallery_id)
        self._drop_lines(wanted.gallery_id)
        return changed

    # a report: begun, filled block by block, finished

    def begin_report(self, gallery_id: str, *, automatic: bool) -> RetentionReport:
        """Begin a report by the rule as it is; earlier ones that were not acted on are put aside.

        Raises:
            GalleryNotFound, ClockDoubtful
        """
        with self._writing() as connection:
            lock_gallery(connection, gallery_id)
            rule, now = read_rule(connection, gallery_id), self._clock()
            expect_clock(connection, gallery_id, now)
            self._put_aside(connection, gallery_id, {automatic})
            acts_at = now + REPORT_HOLDS if automatic else None
            row = {
                "gallery_id": gallery_id,
                **{name: value for name, value in _limits(rule).items() if name != "automatic"},
                "rule_version": rule.version,
                "rule_changed_at": rule.changed_at,
                "automatic": automatic,
                "state": ReportState.MAKING.value,
                "made_at": now,
                "made_seq": read_gallery(connection, gallery_id).last_seq,
                "acts_at": acts_at,
                "expires_at": (acts_at or now) + REPORT_HOLDS,
                **dict.fromkeys(COUNTS, 0),
            }
            made = insert(retention_reports).values(row).returning(retention_reports.c.report_id)
            begun = read_report(connection, gallery_id, connection.execute(made).scalar_one())
        self._drop_lines(gallery_id)
        return begun

    def extend_report(self, report: RetentionReport, after: str) -> str | None:
        """Add what is due of the next subjects by id; return the last of these, None where there are no more.

        Raises:
            RetentionReportExpired: another report took its place meanwhile.
        """
        with self._writing() as connection:
            lock_gallery(connection, report.gallery_id)
            if read_report(connection, report.gallery_id, report.report_id).state is not ReportState.MAKING:
                raise RetentionReportExpired("another report of this gallery was begun meanwhile")
            subject_ids = _subject_ids_after(connection, report.gallery_id, after, self._block_size)
            if not subject_ids:
                return None
            bounds = report.gallery_id, after, subject_ids[-1]
            due = due_lines(report.rule, _seen(connection, *bounds), _kept(connection, *bounds), report.made_at)
            held = held_subjects(connection, report.gallery_id, sorted({each.subject_id for each in due}))
            self._insert_items(connection, report, due, held)
            return subject_ids[-1]

    def finish_report(self, report: RetentionReport) -> RetentionReport | None:
        """Let a report be acted on; an automatic one without a line is dropped, and None returned.

        Raises:
            RetentionReportExpired: another report took its place meanwhile.
        """
        is_its = retention_reports.c.report_id == report.report_id
        with self._writing() as connection:
            lock_gallery(connection, report.gallery_id)
            made = read_report(connection, report.gallery_id, report.report_id)
            if made.state is not ReportState.MAKING:
                raise RetentionReportExpired("another report of this gallery was begun meanwhile")
            if made.automatic and not (made.due_subjects or made.due_encounters or made.held):
                connection.execute(delete(retention_reports).where(is_its))
                return None
            connection.execute(update(retention_reports).where(is_its).values(state=ReportState.MADE.value))
            details: dict[str, Detail] = {
                "report_id": made.report_id,
                "automatic": made.automatic,
                "due_subjects": made.due_subjects,
                "due_encounters": made.due_encounters,
                "held": made.held,
            }
            entry = NewEntry(AuditEvent.RETENTION_REPORTED, None, details)
            self._recorder.write(connection, report.gallery_id, entry, self._clock())
            return read_report(connection, report.gallery_id, report.report_id)

    def report(self, gallery_id: str, report_id: int) -> RetentionReport:
        """Raises GalleryNotFound, RetentionReportNotFound."""
        with self._reading() as connection:
            return read_report(connection, gallery_id, report_id)

    def reports(self, gallery_id: str, after: str | None, limit: int) -> Page[RetentionReport]:
        """Return reports, the newest first. Raises GalleryNotFound."""
        before = to_number(after) or MAX_ROW_NUMBER
        wanted = _REPORTS.where(
            retention_reports.c.gallery_id == gallery_id, retention_reports.c.report_id < before
        ).order_by(retention_reports.c.report_id.desc())
        with self._reading() as connection:
            read_gallery(connection, gallery_id)
            rows = connection.execute(wanted.limit(limit + 1)).all()
        last = str(rows[limit - 1].report_id) if len(rows) > limit else None
        return Page(tuple(_to_report(row) for row in rows[:limit]), last)

    def items(self, gallery_id: str, report_id: int, after: str | None, limit: int) -> Page[RetentionItem]:
        """Return the lines of a report that are still there. Raises GalleryNotFound, RetentionReportNotFound."""
        with self._reading() as connection:
            read_report(connection, gallery_id, report_id)
            found = items_after(connection, report_id, to_number(after), limit + 1)
        return Page(tuple(found[:limit]), str(found[limit - 1].item_id) if len(found) > limit else None)

    # what the service does by itself

    def claim_look(self, not_since: datetime) -> list[str]:
        """Return the galleries whose automatic rule was not looked at since, and note that it is now.

        Left out are those with an automatic report that waits to be acted on, and `doubtful_looks`.
        """
        now = self._clock()
        waits = (
            select(retention_reports.c.gallery_id)
            .where(
                retention_reports.c.automatic,
                retention_reports.c.state.in_((ReportState.MADE.value, ReportState.RUNNING.value)),
                retention_reports.c.rule_version == retention_rules.c.version,
                or_(retention_reports.c.state == ReportState.RUNNING.value, retention_reports.c.expires_at > now),
                retention_reports.c.gallery_id == retention_rules.c.gallery_id,
            )
            .correlate(retention_rules)
        )
        is_due = or_(retention_rules.c.looked_at.is_(None), retention_rules.c.looked_at <= not_since)
        wanted = retention_rules.c.automatic, is_due, ~waits.exists(), ~_is_doubtful(now)
        with self._reading() as connection:  # mostly there is nothing to do
            if connection.execute(select(retention_rules.c.gallery_id).where(*wanted).limit(1)).first() is None:
                return []
        with self._writing() as connection:
            looked = update(retention_rules).where(*wanted).values(looked_at=now)
            return sorted(connection.execute(looked.returning(retention_rules.c.gallery_id)).scalars())

    def doubtful_looks(self) -> list[str]:
        """Return the galleries whose automatic rule waits for a human's report: its last look cannot be so far away."""
        wanted = select(retention_rules.c.gallery_id).where(retention_rules.c.automatic, _is_doubtful(self._clock()))
        with self._reading() as connection:
            return sorted(connection.execute(wanted).scalars())

    def reports_to_act_on(self) -> list[RetentionReport]:
        """Return the automatic reports whose time has come, without those of galleries under hold."""
        now = self._clock()
        is_held = select(legal_holds.c.gallery_id).where(
            legal_holds.c.gallery_id == retention_reports.c.gallery_id, legal_holds.c.subject_id == WHOLE_GALLERY
        )
        wanted = _REPORTS.where(
            retention_reports.c.automatic,
            retention_reports.c.state == ReportState.MADE.value,
            retention_reports.c.acts_at <= now,
            retention_reports.c.expires_at > now,
            ~is_held.exists(),
        )
        with self._reading() as connection:
            return [_to_report(row) for row in connection.execute(wanted.order_by(retention_reports.c.report_id))]

    def figures(self, gallery_id: str) -> RetentionFigures:
        """Return what a scrape shows of a gallery, quickly."""
        of_gallery = retention_reports.c.gallery_id == gallery_id
        last = _REPORTS.where(of_gallery).order_by(retention_reports.c.report_id.desc()).limit(1)
        waiting = of_gallery, retention_reports.c.automatic, retention_reports.c.state == ReportState.MADE.value
        is_whole = legal_holds.c.subject_id == WHOLE_GALLERY
        with self._reading() as connection:
            row = connection.execute(last).one_or_none()
            acts_at = connection.execute(
                select(func.min(retention_reports.c.acts_at)).where(
                    *waiting, retention_reports.c.expires_at > self._clock()
                )
            ).scalar_one()
            holds = select(func.count().filter(is_whole), func.count().filter(~is_whole))
            whole, of_subjects = connection.execute(holds.where(legal_holds.c.gallery_id == gallery_id)).one()
        is_open = row is not None and row.state in {*OPEN_STATES, ReportState.RUNNING.value}
        due_subjects, due_encounters = (row.due_subjects, row.due_encounters) if row is not None and is_open else (0, 0)
        return RetentionFigures(bool(whole), of_subjects, due_subjects, due_encounters, acts_at)

    def _put_aside(self, connection: Connection, gallery_id: str, kinds: set[bool]) -> None:
        """Supersede the reports that nobody acted on, automatic ones or not; then `_drop_lines`."""
        columns = retention_reports.c
        is_open = columns.gallery_id == gallery_id, columns.automatic.in_(kinds), columns.state.in_(OPEN_STATES)
        superseded = update(retention_reports).where(*is_open)
        connection.execute(superseded.values(state=ReportState.SUPERSEDED.value))

    def _drop_lines(self, gallery_id: str) -> None:
        """Drop the lines that nobody needs now, in parts: enrolments get their turn in between.

        What a kill leaves goes with the next report.
        """
        columns = retention_reports.c
        needed = select(columns.report_id).where(
            columns.gallery_id == gallery_id, columns.state.in_((*OPEN_STATES, ReportState.RUNNING.value))
        )
        lines = retention_items.c.gallery_id == gallery_id, retention_items.c.report_id.not_in(needed.scalar_subquery())
        with self._reading() as connection:
            wanted = select(retention_items.c.report_id).where(*lines).distinct()
            report_ids = list(connection.execute(wanted).scalars())
        for report_id in report_ids:
            while self._drop_part(gallery_id, report_id) == self._block_size:
                pass

    def _drop_part(self, gallery_id: str, report_id: int) -> int:
        """Drop some lines of a report and return how many."""
        lines = select(retention_items.c.item_id).where(retention_items.c.report_id == report_id)
        part = lines.limit(self._block_size).scalar_subquery()
        with self._writing() as connection:
            lock_gallery(connection, gallery_id)
            return connection.execute(delete(retention_items).where(retention_items.c.item_id.in_(part))).rowcount

    def _insert_items(
        self, connection: Connection, report: RetentionReport, due: Sequence[Due], held: set[str]
    ) -> None:
        if not due:
            return
        owner = {"report_id": report.report_id, "gallery_id": report.gallery_id}
        connection.execute(
            insert(retention_items),
            [
                {
                    **owner,
                    "subject_id": each.subject_id,
                    "encounter_id": each.encounter_id,
                    "reason": each.reason.value,
                    "due_at": each.due_at,
                    "is_held": each.subject_id in held,
                }
                for each in due
            ],
        )
        columns, free = retention_reports.c, [each for each in due if each.subject_id not in held]
        due_subjects = sum(each.encounter_id is None for each in free)
        update_report(
            connection,
            report.report_id,
            due_subjects=columns.due_subjects + due_subjects,
            due_encounters=columns.due_encounters + len(free) - due_subjects,
            held=columns.held + len(due) - len(free),
        )


def expect_clock(connection: Connection, gallery_id: str, now: datetime) -> None:
    """Raise ClockDoubtful where the gallery's last change lies in the future."""
    of_last = (changes.c.gallery_id == galleries.c.gallery_id) & (changes.c.seq == galleries.c.last_seq)
    last = select(changes.c.created_at).select_from(galleries.join(changes, of_last))
    changed_at = connection.execute(last.where(galleries.c.gallery_id == gallery_id)).scalar_one_or_none()
    if changed_at is not None and changed_at > now + CLOCK_TOLERANCE:
        raise ClockDoubtful("the clock is earlier than the gallery's last change: set it right, make another report")


def _is_doubtful(now: datetime) -> ColumnElement[bool]:
    """Whether the last look was too long ago, or lies in the future."""
    looked_at = retention_rules.c.looked_at
    wanted = or_(looked_at < now - LONGEST_PAUSE, looked_at > now + CLOCK_TOLERANCE)
    return and_(looked_at.is_not(None), wanted)


def read_rule(connection: Connection, gallery_id: str) -> RetentionRule:
    row = connection.execute(select(retention_rules).where(retention_rules.c.gallery_id == gallery_id)).one_or_none()
    if row is None:
        return RetentionRule(gallery_id)
    return RetentionRule(
        gallery_id,
        retain_days=row.retain_days,
        retain_samples_days=row.retain_samples_days,
        campaign_ends_at=row.campaign_ends_at,
        automatic=row.automatic,
        version=row.version,
        changed_at=row.changed_at,
    )


def _limits(rule: RetentionRule) -> dict[str, int | bool | datetime | None]:
    return {
        "retain_days": rule.retain_days,
        "retain_samples_days": rule.retain_samples_days,
        "campaign_ends_at": rule.campaign_ends_at,
        "automatic": rule.automatic,
    }


def _subject_ids_after(connection: Connection, gallery_id: str, after: str, limit: int) -> list[str]:
    wanted = select(subjects.c.subject_id).where(subjects.c.gallery_id == gallery_id, subjects.c.subject_id > after)
    return list(connection.execute(wanted.order_by(subjects.c.subject_id).limit(limit)).scalars())


def _within(gallery_id: str, after: str, last: str) -> tuple[ColumnElement[bool], ...]:
    whose = encounters.c.subject_id
    return encounters.c.gallery_id == gallery_id, whose > after, whose <= last


def _seen(connection: Connection, gallery_id: str, after: str, last: str) -> list[SeenAt]:
    whose = encounters.c.subject_id
    newest = select(whose, func.max(encounters.c.created_at).label("last_seen_at"))
    rows = connection.execute(newest.where(*_within(gallery_id, after, last)).group_by(whose).order_by(whose))
    return [SeenAt(row.subject_id, row.last_seen_at) for row in rows]


def _kept(connection: Connection, gallery_id: str, after: str, last: str) -> list[KeptSamples]:
    columns = encounters.c.subject_id, encounters.c.encounter_id, encounters.c.created_at
    is_kept = (samples.c.gallery_id == encounters.c.gallery_id) & (samples.c.encounter_id == encounters.c.encounter_id)
    kept = select(*columns).where(*_within(gallery_id, after, last), select(samples.c.position).where(is_kept).exists())
    rows = connection.execute(kept.order_by(encounters.c.subject_id, encounters.c.seq))
    return [KeptSamples(row.subject_id, row.encounter_id, row.created_at) for row in rows]


def items_after(
    connection: Connection, report_id: int, after: int, limit: int, *, held: bool | None = None
) -> list[RetentionItem]:
    wanted = select(retention_items).where(retention_items.c.report_id == report_id, retention_items.c.item_id > after)
    if held is not None:
        wanted = wanted.where(retention_items.c.is_held.is_(held))
    return [_to_item(row) for row in connection.execute(wanted.order_by(retention_items.c.item_id).limit(limit))]


def read_report(connection: Connection, gallery_id: str, report_id: int) -> RetentionReport:
    """Raises GalleryNotFound, RetentionReportNotFound."""
    is_its = retention_reports.c.gallery_id == gallery_id, retention_reports.c.report_id == report_id
    row = connection.execute(_REPORTS.where(*is_its)).one_or_none()
    if row is None:
        read_gallery(connection, gallery_id)
        raise RetentionReportNotFound("there is no such retention report in this gallery")
    return _to_report(row)


def update_report(connection: Connection, report_id: int, **values: Any) -> None:
    connection.execute(update(retention_reports).where(retention_reports.c.report_id == report_id).values(values))


def _to_item(row: AnyRow) -> RetentionItem:
    due = Due(row.subject_id, row.encounter_id, DueReason(row.reason), row.due_at)
    return RetentionItem(row.item_id, due, row.is_held, SkipReason(row.skipped) if row.skipped else None)


def _to_report(row: AnyRow) -> RetentionReport:
    rule = RetentionRule(
        row.gallery_id,
        retain_days=row.retain_days,
        retain_samples_days=row.retain_samples_days,
        campaign_ends_at=row.campaign_ends_at,
        automatic=row.automatic,
        version=row.rule_version,
        changed_at=row.rule_changed_at,
    )
    names = ("report_id", "gallery_id", "automatic", "made_at", "made_seq", "acts_at", "expires_at", "job_id")
    return RetentionReport(
        rule=rule,
        state=ReportState(row.state),
        done=row.done or 0,
        total=row.total or 0,
        error_code=row.error_code,
        **{name: getattr(row, name) for name in (*names, *COUNTS)},
    )
