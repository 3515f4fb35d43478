"""Enrolments: send the samples of a person, learn whether the person is already enrolled."""

from dataclasses import replace

from fastapi import APIRouter, Response

from service.access import Caller
from service.api.access import ALSO_SEARCHERS, PEOPLE_SEERS, require
from service.api.bodies import AnyBody
from service.api.context import ServiceDep
from service.api.error_responses import SAMPLE_ERRORS, responses
from service.api.guarded_route import CallerDep, GuardedRoute
from service.api.openapi_bodies import ENROLMENT_BODY
from service.api.ordinary_route import OrdinaryRoute
from service.api.parameters import (
    DEFAULT_LIMIT,
    AfterNumber,
    EnrolmentPath,
    GalleryPath,
    IdempotencyKey,
    Limit,
    own_name,
)
from service.api.samples import enrolment_request
from service.api.schemas import EnrolmentOut, EnrolmentsOut, answer
from service.audit_chain import AuditEvent
from service.audit_people import seen_in_enrolment
from service.domain import Candidate, Enrolment
from service.errors import (
    EncounterExists,
    EnrolmentNotFound,
    GalleriesNotComparable,
    GalleryNotFound,
    IdempotencyKeyReused,
    IndexUnavailable,
)

router = APIRouter(tags=["enrolments"], route_class=GuardedRoute)

_REPLAYED = {
    "headers": {
        "Idempotency-Replayed": {
            "description": "true: this is the answer to an earlier, equal request.",
            "schema": {"type": "string", "enum": ["true"]},
        }
    }
}


def create_enrolment(
    service: ServiceDep, caller: CallerDep, gallery_id: GalleryPath, body: AnyBody, idempotency_key: IdempotencyKey
) -> Response:
    """Search the whole gallery for the person in the samples, decide, and record the encounter.

    A repeat with the same `Idempotency-Key` or `encounter_id` and the same content gets the first answer. A sample
    without a usable face is an error with its own code, unless another sample of the request is usable.
    """
    name = own_name(caller, idempotency_key)
    request = enrolment_request(gallery_id, body, name, max_samples=service.max_samples)
    for each in request.also_search:
        require(caller, ALSO_SEARCHERS, each)
    found = service.enrolment.enrol(request)
    headers = {"Idempotency-Replayed": "true"} if found.is_replay else None
    return answer(EnrolmentOut.of(found.enrolment), 201, headers)


router.add_api_route(
    "/v1/galleries/{gallery_id}/enrolments",
    create_enrolment,
    methods=["POST"],
    status_code=201,
    summary="Enrol a person and learn whether they are already enrolled",
    response_model=EnrolmentOut,
    responses={
        201: _REPLAYED,
        **responses(*SAMPLE_ERRORS, EncounterExists, IdempotencyKeyReused, GalleriesNotComparable, IndexUnavailable),
    },
    openapi_extra=ENROLMENT_BODY,
    route_class_override=OrdinaryRoute,
)


@router.get(
    "/v1/galleries/{gallery_id}/enrolments",
    summary="List enrolments",
    response_model=EnrolmentsOut,
    responses=responses(GalleryNotFound),
)
def list_enrolments(
    service: ServiceDep,
    caller: CallerDep,
    gallery_id: GalleryPath,
    *,
    after: AfterNumber = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Response:
    """Return enrolments in their order, each as it was answered; candidates elsewhere only to who may see them."""
    page = service.store.enrolments(gallery_id, after, limit)
    items = [seen_by(caller, item) for item in page.items]
    seen = [each for item in items for each in seen_in_enrolment(item)]
    service.audit.listed(AuditEvent.ENROLMENTS_LISTED, gallery_id, seen)
    return answer(EnrolmentsOut(items=[EnrolmentOut.of(item) for item in items], next_after=page.next_after))


@router.get(
    "/v1/galleries/{gallery_id}/enrolments/{enrolment_id}",
    summary="Read one enrolment",
    response_model=EnrolmentOut,
    responses=responses(GalleryNotFound, EnrolmentNotFound),
)
def read_enrolment(
    service: ServiceDep, caller: CallerDep, gallery_id: GalleryPath, enrolment_id: EnrolmentPath
) -> Response:
    """Return an enrolment as it was answered; candidates that were erased since have lost their ids.

    So have those of other galleries where the caller has no role there that sees people.
    """
    found = seen_by(caller, service.store.enrolment(gallery_id, enrolment_id))
    service.audit.record(AuditEvent.ENROLMENT_VIEWED, gallery_id, seen=seen_in_enrolment(found))
    return answer(EnrolmentOut.of(found))


def seen_by(caller: Caller, enrolment: Enrolment) -> Enrolment:
    """Return an enrolment without what the caller may not know of the other galleries that it searched, and say so.

    The names of people where it may not see people; where it has no role at all, numbers from which the size of the
    gallery could be told.
    """
    candidates = tuple(
        each if each.gallery_id is None or caller.may(PEOPLE_SEERS, each.gallery_id) else _nameless(each)
        for each in enrolment.candidates
    )
    return _without_sizes(caller, replace(enrolment, candidates=candidates))


def _without_sizes(caller: Caller, enrolment: Enrolment) -> Enrolment:
    found = enrolment.searched
    others = [each.gallery_id for each in found.galleries if each.gallery_id != enrolment.gallery_id] if found else []
    hidden = [each for each in others if not caller.sees(each)]
    if found is None or not hidden:
        return enrolment
    galleries = tuple(
        replace(each, gallery_size=None, high_water_mark=None, miss_bound=None) if each.gallery_id in hidden else each
        for each in found.galleries
    )
    size = sum(each.gallery_size or 0 for each in galleries)
    return replace(
        enrolment,
        searched=replace(found, gallery_size=size, miss_bound=None, filter=None, galleries=galleries),
        thresholds=None,  # they follow from the comparisons of all galleries, and so do numbers in warnings
        warnings=(f"Warnings, thresholds and sizes are left out: you have no role in {', '.join(hidden)}.",),
    )


def _nameless(candidate: Candidate) -> Candidate:
    return replace(
        candidate, subject_id=None, encounter_id=None, reference_id=None, age_at_capture=None, years_between=None
    )
