"""Every Prometheus metric, defined once. No label ever names a subject or an encounter.

Over 300 lines on purpose: all metrics in one place, most of it definitions.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from service.accuracy_metrics import AccuracyMetrics
from service.audit_chain import AuditEvent
from service.domain import JobState, OutcomeKind
from service.errors import SampleRejected, all_errors
from service.retention_rule import RetentionFigures, SkipReason

PHASES = (
    "decode",
    "detect",
    "refine",
    "align",
    "quality",
    "embed",
    "attack",
    "wait",
    "search",
    "store",
    "index",
    "sweep",
)
"""What an enrolment spends its time on; `wait` is the time in the queue, `sweep` the search of a block of a sweep."""

# from a comparison with a thousand templates (1 ms) to a request that gives up (30 s), about two steps a doubling
SECONDS_BUCKETS = (
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
)

# a segment of 262,144 is searched in a millisecond, an open one in tens of microseconds
INDEX_SECONDS_BUCKETS = (1e-5, 3e-5, 1e-4, 3e-4, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SHORTLIST_BUCKETS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)


class Metrics(AccuracyMetrics):
    """The metrics of one process, registered with `registry`; tests build one each.

    Args:
        registry: where the metrics live; a new one when not given.
        version: of biodedup, shown by `biodedup_build_info`.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, version: str = "unknown") -> None:
        self.registry = registry or CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._define_requests()
        self._define_outcomes()
        self._define_galleries()
        self._define_index()
        self._define_queue()
        self._define_sweeps()
        self._define_searches()
        self._define_decisions()
        self._define_drift()
        self._define_continuity()
        self._define_sites()
        self._define_migrations()
        self._define_audit()
        self._define_retention()
        self._define_erasures()
        self.build_info = Info("biodedup_build", "Version of the running service.", registry=self.registry)
        self.build_info.info({"version": version})

    def _define_requests(self) -> None:
        self.requests = Counter(
            "biodedup_requests_total",
            "HTTP requests answered, by method, route (the pattern, never the path) and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "biodedup_request_seconds",
            "Seconds from the arrival of an HTTP request to its answer, by route.",
            ("route",),
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.phase_seconds = Histogram(
            "biodedup_phase_seconds",
            "Seconds that one phase of a request took.",
            ("phase",),
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.rate_limited = Counter(
            "biodedup_rate_limited_total",
            "Requests refused because a client had its share (requests, searches, bytes, sign_ins).",
            ("kind",),
            registry=self.registry,
        )
        self.connections_closed = Counter(
            "biodedup_connections_closed_total",
            "Connections that the service closed itself (slow_request, slow_reader, too_many, headers_too_large).",
            ("reason",),
            registry=self.registry,
        )
        self.errors = Counter(
            "biodedup_errors_total",
            "Requests that ended with an error, by its code (docs/errors.md).",
            ("code",),
            registry=self.registry,
        )
        # a series that starts at 0 can be used with rate() from the first event on
        self._phases = {phase: self.phase_seconds.labels(phase=phase) for phase in PHASES}

    def _define_outcomes(self) -> None:
        self.enrolments = Counter(
            "biodedup_enrolments_total", "Enrolments answered, by outcome.", ("outcome",), registry=self.registry
        )
        self.identifications = Counter(
            "biodedup_identifications_total",
            "Identifications answered, by whether a candidate was found (true, false).",
            ("found",),
            registry=self.registry,
        )
        self.verifications = Counter(
            "biodedup_verifications_total",
            "Verifications answered, by whether the two matched (true, false).",
            ("matched",),
            registry=self.registry,
        )
        self.rejections = Counter(
            "biodedup_rejections_total",
            "Samples without a usable face, by the code of the finding (docs/errors.md).",
            ("code",),
            registry=self.registry,
        )
        self.standby_rejections = Counter(
            "biodedup_standby_rejections_total",
            "Usable samples in which the pack that stands by finds no usable face, while a gallery changes its model.",
            registry=self.registry,
        )
        for kind in OutcomeKind:
            self.enrolments.labels(outcome=kind.value)
        for truth in ("true", "false"):
            self.identifications.labels(found=truth)
            self.verifications.labels(matched=truth)
        for error in all_errors(SampleRejected):
            self.rejections.labels(code=error.code)

    def _define_galleries(self) -> None:
        self.gallery_templates = self._gallery_gauge("biodedup_gallery_templates", "Templates searched now.")
        self.open_cases = self._gallery_gauge("biodedup_open_cases", "Cases that wait for a human.")
        self.index_high_water_mark = self._gallery_gauge(
            "biodedup_index_high_water_mark", "Number of the last change that the index has applied."
        )
        self.index_lag_changes = self._gallery_gauge(
            "biodedup_index_lag_changes", "Changes that are in the record and not yet in the index."
        )
        self.miss_bound = self._gallery_gauge(
            "biodedup_miss_bound",
            "Upper 95 % bound on the share of pairs at or above a threshold that the index misses (0 to 1).",
        )
        self.expected_fnir = self._gallery_gauge(
            "biodedup_expected_fnir", "Share of duplicates that the review threshold is expected to miss (0 to 1)."
        )
        self.fnir_warning = self._gallery_gauge(
            "biodedup_fnir_warning", "1 while the expected share of missed duplicates is above BIODEDUP_FNIR_WARNING."
        )
        self.index_rebuilds = Counter(
            "biodedup_index_rebuilds_total", "Indexes built again from the record.", registry=self.registry
        )
        self.index_files_set_aside = Counter(
            "biodedup_index_files_set_aside_total",
            "Times that the files of an index could not be used, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.index_failures = Counter(
            "biodedup_index_failures_total", "Changes that an index failed to apply.", registry=self.registry
        )

    def _define_index(self) -> None:
        self.index_templates = Gauge(
            "biodedup_index_templates",
            "Templates in a gallery's index, by state of their segment (open, sealing, sealed) and those removed.",
            ("gallery", "state"),
            registry=self.registry,
        )
        self.index_bytes = Gauge(
            "biodedup_index_bytes",
            "Bytes of a gallery's index, by place (ram, disk).",
            ("gallery", "place"),
            registry=self.registry,
        )
        self.index_search_seconds = Histogram(
            "biodedup_index_search_seconds",
            "Seconds of all threads that a search spent on codes, fine codes, rows and open segments.",
            ("phase",),
            buckets=INDEX_SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.index_build_seconds = Histogram(
            "biodedup_index_build_seconds",
            "Seconds that making a segment took: seal, merge or compaction.",
            ("kind",),
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.index_shortlist_templates = Histogram(
            "biodedup_index_shortlist_templates",
            "Templates of sealed segments that the codes left for one probe, the mean of a batch.",
            buckets=SHORTLIST_BUCKETS,
            registry=self.registry,
        )
        self.index_batch_probes = Histogram(
            "biodedup_index_batch_probes",
            "Probes that were searched together, those of concurrent requests too.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            registry=self.registry,
        )
        self.index_verifications = Counter(
            "biodedup_index_verifications_total",
            "Comparisons of an index with its record, by result (ok, different).",
            ("result",),
            registry=self.registry,
        )
        for result in ("ok", "different"):
            self.index_verifications.labels(result=result)
        for kind in ("seal", "merge", "compaction"):
            self.index_build_seconds.labels(kind=kind)

    def _define_queue(self) -> None:
        self.queue_waiting = Gauge(
            "biodedup_queue_waiting", "Samples that wait for a free worker.", registry=self.registry
        )
        self.queue_limit = Gauge(
            "biodedup_queue_limit", "Samples that may wait before requests get 429.", registry=self.registry
        )
        self.worker_losses = Counter(
            "biodedup_worker_losses_total",
            "Worker processes that died, or were stopped because a sample took too long.",
            registry=self.registry,
        )

    def _define_sweeps(self) -> None:
        self.sweep_progress = self._gallery_gauge(
            "biodedup_sweep_progress", "Share of a gallery that its last sweep has compared (0 to 1)."
        )
        self.sweep_pairs = Counter(
            "biodedup_sweep_pairs_total",
            "Pairs of templates of different subjects that sweeps found at or above their threshold.",
            registry=self.registry,
        )
        self.sweep_cases = Counter(
            "biodedup_sweep_cases_total", "Cases that sweeps opened, one a pair of subjects.", registry=self.registry
        )
        self.sweeps_ended = Counter(
            "biodedup_sweeps_ended_total", "Sweeps that ended, by state.", ("state",), registry=self.registry
        )
        for state in JobState:
            if state.has_ended:
                self.sweeps_ended.labels(state=state.value)

    def _define_migrations(self) -> None:
        self.migration_progress = self._gallery_gauge(
            "biodedup_migration_progress", "Share of a gallery's samples from which the new pack's templates were made."
        )
        self.standby_only_templates = self._gallery_gauge(
            "biodedup_standby_only_templates",
            "Templates that only the pack which does not rule has (0: none stands by).",
        )
        self.migration_templates = Counter(
            "biodedup_migration_templates_total",
            "Samples that migrations looked at, by result (made, no_sample, unusable).",
            ("result",),
            registry=self.registry,
        )
        for result in ("made", "no_sample", "unusable"):
            self.migration_templates.labels(result=result)

    def _define_audit(self) -> None:
        self.audit_entries = Counter(
            "biodedup_audit_entries_total",
            "Entries written into the audit trail, by event (docs/audit.md).",
            ("event",),
            registry=self.registry,
        )
        for event in AuditEvent:
            self.audit_entries.labels(event=event.value)
        self.audit_anchor_time = Gauge(
            "biodedup_audit_anchor_timestamp_seconds",
            "When a chain of the audit trail was anchored last (seconds since 1970; 0: not since the start).",
            registry=self.registry,
        )

    def _define_retention(self) -> None:
        self.legal_holds = Gauge(
            "biodedup_legal_holds",
            "Legal holds of a gallery, by what is held (gallery, subject).",
            ("gallery", "kind"),
            registry=self.registry,
        )
        self.retention_due = Gauge(
            "biodedup_retention_due",
            "What the last retention report of a gallery would erase, until that is done (subjects, samples).",
            ("gallery", "kind"),
            registry=self.registry,
        )
        self.retention_acts_time = self._gallery_gauge(
            "biodedup_retention_acts_timestamp_seconds",
            "When an automatic retention report will be acted on (seconds since 1970; 0: none waits).",
        )
        self.retention_erased = Counter(
            "biodedup_retention_erased_total",
            "What retention runs erased: subjects, and samples whose templates stay.",
            ("kind",),
            registry=self.registry,
        )
        self.retention_skipped = Counter(
            "biodedup_retention_skipped_total",
            "Lines of a report that its run left alone (legal_hold, seen_again).",
            ("reason",),
            registry=self.registry,
        )
        self.retention_runs_ended = Counter(
            "biodedup_retention_runs_ended_total",
            "Retention runs that ended, by state (done, failed).",
            ("state",),
            registry=self.registry,
        )
        for kind in ("subjects", "samples"):
            self.retention_erased.labels(kind=kind)
        for reason in SkipReason:
            self.retention_skipped.labels(reason=reason.value)
        for state in (JobState.DONE, JobState.FAILED):
            self.retention_runs_ended.labels(state=state.value)

    def show_retention(self, gallery_id: str, figures: RetentionFigures) -> None:
        """Set the gauges of a gallery."""
        self.legal_holds.labels(gallery=gallery_id, kind="gallery").set(figures.gallery_is_held)
        self.legal_holds.labels(gallery=gallery_id, kind="subject").set(figures.held_subjects)
        self.retention_due.labels(gallery=gallery_id, kind="subjects").set(figures.due_subjects)
        self.retention_due.labels(gallery=gallery_id, kind="samples").set(figures.due_encounters)
        acts_at = figures.acts_at
        self.retention_acts_time.labels(gallery=gallery_id).set(0 if acts_at is None else acts_at.timestamp())

    def _define_erasures(self) -> None:
        self.erasure_overdue = Gauge(
            "biodedup_erasure_overdue_seconds",
            "How long the oldest erasure is beyond its time, by what is left of it; 0: none is.",
            ("part",),
            registry=self.registry,
        )
        for part in ("keys", "log", "key_store", "index"):
            self.erasure_overdue.labels(part=part)
        self.erasures_replayed = Counter(
            "biodedup_erasures_replayed_total",
            "Subjects that a restore brought back and that were erased again at the start.",
            registry=self.registry,
        )

    def count_audit_entry(self, event: AuditEvent) -> None:
        self.audit_entries.labels(event=event.value).inc()

    def _gallery_gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ("gallery",), registry=self.registry)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Record how long the block takes, also when it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.observe_phase(name, time.perf_counter() - start)

    def observe_phase(self, name: str, seconds: float) -> None:
        """Record a time measured elsewhere.

        Raises:
            ValueError: `name` is not one of `PHASES`.
        """
        histogram = self._phases.get(name)
        if histogram is None:
            raise ValueError(f"{name} is not a phase")
        histogram.observe(seconds)

    def is_anyone_waiting(self) -> bool:
        """Whether samples wait for a free worker."""
        return any(sample.value > 0 for metric in self.queue_waiting.collect() for sample in metric.samples)

    def render(self) -> bytes:
        """The metrics in Prometheus' text format; the media type is `prometheus_client.CONTENT_TYPE_LATEST`."""
        return generate_latest(self.registry)
