"""Cases: what a human must look at."""

from fastapi import APIRouter, Response

from service.api.bodies import OnlyJsonBody
from service.api.case_schemas import CaseOut, CasesOut
from service.api.context import ServiceDep
from service.api.error_responses import responses
from service.api.openapi_bodies import json_body
from service.api.parameters import DEFAULT_LIMIT, AfterNumber, CasePath, GalleryPath, Limit, SweepFilter
from service.api.request_schemas import CaseDecisionIn
from service.api.samples import read_json
from service.api.schemas import answer
from service.audit_chain import AuditEvent
from service.audit_people import seen_in_case
from service.domain import CaseDecision
from service.errors import CaseNotFound, CaseVoid, GalleryNotFound, RequestTooLarge, UnsupportedMediaType

router = APIRouter(tags=["cases"])


@router.get(
    "/v1/galleries/{gallery_id}/cases",
    summary="List cases",
    response_model=CasesOut,
    responses=responses(GalleryNotFound),
)
def list_cases(
    service: ServiceDep,
    gallery_id: GalleryPath,
    job_id: SweepFilter = None,
    after: AfterNumber = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Response:
    """Return cases in the order of their numbers, those of one sweep or all."""
    page = service.store.cases(gallery_id, after, limit, job_id)
    seen = [each for item in page.items for each in seen_in_case(item)]
    service.audit.listed(AuditEvent.CASES_LISTED, gallery_id, seen)
    return answer(CasesOut(items=[CaseOut.of(item) for item in page.items], next_after=page.next_after))


@router.get(
    "/v1/galleries/{gallery_id}/cases/{case_id}",
    summary="Read one case",
    response_model=CaseOut,
    responses=responses(GalleryNotFound, CaseNotFound),
)
def read_case(service: ServiceDep, gallery_id: GalleryPath, case_id: CasePath) -> Response:
    found = service.store.case(gallery_id, case_id)
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
def decide_case(service: ServiceDep, gallery_id: GalleryPath, case_id: CasePath, body: OnlyJsonBody) -> Response:
    """Keep what a human decided. It changes no record: nobody is linked, refused or erased by it.

    Realised error rates are counted from it, and a calibration of the gallery's own templates leaves out one
    name of a person who was decided to have two. The audit trail keeps each decision.
    """
    wanted = read_json(body, CaseDecisionIn)
    decision = CaseDecision(wanted.verdict, wanted.decided_by)
    return answer(CaseOut.of(service.store.decide_case(gallery_id, case_id, decision)))
