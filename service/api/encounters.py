"""Encounters: each time a person was seen."""

from fastapi import APIRouter, Response

from service.api.bodies import OnlyJsonBody
from service.api.context import ServiceDep
from service.api.error_responses import responses
from service.api.guarded_route import GuardedRoute
from service.api.openapi_bodies import json_body
from service.api.parameters import DEFAULT_LIMIT, AfterNumber, EncounterPath, GalleryPath, Limit, SubjectFilter
from service.api.request_schemas import EncounterIn
from service.api.samples import read_json
from service.api.schemas import EncounterOut, EncountersOut, answer
from service.audit_chain import AuditEvent
from service.audit_people import seen_in_encounter
from service.errors import (
    EncounterNotFound,
    EncounterOutdated,
    EncounterWithdrawn,
    GalleryNotFound,
    LegalHold,
    RequestTooLarge,
    UnsupportedMediaType,
)

router = APIRouter(tags=["encounters"], route_class=GuardedRoute)


@router.get(
    "/v1/galleries/{gallery_id}/encounters",
    summary="List encounters",
    response_model=EncountersOut,
    responses=responses(GalleryNotFound),
)
def list_encounters(
    service: ServiceDep,
    gallery_id: GalleryPath,
    subject_id: SubjectFilter = None,
    after: AfterNumber = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Response:
    """Return encounters in the order of enrolment, those of one subject or of all."""
    page = service.store.encounters(gallery_id, subject_id, after, limit)
    seen = [each for item in page.items for each in seen_in_encounter(item)]
    service.audit.listed(AuditEvent.ENCOUNTERS_LISTED, gallery_id, seen)
    return answer(
        EncountersOut(
            items=[EncounterOut.of(item, service.recapture) for item in page.items], next_after=page.next_after
        )
    )


@router.get(
    "/v1/galleries/{gallery_id}/encounters/{encounter_id}",
    summary="Read one encounter",
    response_model=EncounterOut,
    responses=responses(GalleryNotFound, EncounterNotFound),
)
def read_encounter(service: ServiceDep, gallery_id: GalleryPath, encounter_id: EncounterPath) -> Response:
    found = service.store.encounter(gallery_id, encounter_id)
    service.audit.record(AuditEvent.ENCOUNTER_VIEWED, gallery_id, seen=seen_in_encounter(found))
    return answer(EncounterOut.of(found, service.recapture))


@router.patch(
    "/v1/galleries/{gallery_id}/encounters/{encounter_id}",
    summary="Take an encounter out of the search, back into it, or withdraw it",
    response_model=EncounterOut,
    responses=responses(
        GalleryNotFound,
        EncounterNotFound,
        EncounterOutdated,
        EncounterWithdrawn,
        LegalHold,
        RequestTooLarge,
        UnsupportedMediaType,
    ),
    openapi_extra=json_body(EncounterIn, {"status": "inactive"}),
)
def change_encounter(
    service: ServiceDep, gallery_id: GalleryPath, encounter_id: EncounterPath, body: OnlyJsonBody
) -> Response:
    """Set the status: `inactive` is kept but not searched, `withdrawn` erases templates and samples for ever."""
    status = read_json(body, EncounterIn).status
    return answer(
        EncounterOut.of(service.erasure.set_encounter_status(gallery_id, encounter_id, status), service.recapture)
    )
