"""One enrolment as it is asked for, and what a repeat of it gets."""

import hashlib
import json
from dataclasses import dataclass, field

from service.domain import EarlierRequest, EncounterFacts, Enrolment
from service.errors import EncounterExists, IdempotencyKeyReused, SampleRejected, all_errors


@dataclass(frozen=True, slots=True)
class EnrolmentRequest:
    """One encounter as the registration system sends it: samples, or the reason why there is none."""

    gallery_id: str
    samples: tuple[bytes, ...] = field(repr=False)
    subject_id: str | None = None  # None: a new subject
    encounter_id: str | None = None  # the caller's own, idempotent for ever
    facts: EncounterFacts = field(default_factory=EncounterFacts)
    biometric_exception: str | None = None
    idempotency_key: str | None = None
    also_search: tuple[str, ...] = ()  # further galleries in which the person must not be either
    waive_quality_gate: bool = False  # for who can give no better photograph: to be left out is the worst harm

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the canonical fields and the samples' digests: equal requests, equal digests."""
        canonical: dict[str, object] = {
            "gallery_id": self.gallery_id,
            "subject_id": self.subject_id,
            "encounter_id": self.encounter_id,
            "captured_at": self.facts.captured_at.isoformat() if self.facts.captured_at else None,
            "site": self.facts.site,
            "operator_ref": self.facts.operator_ref,
            "birth_year": self.facts.birth_year,
            "sex": self.facts.sex,
            "labels": sorted(self.facts.labels),
            "biometric_exception": self.biometric_exception,
            "samples": [hashlib.sha256(sample).hexdigest() for sample in self.samples],
        }
        # only where they are given: a request of before they existed keeps its digest
        if self.waive_quality_gate:
            canonical["waive_quality_gate"] = True
        if self.also_search:
            canonical["also_search"] = sorted(self.also_search)
        return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()


def answer_again(earlier: EarlierRequest, request: EnrolmentRequest, digest: str) -> Enrolment:
    """Return the first answer if the content is the same."""
    if earlier.content_digest != digest:
        known_by_encounter = earlier.enrolment is not None and earlier.enrolment.encounter_id == request.encounter_id
        if known_by_encounter:
            raise EncounterExists("this encounter_id is already enrolled with other content")
        raise IdempotencyKeyReused("this Idempotency-Key was used for other content; use a new key for a new request")
    if earlier.enrolment is None:
        raise _rejection(earlier)
    return earlier.enrolment


def _rejection(earlier: EarlierRequest) -> SampleRejected:
    """Return the error that the first request got."""
    classes = {error.code: error for error in all_errors(SampleRejected)}
    error = classes[earlier.rejection_code or SampleRejected.code](earlier.rejection_message or "")
    assert isinstance(error, SampleRejected)
    return error
