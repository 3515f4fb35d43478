"""Retention: the rule of a gallery, what is due by it, and the run that acts on a report."""

from datetime import datetime

from fastapi import APIRouter, Response
from pydantic import Field

from service.api.bodies import OnlyJsonBody
from service.api.context import ServiceDep
from service.api.error_responses import responses
from service.api.guarded_route import GuardedRoute
from service.api.openapi_bodies import json_body
from service.api.parameters import DEFAULT_LIMIT, AfterNumber, GalleryPath, Limit, ReportPath
from service.api.request_schemas import RetentionIn, RetentionRunIn
from service.api.sample_schemas import Out
from service.api.samples import read_json
from service.api.schemas import HeldOut, PageOut, answer
from service.audit_chain import AuditEvent, SeenSubject
from service.errors import (
    ClockDoubtful,
    GalleryNotFound,
    LegalHold,
    RequestTooLarge,
    RetentionReportExpired,
    RetentionReportNotFound,
    RetentionRuleChanged,
    RetentionUnderway,
    UnsupportedMediaType,
)
from service.retention_rule import (
    DueReason,
    ReportState,
    RetentionItem,
    RetentionReport,
    RetentionRule,
    SkipReason,
)

router = APIRouter(tags=["retention"], route_class=GuardedRoute)

_RULE = "/v1/galleries/{gallery_id}/retention"


class RuleOut(Out):
    """How long a gallery keeps whom; null: not limited so."""

    retain_days: int | None
    retain_samples_days: int | None
    campaign_ends_at: datetime | None
    automatic: bool
    version: int = Field(description="Of the rule: each change is another; 0: none was set.")
    changed_at: datetime | None


class ReportOut(Out):
    """What would be erased by a rule as it was, and what became of it."""

    report_id: int
    gallery_id: str
    rule: RuleOut
    automatic: bool = Field(description="Whether the service made it by itself.")
    state: ReportState
    made_at: datetime
    acts_at: datetime | None = Field(description="When the service acts on it by itself; null: it does not.")
    expires_at: datetime = Field(description="From then on it is not acted on.")
    due_subjects: int = Field(description="Subjects that would be erased.")
    due_encounters: int = Field(description="Encounters whose samples would be erased while their templates stay.")
    held: int = Field(description="Lines that are due and under legal hold: listed, and left alone.")
    erased_subjects: int
    erased_samples: int = Field(description="Of encounters whose templates stay.")
    skipped_held: int = Field(description="Put under legal hold between the report and the run.")
    skipped_seen_again: int = Field(description="Subjects that got an encounter between the report and the run.")
    already_gone: int = Field(description="Erased by somebody else between the report and the end of the run.")
    done: int = Field(description="Lines that the run is through with.")
    total: int = Field(description="Lines that the run is to go through; 0 before it begins.")
    error_code: str | None = Field(description="Why the run stopped.")

    @classmethod
    def of(cls, report: RetentionReport) -> "ReportOut":
        return cls.model_validate(report)


class ReportsOut(PageOut[ReportOut]):
    pass


class LineOut(Out):
    """One line of a report: a subject or, with an encounter, samples."""

    subject_id: str
    encounter_id: str | None = Field(description="Whose samples are due; null: the whole subject is.")
    reason: DueReason
    due_at: datetime = Field(description="Since when it is due.")
    held: bool = Field(description="Under legal hold when the report was made: the run leaves it alone.")
    skipped: SkipReason | None = Field(
        description="Why the run left it alone; null: it did not come to it, or did not."
    )

    @classmethod
    def of(cls, item: RetentionItem) -> "LineOut":
        due = item.due
        return cls(
            subject_id=due.subject_id,
            encounter_id=due.encounter_id,
            reason=due.reason,
            due_at=due.due_at,
            held=item.is_held,
            skipped=item.skipped,
        )


class LinesOut(PageOut[LineOut]):
    pass


class RetentionOut(Out):
    """The rule of a gallery, whether it is held, and its last report."""

    gallery_id: str
    rule: RuleOut
    legal_hold: HeldOut | None = Field(description="On the whole gallery: nothing of it is erased.")
    held_subjects: int
    last_report: ReportOut | None


@router.get(_RULE, summary="Read the retention rule", response_model=RetentionOut, responses=responses(GalleryNotFound))
def read_retention(service: ServiceDep, gallery_id: GalleryPath) -> Response:
    """Return how long the gallery keeps whom, what holds it, and its last report."""
    return answer(_state(service, gallery_id))


