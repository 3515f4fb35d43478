"""Kept samples, one at a time: whoever looks at a face is written down before it is shown."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from service.api.context import ServiceDep
from service.api.error_responses import responses
from service.api.guarded_route import GuardedRoute
from service.api.parameters import EncounterPath, GalleryPath
from service.audit_chain import AuditEvent, SeenSubject
from service.errors import EncounterNotFound, GalleryNotFound, SampleNotFound

router = APIRouter(tags=["encounters"], route_class=GuardedRoute)

PositionPath = Annotated[int, Path(ge=0, le=100, description="Which sample of the request, from 0.")]

_UNKNOWN = "application/octet-stream"
_BEGINNINGS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"\xff\x4f\xff\x51", "image/jp2"),
)
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@router.get(
    "/v1/galleries/{gallery_id}/encounters/{encounter_id}/samples/{position}",
    summary="See a kept sample",
    response_class=Response,
    responses={
        200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}},
        **responses(GalleryNotFound, EncounterNotFound, SampleNotFound),
    },
)
def read_sample(
    service: ServiceDep, gallery_id: GalleryPath, encounter_id: EncounterPath, position: PositionPath
) -> Response:
    """Return the image as it was sent, where the gallery keeps samples. Each view is an entry of the audit trail."""
    kept = service.store.kept_sample(gallery_id, encounter_id, position)
    seen = [SeenSubject(kept.subject_id, encounter_id=encounter_id)]
    # before a byte leaves: without its entry nobody sees it
    service.audit.record(AuditEvent.IMAGE_VIEWED, gallery_id, details={"position": position}, seen=seen)
    media_type = media_type_of(kept.image)
    headers = _HEADERS if media_type != _UNKNOWN else {**_HEADERS, "Content-Disposition": "attachment"}
    return Response(kept.image, media_type=media_type, headers=headers)


def media_type_of(image: bytes) -> str:
    """Return the type that the bytes themselves tell, of those that are accepted as samples; else octets."""
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "image/webp"
    return next((name for beginning, name in _BEGINNINGS if image.startswith(beginning)), _UNKNOWN)
