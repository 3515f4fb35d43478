"""An entry of the audit trail and what its hash covers; docs/audit.md says it for those who verify without this."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, Self

FORMAT = b"biodedup audit entry 1"
"""The first field that is hashed: another format will have another name, so that no entry can be taken for both."""

SERVICE_CHAIN = ":service"
"""The chain of what belongs to no gallery; no gallery can be called so."""

NO_HASH = bytes(32)
"""What the first entry of a chain has in the place of its predecessor's hash."""

_PADDED_BYTES = 128
_ABSENT = b"\xff\xff\xff\xff"

Detail = str | int | float | bool | None
Role = Literal["subject", "candidate"]


class AuditEvent(StrEnum):
    """What can be done that is written down; docs/audit.md says of each what stands in it."""

    ENROLMENT_RECORDED = "enrolment.recorded"
    ENROLMENT_REJECTED = "enrolment.rejected"
    ENROLMENT_REPLAYED = "enrolment.replayed"
    GALLERY_SEARCHED = "gallery.searched"
    IDENTIFICATION_MADE = "identification.made"
    VERIFICATION_MADE = "verification.made"
    SUBJECT_VIEWED = "subject.viewed"
    SUBJECTS_LISTED = "subjects.listed"
    SUBJECT_REPORTED = "subject.reported"
    SUBJECT_ERASED = "subject.erased"
    SUBJECT_ERASED_AGAIN = "subject.erased_again"
    ENCOUNTER_VIEWED = "encounter.viewed"
    ENCOUNTERS_LISTED = "encounters.listed"
    ENCOUNTER_CHANGED = "encounter.changed"
    ENROLMENT_VIEWED = "enrolment.viewed"
    ENROLMENTS_LISTED = "enrolments.listed"
    IMAGE_VIEWED = "image.viewed"
    CASE_VIEWED = "case.viewed"
    CASES_LISTED = "cases.listed"
    CASE_DECIDED = "case.decided"
    MISSING_LISTED = "missing.listed"
    GALLERY_CREATED = "gallery.created"
    GALLERY_CHANGED = "gallery.changed"
    THRESHOLDS_CHANGED = "thresholds.changed"
    CALIBRATION_ADDED = "calibration.added"
    SWEEP_BEGUN = "sweep.begun"
    SWEEP_ENDED = "sweep.ended"
    MIGRATION_BEGUN = "migration.begun"
    MIGRATION_READY = "migration.ready"
    MIGRATION_CUT_OVER = "migration.cut_over"
    MIGRATION_CUT_BACK = "migration.cut_back"
    MIGRATION_ENDING = "migration.ending"
    MIGRATION_ENDED = "migration.ended"
    IMPORT_BEGUN = "import.begun"
    IMPORT_ENDED = "import.ended"
    INDEX_VERIFIED = "index.verified"
    INDEX_REBUILT = "index.rebuilt"
    INDEX_COMPACTED = "index.compacted"
    AUDIT_VIEWED = "audit.viewed"
    AUDIT_VERIFIED = "audit.verified"
    AUDIT_EXPORTED = "audit.exported"
    CLIENT_ADDED = "client.added"
    CLIENT_ROTATED = "client.rotated"
    CLIENT_REVOKED = "client.revoked"
    KEYS_ROTATED = "keys.rotated"
    RETENTION_CHANGED = "retention.changed"
    RETENTION_REPORTED = "retention.reported"
    RETENTION_BEGUN = "retention.begun"
    RETENTION_ENDED = "retention.ended"
    SAMPLES_ERASED = "samples.erased"
    HOLD_SET = "hold.set"
    HOLD_LIFTED = "hold.lifted"
    AGREEMENT_MADE = "agreement.made"
    AGREEMENT_ENDED = "agreement.ended"
    AGREEMENT_USED = "agreement.used"


