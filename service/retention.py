"""Retention by gallery: a rule, a report of what is due by it, and the run that acts on the report alone."""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from service.acting import Actor, acting_as
from service.domain import JobState, Lease, Page
from service.erasure import ErasureService
from service.errors import BiodedupError, InvalidRequest, LegalHold, SubjectNotFound
from service.logs import log_event
from service.metrics import Metrics
from service.ports import RetentionRecord, RetentionRuns
from service.retention_rule import (
    RetentionFigures,
    RetentionItem,
    RetentionReport,
    RetentionRule,
    RetentionRun,
    RunLost,
    SeenAgain,
    SkipReason,
)

LOOK_EVERY = timedelta(hours=6)
"""How often it is looked whether anybody is due by an automatic rule; rules count in days."""

BLOCK_LINES = 50  # between two looks at who waits; a line takes some tens of milliseconds

_log = logging.getLogger(__name__)
_ACTOR = Actor("service", purpose="retention")
"""On whose behalf a run erases: who began it stands in the entry of its beginning."""


class RetentionService:
    """The use cases about retention. `service.job_runner` calls `look` and `advance` again and again.

    Args:
        record: of rules and reports.
        runs: of the jobs that act on reports.
        erasure: erases subjects.
        metrics: to count into.
        clock: time zone aware.
    """

    def __init__(
        self,
        record: RetentionRecord,
        runs: RetentionRuns,
        erasure: ErasureService,
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._record = record
        self._runs = runs
        self._erasure = erasure
        self._metrics = metrics
        self._clock = clock
        self._doubtful: set[str] = set()  # galleries of which it was said
        self.news = threading.Event()
        """Set when a run was begun, or a rule set that may be automatic."""

    def rule(self, gallery_id: str) -> RetentionRule:
        """Raises GalleryNotFound."""
        return self._record.rule(gallery_id)

    def set_rule(self, wanted: RetentionRule) -> RetentionRule:
        """Put another rule in the place of a gallery's. What is running by the earlier one stops.

        Raises:
            GalleryNotFound
            InvalidRequest: samples would be kept longer than their subject.
        """
        days, samples_days = wanted.retain_days, wanted.retain_samples_days
        if days is not None and samples_days is not None and samples_days >= days:
            raise InvalidRequest("retain_samples_days: must be below retain_days, for samples go with their subject")
        rule = self._record.set_rule(wanted)
        self.news.set()
        return rule

    def report(self, gallery_id: str) -> RetentionReport:
        """Return what would be erased by the rule as it is, and erase nothing.

        Raises:
            GalleryNotFound, ClockDoubtful
            RetentionReportExpired: another report was begun meanwhile.
        """
        made = self._make(gallery_id, automatic=False)
        assert made is not None, "only an automatic report is dropped"
        return made

    def reports(self, gallery_id: str, after: str | None, limit: int) -> Page[RetentionReport]:
        """Return reports, the newest first. Raises GalleryNotFound."""
        return self._record.reports(gallery_id, after, limit)

    def report_of(self, gallery_id: str, report_id: int) -> RetentionReport:
        """Raises GalleryNotFound, RetentionReportNotFound."""
        return self._record.report(gallery_id, report_id)

    def items(self, gallery_id: str, report_id: int, after: str | None, limit: int) -> Page[RetentionItem]:
        """Return the lines of a report that are still there. Raises GalleryNotFound, RetentionReportNotFound."""
        return self._record.items(gallery_id, report_id, after, limit)

    def figures(self, gallery_id: str) -> RetentionFigures:
        return self._record.figures(gallery_id)

    def run(self, gallery_id: str, report_id: int) -> RetentionReport:
        """Let a report be acted on in the background; asked again, it is returned as far as it is.

        Raises:
            GalleryNotFound, RetentionReportNotFound, RetentionReportExpired, RetentionRuleChanged, RetentionUnderway
            ClockDoubtful
            LegalHold: the whole gallery is held.
        """
        report = self._runs.begin_run(gallery_id, report_id)
        self.news.set()
        return report

    def look(self) -> None:
        """Make the automatic reports that are due, and begin the runs of those that were shown for a day."""
        with acting_as(_ACTOR):
            self._tell_doubtful()
            for gallery_id in self._record.claim_look(self._clock() - LOOK_EVERY):
                self._attempt(gallery_id, partial(self._make, gallery_id, automatic=True))
            for report in self._record.reports_to_act_on():
                self._attempt(report.gallery_id, partial(self.run, report.gallery_id, report.report_id))

    def _tell_doubtful(self) -> None:
        """Say once of each gallery that its rule waits for a human."""
        doubtful = set(self._record.doubtful_looks())
        for gallery_id in sorted(doubtful - self._doubtful):
            log_event(_log, "retention.clock_doubtful", level=logging.ERROR, gallery_id=gallery_id)
        self._doubtful = doubtful

    def _attempt(self, gallery_id: str, act: Callable[[], object]) -> None:
        """Do it; a gallery in which it fails keeps no other from being looked at."""
        try:
            act()
        except BiodedupError as error:
            log_event(_log, "retention.not_begun", level=logging.WARNING, error=error, gallery_id=gallery_id)

    def _make(self, gallery_id: str, *, automatic: bool) -> RetentionReport | None:
        report = self._record.begin_report(gallery_id, automatic=automatic)
        after: str | None = ""
        while after is not None:
            after = self._record.extend_report(report, after)
        made = self._record.finish_report(report)
        if made is not None:
            log_event(
                _log,
                "retention.reported",
                gallery_id=gallery_id,
                kind="automatic" if automatic else "asked_for",
                count=made.due_subjects,
                encounters=made.due_encounters,
            )
        return made

    # service.job_runner.Jobs

    def unfinished(self) -> list[RetentionRun]:
        return self._runs.unfinished_runs()

    def take(self, job: RetentionRun, lease: Lease) -> RetentionRun | None:
        """Return the run as it stands, to work on it; None where it ended or somebody else is at it."""
        return self._runs.lease_run(job, lease)

    def release(self, job: RetentionRun, owner: str) -> None:
        self._runs.release_run(job, owner)

    def advance(self, job: RetentionRun, lease: Lease) -> RetentionRun | None:
        """Deal with the next lines, each in a transaction of its own.

        Returns:
            The run after it; None where it ended meanwhile or is somebody else's.

        Raises:
            RetentionRuleChanged: the run must not go on.
            LegalHold: the same, since the whole gallery was put on hold.
            StoreUnavailable, VarUnusable
        """
        self._erasure.finish_earlier()  # while the ledger cannot be written, nobody else is erased
        lines = self._runs.lines_left(job, BLOCK_LINES)
        try:
            with acting_as(_ACTOR):
                for line in lines:
                    self._deal_with(job, line, lease)
                if len(lines) < BLOCK_LINES:
                    self._runs.finish_run(job, lease)
                    self._metrics.retention_runs_ended.labels(state=JobState.DONE.value).inc()
        except RunLost:
            return None
        return self._runs.run(job)

    def fail(self, job: RetentionRun, error_code: str) -> RetentionRun:
        with acting_as(_ACTOR):
            self._runs.fail_run(job, error_code)
        self._metrics.retention_runs_ended.labels(state=JobState.FAILED.value).inc()
        return replace(job, state=JobState.FAILED)

    def _deal_with(self, job: RetentionRun, line: RetentionItem, lease: Lease) -> None:
        try:
            self._erase(job, line, lease)
        except SeenAgain:
            self._skip(job, line, lease, SkipReason.SEEN_AGAIN)
        except LegalHold:
            self._skip(job, line, lease, SkipReason.HELD)
        except SubjectNotFound:
            return  # somebody else erased it a moment ago, and its line with it

    def _erase(self, job: RetentionRun, line: RetentionItem, lease: Lease) -> None:
        if line.due.encounter_id is not None:
            samples = self._runs.erase_samples(job, line, lease)
            self._metrics.retention_erased.labels(kind="samples").inc(samples)
            return
        self._erasure.erase_subject(
            job.gallery_id,
            line.due.subject_id,
            before=lambda writing: self._runs.claim(writing, job, line, lease),
        )
        self._metrics.retention_erased.labels(kind="subjects").inc()

    def _skip(self, job: RetentionRun, line: RetentionItem, lease: Lease, reason: SkipReason) -> None:
        self._runs.skip(job, line, lease, reason)
        self._metrics.retention_skipped.labels(reason=reason.value).inc()
