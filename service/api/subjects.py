"""Subjects: the people of a gallery, by the caller's identifiers."""

from fastapi import APIRouter, Response

from service.api.context import ServiceDep
from service.api.error_responses import responses
from service.api.guarded_route import CallerDep, GuardedRoute
from service.api.parameters import DEFAULT_LIMIT, AfterId, GalleryPath, IdempotencyKey, Limit, SubjectPath, own_name
from service.api.receipts import ReceiptOut
from service.api.schemas import HeldOut, OneSubjectOut, SubjectOut, SubjectsOut, answer
from service.audit_chain import AuditEvent, SeenSubject
from service.domain import EncounterStatus
from service.errors import (
    GalleryNotFound,
    IdempotencyKeyReused,
    LegalHold,
    MasterKeyUnusable,
    SubjectNotFound,
    VarUnusable,
)

router = APIRouter(tags=["subjects"], route_class=GuardedRoute)


@router.get(
    "/v1/galleries/{gallery_id}/subjects",
    summary="List subjects",
    response_model=SubjectsOut,
    responses=responses(GalleryNotFound),
)
def list_subjects(
    service: ServiceDep, gallery_id: GalleryPath, after: AfterId = None, limit: Limit = DEFAULT_LIMIT
) -> Response:
    """Return subjects in the order of their ids."""
    page = service.store.subjects(gallery_id, after, limit)
    seen = [SeenSubject(item.subject_id) for item in page.items]
    service.audit.listed(AuditEvent.SUBJECTS_LISTED, gallery_id, seen)
    items = [SubjectOut.model_validate(item) for item in page.items]
    return answer(SubjectsOut(items=items, next_after=page.next_after))


@router.get(
    "/v1/galleries/{gallery_id}/subjects/{subject_id}",
    summary="Read one subject",
    response_model=OneSubjectOut,
    responses=responses(GalleryNotFound, SubjectNotFound),
)
def read_subject(service: ServiceDep, gallery_id: GalleryPath, subject_id: SubjectPath) -> Response:
    """Return a subject with its encounters in the order of enrolment, and when it is to be captured anew."""
    subject = service.store.subject(gallery_id, subject_id)
    seen = service.store.encounters(gallery_id, subject_id, None, max(1, len(subject.encounter_ids))).items
    service.audit.record(AuditEvent.SUBJECT_VIEWED, gallery_id, seen=[SeenSubject(subject_id)])
    due = service.recapture.newest_due([each.facts for each in seen if each.status is EncounterStatus.ACTIVE])
    held = HeldOut.of(service.holds.covering(gallery_id, subject_id))
    found = SubjectOut.model_validate(subject).model_dump()
    return answer(OneSubjectOut(**found, recapture_due=due, legal_hold=held))


@router.delete(
    "/v1/galleries/{gallery_id}/subjects/{subject_id}",
    summary="Erase a subject",
    response_model=ReceiptOut,
    responses=responses(
        GalleryNotFound, SubjectNotFound, IdempotencyKeyReused, LegalHold, MasterKeyUnusable, VarUnusable
    ),
)
def erase_subject(
    service: ServiceDep,
    caller: CallerDep,
    gallery_id: GalleryPath,
    subject_id: SubjectPath,
    idempotency_key: IdempotencyKey,
) -> Response:
    """Erase all that is held of a subject: encounters, samples, templates, the data key. It cannot be undone.

    The answer is a signed receipt; keep its bytes as they are. The service keeps nothing from which it follows: with an
    Idempotency-Key of random letters a repeat gets it again, however late; without one it finds no such subject.
    """
    erased = service.erasure.erase_subject(gallery_id, subject_id, own_name(caller, idempotency_key))
    return Response(erased.receipt, media_type="application/json")
