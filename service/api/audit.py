"""The audit trail: read, exported and verified; of each gallery, and of the service itself."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from service.api.bodies import OnlyJsonBody
from service.api.context import ServiceDep
from service.api.error_responses import responses
from service.api.guarded_route import GuardedRoute
from service.api.openapi_bodies import json_body
from service.api.parameters import DEFAULT_LIMIT, MAX_ROW_NUMBER, AfterNumber, GalleryPath, Limit
from service.api.sample_schemas import Out
from service.api.samples import read_json
from service.api.schemas import PageOut, answer
from service.audit_chain import AuditEntry, AuditEvent
from service.audit_check import ORIGIN, ChainPoint, FaultKind
from service.auditing import Format, Verification
from service.errors import AuditChainBroken, GalleryNotFound, InvalidRequest, RequestTooLarge, UnsupportedMediaType

router = APIRouter(tags=["audit"], route_class=GuardedRoute)

MAX_ANCHORS = 1000  # the last one covers all entries before it: more only tell the place more exactly
_HASH_PATTERN = r"^[0-9a-f]{64}$"
_MEDIA_TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
_EXPORTED: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}, "text/csv": {"schema": {"type": "string"}}}
    }
}
_VERIFIED = responses(GalleryNotFound, AuditChainBroken, RequestTooLarge, UnsupportedMediaType)

EventFilter = Annotated[AuditEvent | None, Query(description="Only entries of this event.")]
FormatQuery = Annotated[
    Format, Query(alias="format", description="`jsonl` can be verified; `csv` is for people and spreadsheets.")
]
_Hash = Annotated[str, Field(pattern=_HASH_PATTERN)]


class AuditEntryOut(Out):
    """What was done, by whom, what for. Entries are never changed and hold nothing personal in clear."""

    chain: str = Field(description="The gallery, or `:service`.")
    seq: int = Field(description="From 1, without gaps.")
    created_at: datetime
    event: AuditEvent | str = Field(description="docs/audit.md describes each.")
    outcome: str | None
    client_id: str
    purpose: str | None
    agreement_id: str | None
    request_id: str | None
    details: dict[str, Any]
    people: int = Field(description="How many subjects it refers to, each encrypted under that subject's key.")
    hash: str

    @classmethod
    def of(cls, entry: AuditEntry) -> "AuditEntryOut":
        return cls(
            chain=entry.chain,
            seq=entry.seq,
            created_at=entry.created_at,
            event=entry.event,
            outcome=entry.outcome,
            client_id=entry.client_id,
            purpose=entry.purpose,
            agreement_id=entry.agreement_id,
            request_id=entry.request_id,
            details=entry.details,
            people=len(entry.references),
            hash=entry.hash.hex(),
        )


class AuditOut(PageOut[AuditEntryOut]):
    pass


class AuditVerificationIn(BaseModel):
    """From where to verify, and what is known from elsewhere."""

    model_config = ConfigDict(extra="forbid")

    after_seq: int = Field(0, ge=0, le=MAX_ROW_NUMBER, description="The last entry that was verified before.")
    after_hash: _Hash | None = Field(None, description="Its hash; needed where `after_seq` is above 0.")
    anchors: dict[Annotated[str, Field(pattern=r"^[1-9][0-9]{0,17}$")], _Hash] = Field(
        default_factory=dict, description="Hashes by number, from an anchor file or a log.", max_length=MAX_ANCHORS
    )


class AuditVerificationOut(Out):
    """How far a chain was verified, and the first fault."""

    chain: str
    result: FaultKind | str = Field(description="`whole`, or what was done to the chain.")
    fault_seq: int | None = Field(description="The first entry that is not as it was written, or is not there.")
    reached_seq: int = Field(description="Up to here everything is right; `rewritten`: as far as an anchor says so.")
    reached_hash: str
    head_seq: int = Field(description="How many entries the chain had when the verification began.")
    anchors_met: int
    is_finished: bool = Field(description="false: ask again, with `after_seq` and `after_hash` as reached.")

    @classmethod
    def of(cls, chain: str, found: Verification) -> "AuditVerificationOut":
        fault = found.report.fault
        return cls(
            chain=chain,
            result="whole" if fault is None else fault.kind,
            fault_seq=None if fault is None else fault.seq,
            reached_seq=found.report.reached.seq,
            reached_hash=found.report.reached.hash.hex(),
            head_seq=found.head.seq,
            anchors_met=found.report.anchors_met,
            is_finished=found.is_finished,
        )


@router.get(
    "/v1/galleries/{gallery_id}/audit",
    summary="Read the audit trail of a gallery",
    response_model=AuditOut,
    responses=responses(GalleryNotFound),
)
def read_audit(
    service: ServiceDep,
    gallery_id: GalleryPath,
    event: EventFilter = None,
    after: AfterNumber = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Response:
    """Return who did what, when and what for, oldest first. That it was read becomes an entry."""
    return _page(service, gallery_id, event, after, limit)


@router.get("/v1/audit", summary="Read the audit trail of the service", response_model=AuditOut, responses=responses())
def read_service_audit(
    service: ServiceDep, event: EventFilter = None, after: AfterNumber = None, limit: Limit = DEFAULT_LIMIT
) -> Response:
    """Return what was done to what belongs to no gallery: clients, keys, agreements."""
    return _page(service, None, event, after, limit)


@router.get(
    "/v1/galleries/{gallery_id}/audit/export",
    summary="Export the audit trail of a gallery",
    response_class=StreamingResponse,
    responses={**_EXPORTED, **responses(GalleryNotFound, AuditChainBroken)},
)
def export_audit(service: ServiceDep, gallery_id: GalleryPath, form: FormatQuery = "jsonl") -> Response:
    """Return the whole chain, a line an entry. That it was exported becomes an entry, the next after those."""
    return _export(service, gallery_id, form)


@router.get(
    "/v1/audit/export",
    summary="Export the audit trail of the service",
    response_class=StreamingResponse,
    responses={**_EXPORTED, **responses(AuditChainBroken)},
)
def export_service_audit(service: ServiceDep, form: FormatQuery = "jsonl") -> Response:
    """Return the whole chain of what belongs to no gallery."""
    return _export(service, None, form)


@router.post(
    "/v1/galleries/{gallery_id}/audit/verifications",
    summary="Verify the audit trail of a gallery",
    response_model=AuditVerificationOut,
    responses=_VERIFIED,
    openapi_extra=json_body(AuditVerificationIn, {}),
)
def verify_audit(service: ServiceDep, gallery_id: GalleryPath, body: OnlyJsonBody) -> Response:
    """Compute the chain anew, 50,000 entries at a time, and name the first that was changed, removed or added."""
    return _verify(service, gallery_id, body)


@router.post(
    "/v1/audit/verifications",
    summary="Verify the audit trail of the service",
    response_model=AuditVerificationOut,
    responses=_VERIFIED,
    openapi_extra=json_body(AuditVerificationIn, {}),
)
def verify_service_audit(service: ServiceDep, body: OnlyJsonBody) -> Response:
    """Compute the chain of what belongs to no gallery anew."""
    return _verify(service, None, body)


def _page(
    service: ServiceDep, gallery_id: str | None, event: AuditEvent | None, after: str | None, limit: int
) -> Response:
    page = service.audit.page(gallery_id, after, limit, event)
    return answer(AuditOut(items=[AuditEntryOut.of(item) for item in page.items], next_after=page.next_after))


def _export(service: ServiceDep, gallery_id: str | None, form: Format) -> Response:
    name = f"audit-{gallery_id or 'service'}.{form}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingResponse(service.audit.export(gallery_id, form), media_type=_MEDIA_TYPES[form], headers=headers)


def _verify(service: ServiceDep, gallery_id: str | None, body: OnlyJsonBody) -> Response:
    wanted = read_json(body, AuditVerificationIn)
    if (wanted.after_seq > 0) is not (wanted.after_hash is not None):
        raise InvalidRequest("after_hash: the hash of the entry `after_seq`, and none where that is 0")
    start = ORIGIN if wanted.after_hash is None else ChainPoint(wanted.after_seq, bytes.fromhex(wanted.after_hash))
    anchors = {int(seq): bytes.fromhex(each) for seq, each in wanted.anchors.items()}
    found = service.audit.verify(gallery_id, start, anchors)
    return answer(AuditVerificationOut.of(gallery_id or ":service", found))
