"""The index of a gallery, for those who run the service: what it is, whether it is right, making it anew."""

from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.context import ServiceDep
from service.api.error_responses import responses
from service.api.guarded_route import GuardedRoute
from service.api.parameters import GalleryPath
from service.api.schemas import answer
from service.audit_chain import AuditEvent
from service.errors import GalleryNotFound, IndexUnavailable, PackMismatch, PackNotLoaded
from service.index_care import IndexStatus

router = APIRouter(tags=["index"], route_class=GuardedRoute)

_ERRORS = responses(GalleryNotFound, IndexUnavailable, PackMismatch, PackNotLoaded)


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True, frozen=True)


class IndexPartOut(_Out):
    """A part of an index: one that takes new templates, one that waits to be sealed, or a sealed one."""

    state: Literal["open", "sealing", "sealed"]
    templates: int
    removed: int = Field(description="Templates that were taken out and whose place is not yet given back.")
    ram_bytes: int
    disk_bytes: int = Field(description="0: this part is not kept on disk.")
    file_name: str | None


class IndexOut(_Out):
    """A gallery's index beside its record, both at one moment."""

    gallery_id: str
    pack_id: str
    high_water_mark: int = Field(description="The last change that the index has applied.")
    last_seq: int = Field(description="The last change of the record.")
    index_templates: int
    record_templates: int
    in_step: bool
    miss_bound: float = Field(
        description="Upper 95 % bound on the share of pairs at or above a threshold that a search misses, 0 to 1."
    )
    ram_bytes: int
    disk_bytes: int
    parts: list[IndexPartOut]
    standby: "IndexOut | None" = Field(
        description="While the gallery changes its model: the index of the pack that does not rule."
    )

    @classmethod
    def of(cls, gallery_id: str, statuses: Sequence[IndexStatus]) -> "IndexOut":
        """`statuses`: of the ruling pack, then of one that stands by."""
        status, *others = statuses
        state = status.state
        return cls(
            gallery_id=gallery_id,
            pack_id=status.pack_id,
            standby=cls.of(gallery_id, others) if others else None,
            high_water_mark=state.high_water_mark,
            last_seq=state.last_seq,
            index_templates=state.index_templates,
            record_templates=state.record_templates,
            in_step=state.in_step,
            miss_bound=status.miss_bound,
            ram_bytes=sum(part.ram_bytes for part in status.parts),
            disk_bytes=sum(part.disk_bytes for part in status.parts),
            parts=[IndexPartOut.model_validate(part) for part in status.parts],
        )


class IndexVerificationOut(_Out):
    """What the comparison of an index with its record found."""

    gallery_id: str
    result: Literal["ok", "different"]
    compared: int = Field(description="Templates of the record.")
    missing: int = Field(description="In the record, not in the index.")
    surplus: int = Field(description="In the index, not in the record, or there twice.")
    different: int = Field(description="In both, with other bytes.")
    in_step: bool = Field(description="Whether index and record stood at the same change all the time.")


@router.get(
    "/v1/galleries/{gallery_id}/index", summary="Show a gallery's index", response_model=IndexOut, responses=_ERRORS
)
def read_index(service: ServiceDep, gallery_id: GalleryPath) -> Response:
    """Return what the index holds, in memory and on disk, beside the record."""
    return answer(IndexOut.of(gallery_id, service.index_care.status(gallery_id)))


@router.post(
    "/v1/galleries/{gallery_id}/index/verifications",
    summary="Compare an index with the record, template by template",
    response_model=IndexVerificationOut,
    responses=_ERRORS,
)
def verify_index(service: ServiceDep, gallery_id: GalleryPath) -> Response:
    """Compare every template byte for byte; answers when done, about ten seconds a million templates or more.

    Searches go on; enrolments wait for one block of some thousand templates at most. An index that differs is thrown
    away, and the next search fills it from the record.
    """
    found = service.index_care.verify(gallery_id)
    outcome = "ok" if found.is_same else "different"
    service.audit.record(AuditEvent.INDEX_VERIFIED, gallery_id, outcome=outcome, details={"templates": found.compared})
    return answer(
        IndexVerificationOut(
            gallery_id=gallery_id,
            result="ok" if found.is_same else "different",
            compared=found.compared,
            missing=found.missing,
            surplus=found.surplus,
            different=found.different,
            in_step=found.in_step,
        )
    )


@router.post(
    "/v1/galleries/{gallery_id}/index/rebuilds",
    summary="Fill an index from the record again",
    response_model=IndexOut,
    responses=_ERRORS,
)
def rebuild_index(service: ServiceDep, gallery_id: GalleryPath) -> Response:
    """Throw the index and its files away and fill it from the record; answers when done.

    Requests to this gallery wait until it is filled: seconds for 100,000 templates, minutes for millions.
    """
    found = service.index_care.rebuild(gallery_id)
    service.audit.record(AuditEvent.INDEX_REBUILT, gallery_id)
    return answer(IndexOut.of(gallery_id, found))


@router.post(
    "/v1/galleries/{gallery_id}/index/compactions",
    summary="Leave nothing of erased templates in an index",
    response_model=IndexOut,
    responses=_ERRORS,
)
def compact_index(service: ServiceDep, gallery_id: GalleryPath) -> Response:
    """Make every segment from which a template was removed anew, in memory and on disk; answers when done.

    An erased template is in no answer from the moment of its erasure on, and overwritten in memory at once but for a
    coarse code; this, and what the encrypted files hold of it, go with the compaction. Searches and enrolments go on
    meanwhile.
    """
    found = service.index_care.compact(gallery_id)
    service.audit.record(AuditEvent.INDEX_COMPACTED, gallery_id)
    return answer(IndexOut.of(gallery_id, found))
