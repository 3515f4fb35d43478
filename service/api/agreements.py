"""Sharing agreements: a partner agency searches a gallery, and both sides see that it did."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.concurrency import run_in_threadpool

from service.agreements import PartnerSearch
from service.api.agreement_schemas import (
    AgreementIn,
    AgreementOut,
    AgreementsOut,
    AgreementUseOut,
    AgreementUsesOut,
    OwnAgreementOut,
    OwnAgreementsOut,
    PartnerAnswerOut,
    partner_answer,
)
from service.api.bodies import AnyBody, OnlyJsonBody
from service.api.context import ServiceDep
from service.api.error_responses import SAMPLE_ERRORS, responses
from service.api.guarded_route import CallerDep, GuardedRoute
from service.api.openapi_bodies import IDENTIFICATION_BODY, json_body
from service.api.parameters import DEFAULT_LIMIT, RECORD_ID_PATTERN, AfterId, AfterNumber, GalleryPath, Limit
from service.api.samples import identification_request, read_json
from service.api.schemas import answer
from service.errors import (
    AgreementLimitReached,
    AgreementNotFound,
    GalleryNotFound,
    IndexUnavailable,
    PackNotLoaded,
    PurposeNotAgreed,
    RequestTooLarge,
    UnsupportedMediaType,
)

router = APIRouter(tags=["agreements"], route_class=GuardedRoute)

AgreementPath = Annotated[str, Path(pattern=RECORD_ID_PATTERN, max_length=128)]

_SEARCH_ERRORS = [error for error in SAMPLE_ERRORS if error not in {GalleryNotFound, PackNotLoaded}]
_EXAMPLE = {
    "partner_id": "client:partner-agency",
    "purpose": "double-registration",
    "disclosure": "hit_or_no_hit",
    "ends_at": "2026-12-31T00:00:00Z",
    "searches_per_day": 50,
}


@router.post(
    "/v1/galleries/{gallery_id}/agreements",
    status_code=201,
    summary="Let a partner search a gallery",
    response_model=OwnAgreementOut,
    responses=responses(GalleryNotFound, RequestTooLarge, UnsupportedMediaType),
    openapi_extra=json_body(AgreementIn, _EXAMPLE),
)
def make_agreement(service: ServiceDep, gallery_id: GalleryPath, body: OnlyJsonBody) -> Response:
    """Make an agreement. It is never changed: end it and make another."""
    now = service.agreements.now()
    made = service.agreements.make(gallery_id, read_json(body, AgreementIn).terms(now))
    return answer(OwnAgreementOut.of(made, now), 201)


@router.get(
    "/v1/galleries/{gallery_id}/agreements",
    summary="List who may search a gallery",
    response_model=OwnAgreementsOut,
    responses=responses(GalleryNotFound),
)
def list_gallery_agreements(
    service: ServiceDep,
    gallery_id: GalleryPath,
    *,
    after: AfterId = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Response:
    """Return the agreements about a gallery, those to come and those that ended too."""
    page, now = service.agreements.of_gallery(gallery_id, after, limit), service.agreements.now()
    items = [OwnAgreementOut.of(item, now) for item in page.items]
    return answer(OwnAgreementsOut(items=items, next_after=page.next_after))


@router.post(
    "/v1/galleries/{gallery_id}/agreements/{agreement_id}/end",
    summary="End an agreement before its date",
    response_model=OwnAgreementOut,
    responses=responses(GalleryNotFound, AgreementNotFound),
)
def end_agreement(service: ServiceDep, gallery_id: GalleryPath, agreement_id: AgreementPath) -> Response:
    """End it from this moment on; one that ended already stays as it is."""
    ended = service.agreements.end(gallery_id, agreement_id)
    return answer(OwnAgreementOut.of(ended, service.agreements.now()))


@router.get(
    "/v1/galleries/{gallery_id}/agreements/{agreement_id}/uses",
    summary="List a partner's searches of a gallery",
    response_model=AgreementUsesOut,
    responses=responses(GalleryNotFound, AgreementNotFound),
)
def list_gallery_uses(
    service: ServiceDep,
    gallery_id: GalleryPath,
    agreement_id: AgreementPath,
    *,
    after: AfterNumber = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Response:
    """Return every search under an agreement, oldest first, as its partner sees it too."""
    page = service.agreements.uses(agreement_id, after, limit, gallery_id=gallery_id)
    return answer(AgreementUsesOut(items=[AgreementUseOut.of(use) for use in page.items], next_after=page.next_after))


@router.get(
    "/v1/agreements", summary="List the agreements of the caller", response_model=AgreementsOut, responses=responses()
)
def list_own_agreements(
    service: ServiceDep, caller: CallerDep, *, after: AfterId = None, limit: Limit = DEFAULT_LIMIT
) -> Response:
    """Return the agreements under which the caller may search, or might have, or will."""
    page, now = service.agreements.of_partner(caller.client_id, after, limit), service.agreements.now()
    items = [AgreementOut.of(item, now) for item in page.items]
    return answer(AgreementsOut(items=items, next_after=page.next_after))


@router.get(
    "/v1/agreements/{agreement_id}/uses",
    summary="List the caller's own searches under an agreement",
    response_model=AgreementUsesOut,
    responses=responses(AgreementNotFound),
)
def list_own_uses(
    service: ServiceDep,
    caller: CallerDep,
    agreement_id: AgreementPath,
    *,
    after: AfterNumber = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Response:
    """Return them oldest first, also of an agreement that ended."""
    page = service.agreements.uses(agreement_id, after, limit, partner_id=caller.client_id)
    return answer(AgreementUsesOut(items=[AgreementUseOut.of(use) for use in page.items], next_after=page.next_after))


@router.post(
    "/v1/agreements/{agreement_id}/identifications",
    summary="Search another agency's gallery for the person in one sample",
    response_model=PartnerAnswerOut,
    responses=responses(*_SEARCH_ERRORS, AgreementNotFound, PurposeNotAgreed, AgreementLimitReached, IndexUnavailable),
    openapi_extra=IDENTIFICATION_BODY,
)
async def search_as_partner(
    service: ServiceDep, caller: CallerDep, agreement_id: AgreementPath, body: AnyBody
) -> Response:
    """Identification only: nobody is enrolled and nothing is kept of the sample; both sides see that it was searched.

    The agreement says what the answer tells. One that is not the caller's, has not begun or has ended is not found.
    """
    agreements = service.agreements

    def search() -> PartnerSearch:
        return agreements.search(agreement_id, caller, *identification_request(body))

    done = await run_in_threadpool(search)
    await asyncio.sleep(agreements.wait_s(done))  # here and not in a thread: those who wait must not stop enrolments
    return answer(partner_answer(await run_in_threadpool(agreements.tell, done)))