@router.put(
    _RULE,
    summary="Set the retention rule",
    response_model=RetentionOut,
    responses=responses(GalleryNotFound, RequestTooLarge, UnsupportedMediaType),
    openapi_extra=json_body(RetentionIn, {"retain_days": 730, "retain_samples_days": 180}),
)
def set_retention(service: ServiceDep, gallery_id: GalleryPath, body: OnlyJsonBody) -> Response:
    """Put another rule in the place of the earlier one. It erases nothing by itself unless `automatic` is set.

    Reports made from the earlier rule cannot be acted on any more, and a run by it stops.
    """
    wanted = read_json(body, RetentionIn)
    rule = RetentionRule(
        gallery_id,
        retain_days=wanted.retain_days,
        retain_samples_days=wanted.retain_samples_days,
        campaign_ends_at=wanted.campaign_ends_at,
        automatic=wanted.automatic,
    )
    service.retention.set_rule(rule)
    return answer(_state(service, gallery_id))


@router.post(
    f"{_RULE}/reports",
    status_code=201,
    summary="Report what is due, and erase nothing",
    response_model=ReportOut,
    responses=responses(GalleryNotFound, RetentionReportExpired, ClockDoubtful),
)
def make_report(service: ServiceDep, gallery_id: GalleryPath) -> Response:
    """Make a dry run by the rule as it is. The report may be acted on for 24 hours, while the rule stays unchanged."""
    return answer(ReportOut.of(service.retention.report(gallery_id)), 201)


@router.get(
    f"{_RULE}/reports",
    summary="List retention reports",
    response_model=ReportsOut,
    responses=responses(GalleryNotFound),
)
def list_reports(
    service: ServiceDep, gallery_id: GalleryPath, after: AfterNumber = None, limit: Limit = DEFAULT_LIMIT
) -> Response:
    """Return reports, the newest first."""
    page = service.retention.reports(gallery_id, after, limit)
    return answer(ReportsOut(items=[ReportOut.of(each) for each in page.items], next_after=page.next_after))


@router.get(
    f"{_RULE}/reports/{{report_id}}",
    summary="Read one retention report",
    response_model=ReportOut,
    responses=responses(GalleryNotFound, RetentionReportNotFound),
)
def read_report(service: ServiceDep, gallery_id: GalleryPath, report_id: ReportPath) -> Response:
    """Return how much a report holds and how far its run is."""
    return answer(ReportOut.of(service.retention.report_of(gallery_id, report_id)))


@router.get(
    f"{_RULE}/reports/{{report_id}}/lines",
    summary="List whom a retention report names",
    response_model=LinesOut,
    responses=responses(GalleryNotFound, RetentionReportNotFound),
)
def list_lines(
    service: ServiceDep,
    gallery_id: GalleryPath,
    report_id: ReportPath,
    after: AfterNumber = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Response:
    """Return the lines that are still there: each goes with its subject, and all with the next report after the run."""
    page = service.retention.items(gallery_id, report_id, after, limit)
    seen = [SeenSubject(each.due.subject_id) for each in page.items]
    service.audit.listed(AuditEvent.SUBJECTS_LISTED, gallery_id, seen)
    return answer(LinesOut(items=[LineOut.of(each) for each in page.items], next_after=page.next_after))


@router.post(
    f"{_RULE}/runs",
    status_code=202,
    summary="Act on a retention report",
    response_model=ReportOut,
    responses=responses(
        GalleryNotFound,
        RetentionReportNotFound,
        RetentionReportExpired,
        RetentionRuleChanged,
        RetentionUnderway,
        ClockDoubtful,
        LegalHold,
        RequestTooLarge,
        UnsupportedMediaType,
    ),
    openapi_extra=json_body(RetentionRunIn, {"report_id": 3}),
)
def begin_run(service: ServiceDep, gallery_id: GalleryPath, body: OnlyJsonBody) -> Response:
    """Erase, in the background, what the report names and nothing else. It cannot be undone.

    Whoever was put under legal hold or got an encounter since is left alone, and the report says so. The same request
    again returns how far it is.
    """
    return answer(ReportOut.of(service.retention.run(gallery_id, read_json(body, RetentionRunIn).report_id)), 202)


def _state(service: ServiceDep, gallery_id: str) -> RetentionOut:
    rule = service.retention.rule(gallery_id)
    newest = service.retention.reports(gallery_id, None, 1).items
    return RetentionOut(
        gallery_id=gallery_id,
        rule=RuleOut.model_validate(rule),
        legal_hold=HeldOut.of(service.holds.covering(gallery_id)),
        held_subjects=service.retention.figures(gallery_id).held_subjects,
        last_report=ReportOut.of(newest[0]) if newest else None,
    )
