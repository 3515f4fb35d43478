"""Sweeps: the comparison of a whole gallery with itself or with another, as a job."""

from fastapi import APIRouter, Response

from service.api.access import SWEEPERS, require
from service.api.bodies import OnlyJsonBody
from service.api.case_schemas import SweepOut, SweepPlanOut, SweepsOut
from service.api.context import ServiceDep
from service.api.error_responses import responses
from service.api.guarded_route import CallerDep, GuardedRoute
from service.api.openapi_bodies import json_body
from service.api.parameters import DEFAULT_LIMIT, AfterNumber, GalleryPath, Limit, SweepPath
from service.api.request_schemas import SweepIn
from service.api.samples import read_json
from service.api.schemas import answer
from service.domain import JobState
from service.errors import (
    GalleriesNotComparable,
    GalleryNotFound,
    IndexUnavailable,
    PackMismatch,
    PackNotLoaded,
    RequestTooLarge,
    SweepNotFound,
    SweepUnderway,
    UnsupportedMediaType,
)

router = APIRouter(tags=["sweeps"], route_class=GuardedRoute)

_PLANNED = {"model": SweepPlanOut, "description": "The plan that was asked for with `dry_run`; nothing was begun."}
_OUTCOMES = responses(
    GalleryNotFound,
    SweepUnderway,
    GalleriesNotComparable,
    PackNotLoaded,
    PackMismatch,
    IndexUnavailable,
    RequestTooLarge,
    UnsupportedMediaType,
)


@router.post(
    "/v1/galleries/{gallery_id}/sweeps",
    status_code=201,
    summary="Find the duplicates of the past",
    response_model=SweepOut,
    responses={200: _PLANNED, **_OUTCOMES},
    openapi_extra=json_body(SweepIn, {"allowed_false_pairs": 10, "dry_run": False}),
)
def start_sweep(service: ServiceDep, caller: CallerDep, gallery_id: GalleryPath, body: OnlyJsonBody) -> Response:
    """Compare every template of the gallery with every other, or with those of another gallery, in the background.

    The other gallery needs the same model pack, and templates of the same model. The cases belong to this gallery.

    The threshold follows from the number of pairs of different people that may be taken for one person. A case is
    opened for each pair of subjects at or above it that has none yet.
    """
    wanted = read_json(body, SweepIn)
    if wanted.other_gallery_id is not None:
        require(caller, SWEEPERS, wanted.other_gallery_id)
    asked = gallery_id, wanted.allowed_false_pairs, wanted.other_gallery_id
    if wanted.dry_run:
        return answer(SweepPlanOut.model_validate(service.sweeps.plan(*asked)))
    return answer(SweepOut.of(service.sweeps.start(*asked)), 201)


@router.get(
    "/v1/galleries/{gallery_id}/sweeps",
    summary="List sweeps",
    response_model=SweepsOut,
    responses=responses(GalleryNotFound),
)
def list_sweeps(
    service: ServiceDep, gallery_id: GalleryPath, after: AfterNumber = None, limit: Limit = DEFAULT_LIMIT
) -> Response:
    """Return sweeps in the order of their numbers."""
    page = service.sweeps.sweeps(gallery_id, after, limit)
    return answer(SweepsOut(items=[SweepOut.of(item) for item in page.items], next_after=page.next_after))


@router.get(
    "/v1/galleries/{gallery_id}/sweeps/{job_id}",
    summary="Read one sweep",
    response_model=SweepOut,
    responses=responses(GalleryNotFound, SweepNotFound),
)
def read_sweep(service: ServiceDep, gallery_id: GalleryPath, job_id: SweepPath) -> Response:
    """Return how far a sweep is and what it found."""
    return answer(SweepOut.of(service.sweeps.sweep(gallery_id, job_id)))


@router.post(
    "/v1/galleries/{gallery_id}/sweeps/{job_id}/cancellation",
    summary="Cancel a sweep",
    response_model=SweepOut,
    responses=responses(GalleryNotFound, SweepNotFound),
)
def cancel_sweep(service: ServiceDep, gallery_id: GalleryPath, job_id: SweepPath) -> Response:
    """Stop a sweep for good; the cases it opened stay. One that ended already stays as it is."""
    sweep = service.sweeps.sweep(gallery_id, job_id)
    return answer(SweepOut.of(service.sweeps.end(sweep, JobState.CANCELLED)))