@dataclass(frozen=True, slots=True)
class SeenSubject:
    """Somebody whom an act concerned. It is kept under that subject's own key."""

    subject_id: str
    role: Role = "subject"
    encounter_id: str | None = None
    gallery_id: str | None = None
    """None: of the gallery whose chain it is."""

    def plain(self) -> bytes:
        """Return what is encrypted: JSON, filled up with blanks so that its length tells nothing of the ids."""
        known = {"subject_id": self.subject_id, "role": self.role, "encounter_id": self.encounter_id}
        text = json.dumps(known, separators=(",", ":")).encode()
        return text.ljust(-(-len(text) // _PADDED_BYTES) * _PADDED_BYTES)


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An act to be written down: codes and numbers, and apart from them the people it concerned."""

    event: AuditEvent
    outcome: str | None = None
    details: Mapping[str, Detail] = field(default_factory=dict)
    subjects: tuple[SeenSubject, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry of a chain. Entries are never changed and hold nothing personal in clear."""

    chain: str
    seq: int  # from 1, without gaps
    created_at: datetime
    event: str
    outcome: str | None
    client_id: str
    purpose: str | None
    agreement_id: str | None
    request_id: str | None
    details_json: str
    references: tuple[bytes, ...]
    """Ciphertexts, each of a subject that the act concerned; `audit_subjects` tells the position of each."""
    previous: bytes
    hash: bytes

    @property
    def details(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.details_json)
        return found

    def own_hash(self) -> bytes:
        """Return the SHA-256 that the entry must have."""
        return self.hash_as(self.seq)

    @property
    def hash_as(self) -> Callable[[int], bytes]:
        """Return what gives the SHA-256 of the entry as if it had another number; quick for many numbers."""
        before = _framed(FORMAT) + _framed(self.chain.encode())
        fields = (
            moment_text(self.created_at).encode(),
            self.event.encode(),
            *(None if text is None else text.encode() for text in self._who()),
            self.details_json.encode(),
            pack_references(self.references),
            self.previous,
        )
        behind = b"".join(map(_framed, fields))
        return lambda seq: hashlib.sha256(before + _framed(str(seq).encode()) + behind).digest()

    def _who(self) -> tuple[str | None, ...]:
        return self.outcome, self.client_id, self.purpose, self.agreement_id, self.request_id

    def sealed(self) -> Self:
        """Return the entry with the hash that it must have."""
        return replace(self, hash=self.own_hash())

    def to_line(self) -> str:
        """Return the entry as a line of an export, with all that is needed to verify it."""
        return json.dumps(
            {
                "chain": self.chain,
                "seq": self.seq,
                "created_at": moment_text(self.created_at),
                "event": self.event,
                "outcome": self.outcome,
                "client_id": self.client_id,
                "purpose": self.purpose,
                "agreement_id": self.agreement_id,
                "request_id": self.request_id,
                # a text, not an object: another program would write its numbers otherwise, and the hash covers them
                "details": self.details_json,
                "references": [base64.b64encode(each).decode() for each in self.references],
                "previous": self.previous.hex(),
                "hash": self.hash.hex(),
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_line(cls, line: str) -> "AuditEntry":
        """Read what `to_line` wrote. Raises ValueError."""
        try:
            found = json.loads(line)
            return cls(
                chain=_text(found["chain"]),
                seq=int(found["seq"]),
                created_at=datetime.fromisoformat(found["created_at"]).astimezone(UTC),
                event=_text(found["event"]),
                outcome=_text_or_none(found["outcome"]),
                client_id=_text(found["client_id"]),
                purpose=_text_or_none(found["purpose"]),
                agreement_id=_text_or_none(found["agreement_id"]),
                request_id=_text_or_none(found["request_id"]),
                details_json=_text(found["details"]),
                references=tuple(base64.b64decode(each, validate=True) for each in found["references"]),
                previous=bytes.fromhex(found["previous"]),
                hash=bytes.fromhex(found["hash"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError("this line is no entry of an audit trail") from error


@dataclass(frozen=True, slots=True)
class SubjectEntry:
    """An entry that concerns a subject, and as what. `is_proven`: the chained reference says the same."""

    entry: AuditEntry
    role: str | None
    encounter_id: str | None
    is_proven: bool


def details_text(details: Mapping[str, Detail]) -> str:
    """Return the JSON text of details as it is stored and hashed. Raises ValueError on NaN and infinity."""
    return json.dumps(dict(details), allow_nan=False, sort_keys=True, separators=(",", ":"))


def moment_text(moment: datetime) -> str:
    """Return `2026-03-01T12:00:00.123456Z`, always with microseconds."""
    # strftime takes ten times as long
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def pack_references(references: tuple[bytes, ...]) -> bytes:
    return b"".join(map(_framed, references))


def unpack_references(packed: bytes) -> tuple[bytes, ...]:
    """Return what `pack_references` joined; what cannot be taken apart is one piece, and fails at its hash."""
    found, start = [], 0
    while start < len(packed):
        end = start + 4 + int.from_bytes(packed[start : start + 4], "big")
        if end > len(packed):
            return (packed,)
        found.append(packed[start + 4 : end])
        start = end
    return tuple(found)


def _framed(value: bytes | None) -> bytes:
    return _ABSENT if value is None else len(value).to_bytes(4, "big") + value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is wanted")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)
