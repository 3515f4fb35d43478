"""Migrations: the change of a gallery's model pack, without enrolling anybody again."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from service.api.bodies import OnlyJsonBody
from service.api.context import ServiceDep
from service.api.error_responses import responses
from service.api.guarded_route import GuardedRoute
from service.api.migration_schemas import MigrationOut, MissingSubjectOut, MissingSubjectsOut, PackComparisonOut
from service.api.openapi_bodies import json_body
from service.api.parameters import DEFAULT_LIMIT, AfterId, GalleryPath, Limit
from service.api.request_schemas import MigrationIn, SwapIn
from service.api.samples import read_json
from service.api.schemas import answer
from service.audit_chain import AuditEvent, SeenSubject
from service.errors import (
    GalleryNotFound,
    IndexUnavailable,
    InvalidRequest,
    MigrationNotFound,
    MigrationNotReady,
    MigrationUnderway,
    PackMismatch,
    PackNotLoaded,
    PeopleWouldBeMissed,
    RequestTooLarge,
    SweepUnderway,
    UnsupportedMediaType,
)

router = APIRouter(tags=["migration"], route_class=GuardedRoute)

_PATH = "/v1/galleries/{gallery_id}/migration"
_BODY = (RequestTooLarge, UnsupportedMediaType)
_KNOWN = (GalleryNotFound, MigrationNotFound)
_SWAP = (*_KNOWN, MigrationNotReady, PeopleWouldBeMissed, SweepUnderway, PackNotLoaded, PackMismatch, IndexUnavailable)
_END = (*_KNOWN, MigrationNotReady, PeopleWouldBeMissed)

PackFilter = Annotated[
    str | None,
    Query(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=64,
        description="Who has no template of this pack; without it, of the new one.",
    ),
]


@router.post(
    _PATH,
    status_code=201,
    summary="Begin to change a gallery's model pack",
    response_model=MigrationOut,
    responses=responses(GalleryNotFound, MigrationUnderway, *_BODY),
    openapi_extra=json_body(MigrationIn, {"to_pack_id": "buffalo_s"}),
)
def begin_migration(service: ServiceDep, gallery_id: GalleryPath, body: OnlyJsonBody) -> Response:
    """Make templates of another pack from the kept samples, in the background; the old pack goes on ruling.

    From now on every enrolment is written to both packs and compared in both, until the migration is finished or
    cancelled.
    """
    to_pack_id = read_json(body, MigrationIn).to_pack_id
    loaded = service.packs.loaded()
    if to_pack_id not in loaded:
        # for a gallery that has it this is a fault of the process (503); here it is one of the request
        raise InvalidRequest(
            f"to_pack_id: this pack is not loaded, loaded are {', '.join(loaded)}; fetch it, name it in "
            "BIODEDUP_EXTRA_PACKS and start the service again"
        )
    service.migrations.begin(gallery_id, to_pack_id)
    return answer(MigrationOut.of(service.migrations.report(gallery_id)), 201)


@router.get(_PATH, summary="Read the migration", response_model=MigrationOut, responses=responses(*_KNOWN))
def read_migration(service: ServiceDep, gallery_id: GalleryPath) -> Response:
    """Return how far the last migration of the gallery is, and how many people it cannot bring along."""
    return answer(MigrationOut.of(service.migrations.report(gallery_id)))


@router.get(
    f"{_PATH}/comparison",
    summary="Compare both packs on the gallery's own people",
    response_model=PackComparisonOut,
    responses=responses(*_KNOWN, MigrationNotReady, PackNotLoaded),
)
def compare_packs(service: ServiceDep, gallery_id: GalleryPath) -> Response:
    """Return how often each pack misses a person and how often it takes two for one, with 95 % intervals.

    Mated pairs are several encounters of one subject whose continuity was accepted, and of subjects that were
    decided to be one person. Non-mated pairs are of different subjects: undecided duplicates are among them.
    """
    return answer(PackComparisonOut.model_validate(service.migrations.comparison(gallery_id)))


@router.get(
    f"{_PATH}/missing",
    summary="List who must be captured again",
    response_model=MissingSubjectsOut,
    responses=responses(*_KNOWN, MigrationNotReady),
)
def list_missing(
    service: ServiceDep,
    gallery_id: GalleryPath,
    pack_id: PackFilter = None,
    after: AfterId = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Response:
    """Return the subjects whom the new pack would not find, in the order of their ids."""
    page = service.migrations.missing(gallery_id, pack_id, after, limit)
    seen = [SeenSubject(item.subject_id) for item in page.items]
    service.audit.listed(AuditEvent.MISSING_LISTED, gallery_id, seen)
    items = [MissingSubjectOut.of(item) for item in page.items]
    return answer(MissingSubjectsOut(items=items, next_after=page.next_after))


@router.post(
    f"{_PATH}/cut-over",
    summary="Let the new pack rule",
    response_model=MigrationOut,
    responses=responses(*_SWAP, *_BODY),
    openapi_extra=json_body(SwapIn, {"accepted_missing": 0}),
)
def cut_over(service: ServiceDep, gallery_id: GalleryPath, body: OnlyJsonBody) -> Response:
    """Answer by the new pack from one moment to the next. People without a template of it stay searched in the old one.

    Their number must be named, so that nobody is left behind unnoticed.
    """
    service.migrations.cut_over(gallery_id, read_json(body, SwapIn).accepted_missing)
    return answer(MigrationOut.of(service.migrations.report(gallery_id)))


@router.post(
    f"{_PATH}/back",
    summary="Let the old pack rule again",
    response_model=MigrationOut,
    responses=responses(*_SWAP, *_BODY),
    openapi_extra=json_body(SwapIn, {"accepted_missing": 0}),
)
def go_back(service: ServiceDep, gallery_id: GalleryPath, body: OnlyJsonBody) -> Response:
    """Answer by the old pack again, from one moment to the next; nobody who was enrolled meanwhile is lost."""
    service.migrations.back(gallery_id, read_json(body, SwapIn).accepted_missing)
    return answer(MigrationOut.of(service.migrations.report(gallery_id)))


@router.post(f"{_PATH}/finish", summary="Give up the old pack", response_model=MigrationOut, responses=responses(*_END))
def finish(service: ServiceDep, gallery_id: GalleryPath) -> Response:
    """Delete the old pack's templates, its index and its files: there is no way back. Refused while it is needed."""
    service.migrations.finish(gallery_id)
    return answer(MigrationOut.of(service.migrations.report(gallery_id)))


@router.post(
    f"{_PATH}/cancellation", summary="Give up the new pack", response_model=MigrationOut, responses=responses(*_END)
)
def cancel(service: ServiceDep, gallery_id: GalleryPath) -> Response:
    """Delete the new pack's templates, its index and its files; the old pack goes on ruling."""
    service.migrations.cancel(gallery_id)
    return answer(MigrationOut.of(service.migrations.report(gallery_id)))
