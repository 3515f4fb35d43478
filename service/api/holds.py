"""Legal holds: what may not be erased, by whom that was said, and why."""

from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import Field

from service.api.bodies import OnlyJsonBody
from service.api.context import ServiceDep
from service.api.error_responses import responses
from service.api.guarded_route import GuardedRoute
from service.api.openapi_bodies import json_body
from service.api.parameters import GalleryPath, SubjectPath
from service.api.request_schemas import HoldIn
from service.api.sample_schemas import Out
from service.api.samples import read_json
from service.api.schemas import answer, scope_of
from service.audit_chain import AuditEvent, SeenSubject
from service.errors import GalleryNotFound, HoldNotFound, RequestTooLarge, SubjectNotFound, UnsupportedMediaType
from service.retention_rule import Hold

router = APIRouter(tags=["retention"], route_class=GuardedRoute)

_GALLERY = "/v1/galleries/{gallery_id}/hold"
_SUBJECT = "/v1/galleries/{gallery_id}/subjects/{subject_id}/hold"
_BODY = json_body(HoldIn, {"reason": "complaint 2026-17 is being looked into"})


class HoldOut(Out):
    """A legal hold: nothing of the subject, or of the whole gallery, is erased until it is lifted."""

    gallery_id: str
    scope: Literal["subject", "gallery"]
    subject_id: str | None = Field(description="null: the whole gallery.")
    set_by: str
    set_at: datetime

    @classmethod
    def of(cls, hold: Hold) -> "HoldOut":
        return cls(
            gallery_id=hold.gallery_id,
            scope=scope_of(hold),
            subject_id=hold.subject_id,
            set_by=hold.set_by,
            set_at=hold.set_at,
        )


class HoldWithReasonOut(HoldOut):
    reason: str | None = Field(
        description="null: it was forgotten when the hold was lifted, and a restored backup brought the hold back."
    )

    @classmethod
    def of(cls, hold: Hold) -> "HoldWithReasonOut":
        return cls(**HoldOut.of(hold).model_dump(), reason=hold.reason)


class HoldsOut(Out):
    items: list[HoldOut]


class NotHeldOut(Out):
    """That a hold was lifted; another may still be there."""

    lifted: Literal[True]
    still_held: bool = Field(description="Whether the whole gallery is under hold.")


@router.get(
    "/v1/galleries/{gallery_id}/holds",
    summary="List the legal holds of a gallery",
    response_model=HoldsOut,
    responses=responses(GalleryNotFound),
)
def list_holds(service: ServiceDep, gallery_id: GalleryPath) -> Response:
    """Return all holds, that on the whole gallery first, then by subject; without their reasons."""
    holds = service.holds.held(gallery_id)
    seen = [SeenSubject(each.subject_id) for each in holds if each.subject_id is not None]
    service.audit.listed(AuditEvent.SUBJECTS_LISTED, gallery_id, seen)
    return answer(HoldsOut(items=[HoldOut.of(each) for each in holds]))


@router.get(
    _GALLERY,
    summary="Read the legal hold on a gallery",
    response_model=HoldWithReasonOut,
    responses=responses(GalleryNotFound, HoldNotFound),
)
def read_gallery_hold(service: ServiceDep, gallery_id: GalleryPath) -> Response:
    """Return the hold on the whole gallery, with its reason."""
    return answer(HoldWithReasonOut.of(service.holds.hold(gallery_id, None)))


@router.put(
    _GALLERY,
    summary="Put a whole gallery under legal hold",
    response_model=HoldWithReasonOut,
    responses=responses(GalleryNotFound, RequestTooLarge, UnsupportedMediaType),
    openapi_extra=_BODY,
)
def hold_gallery(service: ServiceDep, gallery_id: GalleryPath, body: OnlyJsonBody) -> Response:
    """Let nothing in the gallery be erased; enrolments and searches go on. A hold that is there stays as it is."""
    return answer(HoldWithReasonOut.of(service.holds.place(gallery_id, None, read_json(body, HoldIn).reason)))


@router.delete(
    _GALLERY,
    summary="Lift the legal hold on a gallery",
    response_model=NotHeldOut,
    responses=responses(GalleryNotFound, HoldNotFound),
)
def lift_gallery_hold(service: ServiceDep, gallery_id: GalleryPath) -> Response:
    """Let erasures go on, but for subjects under a hold of their own. The reason is forgotten."""
    service.holds.lift(gallery_id, None)
    return answer(NotHeldOut(lifted=True, still_held=False))


@router.get(
    _SUBJECT,
    summary="Read the legal hold on a subject",
    response_model=HoldWithReasonOut,
    responses=responses(GalleryNotFound, HoldNotFound),
)
def read_subject_hold(service: ServiceDep, gallery_id: GalleryPath, subject_id: SubjectPath) -> Response:
    """Return the subject's own hold, with its reason."""
    hold = service.holds.hold(gallery_id, subject_id)
    service.audit.record(AuditEvent.SUBJECT_VIEWED, gallery_id, seen=[SeenSubject(subject_id)])
    return answer(HoldWithReasonOut.of(hold))


@router.put(
    _SUBJECT,
    summary="Put a subject under legal hold",
    response_model=HoldWithReasonOut,
    responses=responses(GalleryNotFound, SubjectNotFound, RequestTooLarge, UnsupportedMediaType),
    openapi_extra=_BODY,
)
def hold_subject(service: ServiceDep, gallery_id: GalleryPath, subject_id: SubjectPath, body: OnlyJsonBody) -> Response:
    """Let nothing of the subject be erased, by whatever way. A hold that is there stays as it is."""
    return answer(HoldWithReasonOut.of(service.holds.place(gallery_id, subject_id, read_json(body, HoldIn).reason)))


@router.delete(
    _SUBJECT,
    summary="Lift the legal hold on a subject",
    response_model=NotHeldOut,
    responses=responses(GalleryNotFound, HoldNotFound),
)
def lift_subject_hold(service: ServiceDep, gallery_id: GalleryPath, subject_id: SubjectPath) -> Response:
    """Let the subject be erased, unless the whole gallery is held. The reason is forgotten."""
    service.holds.lift(gallery_id, subject_id)
    return answer(NotHeldOut(lifted=True, still_held=service.holds.covering(gallery_id) is not None))
