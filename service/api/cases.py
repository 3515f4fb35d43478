"""Cases: what a human must look at."""

from fastapi import APIRouter, Response

from service.api.case_schemas import CaseOut, CasesOut
from service.api.context import ServiceDep
from service.api.error_responses import responses
from service.api.parameters import DEFAULT_LIMIT, AfterNumber, CasePath, GalleryPath, Limit, SweepFilter
from service.api.schemas import answer
from service.errors import CaseNotFound, GalleryNotFound

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
    return answer(CasesOut(items=[CaseOut.of(item) for item in page.items], next_after=page.next_after))


@router.get(
    "/v1/galleries/{gallery_id}/cases/{case_id}",
    summary="Read one case",
    response_model=CaseOut,
    responses=responses(GalleryNotFound, CaseNotFound),
)
def read_case(service: ServiceDep, gallery_id: GalleryPath, case_id: CasePath) -> Response:
    return answer(CaseOut.of(service.store.case(gallery_id, case_id)))
