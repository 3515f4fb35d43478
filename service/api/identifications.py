"""Identifications: who in the gallery is this? Nothing is changed."""

from fastapi import APIRouter, Response

from service.api.bodies import AnyBody
from service.api.context import ServiceDep
from service.api.error_responses import SAMPLE_ERRORS, responses
from service.api.guarded_route import GuardedRoute
from service.api.openapi_bodies import IDENTIFICATION_BODY
from service.api.parameters import GalleryPath
from service.api.sample_schemas import BoxOut, PresentationAttackOut, QualityOut, advice_out
from service.api.samples import identification_request
from service.api.schemas import CandidateOut, IdentificationOut, SearchedOut, ThresholdsOut, answer
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
    """Return every subject at or above the gallery's review threshold, best first. Nothing is recorded."""
    found = service.identification.identify(gallery_id, *identification_request(body))
    decision = found.decision
    return answer(
        IdentificationOut(
            gallery_id=found.gallery_id,
            found=bool(decision.candidates),
            candidates=[CandidateOut.of(candidate) for candidate in decision.candidates],
            thresholds=ThresholdsOut.model_validate(decision.thresholds),
            searched=SearchedOut.model_validate(found.searched),
            quality=QualityOut.model_validate(found.probe.quality),
            box=BoxOut.model_validate(found.probe.box),
            presentation_attack=PresentationAttackOut.of(found.probe.presentation_attack),
            advice=advice_out(found.probe.quality),
            warnings=list(decision.warnings),
        )
    )
