"""Cases: what a human must look at."""

from dataclasses import replace

from fastapi import APIRouter, Response

from service.access import LOCAL, Caller
from service.api.access import CASE_READERS, require
from service.api.bodies import OnlyJsonBody
from service.api.case_schemas import CaseOut, CasesOut
from service.api.context import Service, ServiceDep
from service.api.error_responses import responses
from service.api.guarded_route import CallerDep, GuardedRoute
from service.api.openapi_bodies import json_body
from service.api.parameters import DEFAULT_LIMIT, AfterNumber, CasePath, GalleryPath, Limit, SweepFilter
from service.api.request_schemas import CaseDecisionIn
from service.api.samples import read_json
from service.api.schemas import answer
from service.audit_chain import AuditEvent
from service.audit_people import seen_in_case
from service.domain import Candidate, Case, CaseDecision, CaseKind
from service.errors import (
    CaseNotFound,
    CaseVoid,
    GalleryNotFound,
    InvalidRequest,
    RequestTooLarge,
    UnsupportedMediaType,
)

router = APIRouter(tags=["cases"], route_class=GuardedRoute)


@router.get(
    "/v1/galleries/{gallery_id}/cases",
    summary="List cases",
    response_model=CasesOut,
    responses=responses(GalleryNotFound),
)
def list_cases(
    service: ServiceDep,
    caller: CallerDep,
    gallery_id: GalleryPath,
    *,
    job_id: SweepFilter = None,
    after: AfterNumber = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Response:
    """Return cases in the order of their numbers, those of one sweep or all.

    Of a pair across two galleries, whoever may not read the cases of the other gallery sees nothing of its subject.
    """
    page = service.store.cases(gallery_id, after, limit, job_id)
    items = [_seen_by(caller, item) for item in page.items]
    service.audit.listed(AuditEvent.CASES_LISTED, gallery_id, [each for item in items for each in seen_in_case(item)])
    return answer(CasesOut(items=[CaseOut.of(item) for item in items], next_after=page.next_after))


@router.get(
    "/v1/galleries/{gallery_id}/cases/{case_id}",
    summary="Read one case",
    response_model=CaseOut,
    responses=responses(GalleryNotFound, CaseNotFound),
)
def read_case(service: ServiceDep, caller: CallerDep, gallery_id: GalleryPath, case_id: CasePath) -> Response:
    found = _seen_by(caller, service.store.case(gallery_id, case_id))
    details = {"case_id": case_id}
    service.audit.record(AuditEvent.CASE_VIEWED, gallery_id, details=details, seen=seen_in_case(found))
    return answer(CaseOut.of(found))


@router.put(
    "/v1/galleries/{gallery_id}/cases/{case_id}/decision",
    summary="Decide on a case, or open it again",
    response_model=CaseOut,
    responses=responses(GalleryNotFound, CaseNotFound, CaseVoid, RequestTooLarge, UnsupportedMediaType),
    openapi_extra=json_body(CaseDecisionIn, {"verdict": "DIFFERENT_PEOPLE", "decided_by": "analyst-7"}),
)
def decide_case(
    service: ServiceDep, caller: CallerDep, gallery_id: GalleryPath, case_id: CasePath, body: OnlyJsonBody
) -> Response:
    """Keep what a human decided. It changes no record: nobody is linked, refused or erased by it.

    Realised error rates are counted from it, and a calibration of the gallery's own templates leaves out one
    name of a person who was decided to have two. The audit trail keeps each decision.
    """
    wanted = read_json(body, CaseDecisionIn)
    if caller is not LOCAL:
        other = _compared_with(service, service.store.case(gallery_id, case_id))
        if other is not None and other.gallery_id is not None:
            require(caller, CASE_READERS, other.gallery_id)
    decision = CaseDecision(wanted.verdict, _decided_by(caller, wanted.decided_by))
    return answer(CaseOut.of(service.store.decide_case(gallery_id, case_id, decision)))


def _compared_with(service: Service, case: Case) -> Candidate | None:
    """Return whom a verdict is about: of several candidates of an enrolment the first."""
    if case.candidate is not None or case.kind is not CaseKind.DUPLICATE:
        return case.candidate
    found = service.store.enrolment(case.gallery_id, case.enrolment_id).candidates
    return found[0] if found else None


def _decided_by(caller: Caller, said: str | None) -> str:
    """Return who decided: the caller that was proved, then whom it names at its side.

    Raises:
        InvalidRequest: nobody is asked who they are, and it is not said either.
    """
    if caller is LOCAL:
        if said is None:
            raise InvalidRequest("decided_by: say who decided, since nobody is asked who they are")
        return said
    return caller.client_id if said is None else f"{caller.client_id}/{said}"


def _seen_by(caller: Caller, case: Case) -> Case:
    """Leave out who the other subject is where it is in a gallery whose cases the caller may not read."""
    other = case.candidate
    if other is None or other.gallery_id in {None, case.gallery_id} or caller.may(CASE_READERS, other.gallery_id):
        return case
    nobody = replace(
        other, subject_id=None, encounter_id=None, reference_id=None, age_at_capture=None, years_between=None
    )
    return replace(case, candidate=nobody)
