"""A subject's own access report: everything held of them, and everyone who looked."""

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Response
from pydantic import Field

from service.access import Caller
from service.ages import RecaptureAdvice
from service.api.context import ServiceDep
from service.api.enrolments import seen_by
from service.api.error_responses import responses
from service.api.guarded_route import CallerDep, GuardedRoute
from service.api.parameters import GalleryPath, SubjectPath
from service.api.sample_schemas import Out
from service.api.schemas import EncounterOut, answer
from service.audit_chain import AuditEvent, SeenSubject, SubjectEntry
from service.domain import Case, CaseKind, CaseStatus, CaseVerdict, Encounter, Enrolment, Held, OutcomeKind
from service.errors import GalleryNotFound, SubjectNotFound
from service.retention_rule import Hold

router = APIRouter(tags=["subjects"], route_class=GuardedRoute)


class ReportedEnrolmentOut(Out):
    """How an encounter was answered. Other people's ids are not in it: they are not this person's to know."""

    enrolment_id: str
    outcome: OutcomeKind
    created_at: datetime
    candidates: int = Field(description="How many others looked like this person then.")
    warnings: list[str]


class ReportedEncounterOut(Out):
    """One time the person was seen."""

    facts: EncounterOut
    kept_samples: list[int] = Field(description="Positions of the images that are kept.")
    enrolment: ReportedEnrolmentOut | None


class ReportedCaseOut(Out):
    """A case that concerns the person, without the other one."""

    case_id: int
    gallery_id: str
    kind: CaseKind
    role: str = Field(description="`subject`: the case is of this person's encounter; `candidate`: of another's.")
    status: CaseStatus
    created_at: datetime
    verdict: CaseVerdict | None
    decided_by: str | None
    decided_at: datetime | None

    @classmethod
    def of(cls, case: Case, role: str) -> "ReportedCaseOut":
        return cls(
            case_id=case.case_id,
            gallery_id=case.gallery_id,
            kind=case.kind,
            role=role,
            status=case.status,
            created_at=case.created_at,
            verdict=case.verdict,
            decided_by=case.decided_by,
            decided_at=case.decided_at,
        )


class LookOut(Out):
    """Something that was done with the person's data."""

    chain: str
    seq: int
    created_at: datetime
    event: str
    outcome: str | None
    client_id: str
    purpose: str | None
    agreement_id: str | None
    role: str | None
    encounter_id: str | None
    is_proven: bool = Field(
        description="Whether the encrypted reference in the chain names this person; false: only the list beside the "
        "chain says so, and that can be changed without a trace."
    )
    details: dict[str, Any]

    @classmethod
    def of(cls, found: SubjectEntry) -> "LookOut":
        entry = found.entry
        return cls(
            chain=entry.chain,
            seq=entry.seq,
            created_at=entry.created_at,
            event=entry.event,
            outcome=entry.outcome,
            client_id=entry.client_id,
            purpose=entry.purpose,
            agreement_id=entry.agreement_id,
            role=found.role,
            encounter_id=found.encounter_id,
            is_proven=found.is_proven,
            details=entry.details,
        )


class AccessReportOut(Out):
    """Everything held of a person, and everyone who looked, oldest first."""

    gallery_id: str
    subject_id: str
    enrolled_at: datetime
    held_since: datetime | None = Field(
        description="Since when a legal hold keeps the data from being erased, without its reason; null: none."
    )
    encounters: list[ReportedEncounterOut]
    cases: list[ReportedCaseOut]
    looks: list[LookOut] = Field(description="This report is the last of them.")

    @classmethod
    def of(
        cls, held: Held, looks: list[SubjectEntry], advice: RecaptureAdvice, hold: Hold | None, caller: Caller
    ) -> "AccessReportOut":
        enrolments = {each.encounter_id: seen_by(caller, each) for each in held.enrolments}
        cases = [ReportedCaseOut.of(each, "subject") for each in held.own_cases]
        cases += [ReportedCaseOut.of(each, "candidate") for each in held.other_cases]
        return cls(
            gallery_id=held.subject.gallery_id,
            subject_id=held.subject.subject_id,
            enrolled_at=held.subject.created_at,
            held_since=None if hold is None else hold.set_at,
            encounters=[_encounter(each, enrolments.get(each.encounter_id), held, advice) for each in held.encounters],
            cases=cases,
            looks=[LookOut.of(each) for each in looks],
        )


def _encounter(
    encounter: Encounter, enrolment: Enrolment | None, held: Held, advice: RecaptureAdvice
) -> ReportedEncounterOut:
    kept = [position for encounter_id, position in held.samples if encounter_id == encounter.encounter_id]
    answered = None
    if enrolment is not None:
        answered = ReportedEnrolmentOut(
            enrolment_id=enrolment.enrolment_id,
            outcome=enrolment.outcome,
            created_at=enrolment.created_at,
            candidates=len(enrolment.candidates),
            warnings=list(enrolment.warnings),
        )
    return ReportedEncounterOut(facts=EncounterOut.of(encounter, advice), kept_samples=kept, enrolment=answered)


@router.get(
    "/v1/galleries/{gallery_id}/subjects/{subject_id}/access-report",
    summary="Report to a subject all that is held, and who looked",
    response_model=AccessReportOut,
    responses=responses(GalleryNotFound, SubjectNotFound),
)
def read_access_report(
    service: ServiceDep, caller: CallerDep, gallery_id: GalleryPath, subject_id: SubjectPath
) -> Response:
    """Return what can be handed to the person: no template and no other person's identifier is in it."""
    held = service.store.held_about(gallery_id, subject_id)
    service.audit.record(AuditEvent.SUBJECT_REPORTED, gallery_id, seen=[SeenSubject(subject_id)])
    looks = service.store.audit_about(gallery_id, subject_id)
    hold = service.holds.covering(gallery_id, subject_id)
    return answer(
        AccessReportOut.of(held, looks, service.recapture, hold, caller), headers={"Cache-Control": "no-store"}
    )
