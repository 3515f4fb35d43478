"""Sharing agreements: who may search whose gallery, for what, until when, and what an answer tells (no I/O)."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from service.audit_chain import AuditEvent, Detail, NewEntry


class Disclosure(StrEnum):
    """What the answer to a partner's search tells."""

    HIT_OR_NO_HIT = "hit_or_no_hit"  # whether there is a candidate, nothing else
    CANDIDATE_REFERENCES = "candidate_references"  # the owner's subject ids, best first, without scores or facts
    FULL = "full"  # what an identification in the gallery itself answers


class AgreementState(StrEnum):
    NOT_BEGUN = "not_begun"
    ACTIVE = "active"
    ENDED = "ended"  # by its date, or before it by the owner


class UseOutcome(StrEnum):
    """What came of a partner's search."""

    HIT = "hit"
    NO_HIT = "no_hit"
    FAILED = "failed"  # nothing was answered, so that it does not count against the daily limit


@dataclass(frozen=True, slots=True)
class Terms:
    """What is agreed. The times are in UTC; `ends_at` itself is no longer within."""

    partner_id: str  # the client that may search
    purpose: str  # a code
    description: str | None
    disclosure: Disclosure
    starts_at: datetime
    ends_at: datetime
    searches_per_day: int  # of a day in UTC


@dataclass(frozen=True, slots=True)
class Agreement:
    """One agreement about one gallery. It is never changed, only ended."""

    agreement_id: str
    gallery_id: str
    terms: Terms
    created_by: str
    created_at: datetime
    ended_at: datetime | None = None
    ended_by: str | None = None

    def state(self, now: datetime) -> AgreementState:
        if now >= self.terms.ends_at or (self.ended_at is not None and now >= self.ended_at):
            return AgreementState.ENDED
        return AgreementState.ACTIVE if now >= self.terms.starts_at else AgreementState.NOT_BEGUN


@dataclass(frozen=True, slots=True)
class NewUse:
    """A search that a partner asks for."""

    agreement_id: str
    partner_id: str  # who asks: only the agreement's own partner is let in
    purpose: str | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class AgreementUse:
    """One search under an agreement, as both sides see it."""

    use_id: int  # from 1 in each agreement
    agreement_id: str
    used_by: str
    used_at: datetime
    purpose: str | None
    request_id: str | None
    outcome: UseOutcome | None = None  # None: under way, or cut off by a crash; it counts against the limit
    complete: bool | None = None
    error_code: str | None = None


@dataclass(frozen=True, slots=True)
class UseResult:
    """What came of a use, written before the answer is given."""

    outcome: UseOutcome
    complete: bool | None = None
    error_code: str | None = None


def day_of(now: datetime) -> tuple[datetime, datetime]:
    """Return the beginning and the end of the day in UTC."""
    start = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return start, start + timedelta(days=1)


def made_entry(agreement: Agreement) -> NewEntry:
    """Return what the audit trail says of an agreement that was made: no words, which may hold anything."""
    terms = agreement.terms
    details = {
        "agreement_id": agreement.agreement_id,
        "partner_id": terms.partner_id,
        "purpose": terms.purpose,
        "disclosure": terms.disclosure.value,
        "starts_at": terms.starts_at.isoformat(),
        "ends_at": terms.ends_at.isoformat(),
        "searches_per_day": terms.searches_per_day,
    }
    return NewEntry(AuditEvent.AGREEMENT_MADE, details=details)


def ended_entry(agreement: Agreement) -> NewEntry:
    return NewEntry(AuditEvent.AGREEMENT_ENDED, details={"agreement_id": agreement.agreement_id})


def used_entry(gallery_id: str, use_id: int, result: UseResult) -> NewEntry:
    """Return what both sides' trails say of a partner's search: the hit, and nothing more of what was found."""
    details: dict[str, Detail] = {
        "gallery_id": gallery_id,
        "use_id": use_id,
        "complete": result.complete,
        "error_code": result.error_code,
    }
    return NewEntry(AuditEvent.AGREEMENT_USED, result.outcome.value, details)
