"""Identifications: who in the gallery is this? Nothing is changed."""

from fastapi import APIRouter, Response

from service.api.bodies import AnyBody
from service.api.context import ServiceDep
from service.api.error_responses import SAMPLE_ERRORS, responses
from service.api.guarded_route import GuardedRoute
from service.api.identification_schemas import IdentificationOut, identification_fields
from service.api.openapi_bodies import IDENTIFICATION_BODY
from service.api.parameters import GalleryPath
from service.api.samples import identification_request
from service.api.schemas import answer
from service.errors import IndexUnavailable

router = APIRouter(tags=["identifications"], route_class=GuardedRoute)


@router.post(
    "/v1/galleries/{gallery_id}/identifications",
    summary="Search a gallery for the person in one sample",
    response_model=IdentificationOut,
    responses=responses(*SAMPLE_ERRORS, IndexUnavailable),
    openapi_extra=IDENTIFICATION_BODY,
)
def create_identification(service: ServiceDep, gallery_id: GalleryPath, body: AnyBody) -> Response:
    """Return every subject at or above the gallery's review threshold, best first. It enrols nobody."""
    found = service.identification.identify(gallery_id, *identification_request(body))
    return answer(IdentificationOut(**identification_fields(found)))
