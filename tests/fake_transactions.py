"""The transactions of `tests.fakes.FakeStore`: reading a snapshot, writing on a copy of one gallery."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import numpy as np

from service.acting import current_actor
from service.audit_chain import NO_HASH, AuditEntry, AuditEvent, NewEntry, SeenSubject, details_text
from service.audit_people import enrolment_recorded, searched_by_another
from service.domain import (
    Band,
    Candidate,
    Case,
    CaseKind,
    CaseStatus,
    Change,
    EarlierRequest,
    Encounter,
    EncounterFacts,
    EncounterStatus,
    Enrolment,
    ErasedParts,
    Erasure,
    ErasureRecord,
    Gallery,
    Lease,
    Migration,
    NewEnrolment,
    Probes,
    Reference,
    SampleFinding,
    Subject,
    Sweep,
    TemplateFacts,
    ThresholdChange,
)
from service.errors import (
    EncounterExists,
    EncounterNotFound,
    EncounterOutdated,
    EncounterWithdrawn,
    GalleryNotFound,
    IdempotencyKeyReused,
    NotFound,
    SubjectNotFound,
)
from service.ports import KeptCalibration
from service.receipts import ErasureTerms, erasure_record
from service.store.rows import flat
from tests.fake_packs import FakePackReading, facts, of_pack, places

K = TypeVar("K")
T = TypeVar("T")

KEY_RETENTION = timedelta(hours=24)
_NO_AGE: Mapping[str, Any] = {"age_at_capture": None, "years_between": None}


@dataclass(frozen=True)
class Key:
    """What is remembered under an idempotency key."""

    content_digest: str
    created_at: datetime
    enrolment_id: str | None = None
    subject_id: str | None = None
    rejection_code: str | None = None
    rejection_message: str | None = None


@dataclass
class Records:
    """One gallery. Values are never changed in place, so a copy of the dictionaries is a snapshot."""

    gallery: Gallery
    changes: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    subjects: dict[str, Subject] = field(default_factory=dict)
    encounters: dict[str, Encounter] = field(default_factory=dict)
    status_seqs: dict[str, int] = field(default_factory=dict)  # encounter id: the change that gave it its status
    answers: dict[str, tuple[str, str]] = field(default_factory=dict)  # encounter id: content digest, enrolment id
    samples: dict[str, dict[int, bytes]] = field(default_factory=dict)  # encounter id: by position
    references: dict[int, Reference] = field(default_factory=dict)
    enrolments: dict[str, Enrolment] = field(default_factory=dict)
    cases: dict[int, Case] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    sweeps: dict[int, Sweep] = field(default_factory=dict)
    leases: dict[int, Lease] = field(default_factory=dict)
    calibrations: dict[str, KeptCalibration] = field(default_factory=dict)
    audit: dict[int, AuditEntry] = field(default_factory=dict)
    about: dict[tuple[str, str, int], tuple[int, SeenSubject]] = field(default_factory=dict)  # gallery, subject, entry
    migrations: dict[int, Migration] = field(default_factory=dict)
    erasures: list[ErasureRecord] = field(default_factory=list)

    def copy(self) -> "Records":
        tables = {name: table.copy() for name, table in vars(self).items() if name != "gallery"}
        return Records(self.gallery, **tables)


_NOTHING = Records(Gallery("", "", 0.0, 0.0, 0.0, keep_samples=False, created_at=datetime.min.replace(tzinfo=UTC)))


def record_thresholds(records: Records, change: ThresholdChange | None, now: datetime) -> None:
    """Write into the audit trail that a gallery has other thresholds now."""
    if change is None:
        return
    details = {"reason": change.reason, **flat(change.thresholds)}
    append_audit({}, records, NewEntry(AuditEvent.THRESHOLDS_CHANGED, details=details), now)
    records.gallery = replace(records.gallery, thresholds_key=change.key)


def append_audit(galleries: Mapping[str, Records], records: Records, new: NewEntry, now: datetime) -> None:
    """Append an entry to the chain of `records`; `galleries` tells who is there to be referred to."""
    gallery_id, number = records.gallery.gallery_id, len(records.audit) + 1
    seen = {(each.gallery_id or gallery_id, each.subject_id): each for each in reversed(new.subjects)}
    known = {key: seen[key] for key in reversed(seen) if key[1] in galleries.get(key[0], _NOTHING).subjects}
    actor = current_actor()
    records.audit[number] = AuditEntry(
        gallery_id, number, now, new.event.value, new.outcome,
        actor.client_id, actor.purpose, actor.agreement_id, actor.request_id, details_text(new.details),
        tuple(sealed_reference(number, each) for each in known.values()),
        records.audit[number - 1].hash if number > 1 else NO_HASH, NO_HASH,
    ).sealed()  # fmt: skip
    for position, ((owner, subject_id), each) in enumerate(known.items()):
        records.about[owner, subject_id, number] = position, each


def sealed_reference(number: int, seen: SeenSubject) -> bytes:
    """Stand in for the ciphertext: nobody reads from it who it is, and it can be compared."""
    return hashlib.sha256(str(number).encode() + seen.plain()).digest()


class FakeReading(FakePackReading):
    """`service.ports.Reading` of one snapshot."""

    def __init__(self, galleries: dict[str, Records]) -> None:
        self._galleries = galleries

    def _records(self, gallery_id: str) -> Records:
        return self._galleries.get(gallery_id, _NOTHING)

    def gallery(self, gallery_id: str) -> Gallery:
        return existing(self._galleries, gallery_id, GalleryNotFound).gallery

    def changes_after(self, gallery_id: str, seq: int, limit: int, pack_id: str | None = None) -> list[Change]:
        records = self._galleries.get(gallery_id, _NOTHING)
        known = of_pack(records, records.references, pack_id)
        return [
            Change(number, tuple((each, known[each].embedding) for each in added if each in known), removed)
            for number, added, removed in records.changes
            if number > seq
        ][:limit]

    def references(
        self, gallery_id: str, reference_ids: Sequence[int], pack_id: str | None = None
    ) -> dict[int, Reference]:
        records = self._galleries.get(gallery_id, _NOTHING)
        found = of_pack(records, searched(records), pack_id)
        return {each: found[each] for each in reference_ids if each in found}

    def left_out(self, gallery_id: str, band: Band) -> int:
        records = self._galleries.get(gallery_id, _NOTHING)
        known = facts(records)
        found = {
            (each.encounter_id, known[number][1].position): each.capture
            for pack_id in records.gallery.pack_ids
            for number, each in of_pack(records, searched(records), pack_id).items()
        }
        return sum(band.leaves_out(capture) for capture in found.values())

    def subject_references(
        self, gallery_id: str, subject_id: str, *, inactive: bool = False, pack_id: str | None = None
    ) -> list[Reference]:
        records = self._galleries.get(gallery_id, _NOTHING)
        found = of_pack(records, records.references if inactive else searched(records), pack_id)
        return [found[each] for each in sorted(found) if found[each].subject_id == subject_id]

    def references_of(self, gallery_id: str, subject_ids: Sequence[str], pack_id: str | None = None) -> list[Reference]:
        records = self._galleries.get(gallery_id, _NOTHING)
        found = of_pack(records, searched(records), pack_id)
        return [found[each] for each in sorted(found) if found[each].subject_id in subject_ids]

    def references_after(
        self, gallery_id: str, after: int, last: int, limit: int, pack_id: str | None = None
    ) -> list[Reference]:
        records = self._galleries.get(gallery_id, _NOTHING)
        found = of_pack(records, searched(records), pack_id)
        return [found[each] for each in sorted(found) if after < each <= last][:limit]

    def last_reference_id(self) -> int:
        return max((each for records in self._galleries.values() for each in records.references), default=0)

    def probes_after(self, gallery_id: str, after: int, last: int, limit: int, pack_id: str | None = None) -> Probes:
        found = self.references_after(gallery_id, after, last, limit, pack_id)
        rows = [each.embedding for each in found]
        embeddings = np.stack(rows) if rows else np.empty((0, 0), np.float32)
        return Probes(tuple(each.reference_id for each in found), embeddings)

    def earlier_request(
        self, gallery_id: str, idempotency_key: str | None, encounter_id: str | None, not_before: datetime
    ) -> EarlierRequest | None:
        records = self._galleries.get(gallery_id, _NOTHING)
        key = records.keys.get(idempotency_key or "")
        if key is not None and key.created_at >= not_before:
            enrolment = records.enrolments.get(key.enrolment_id or "")
            return EarlierRequest(key.content_digest, enrolment, key.rejection_code, key.rejection_message)
        if encounter_id in records.answers:
            digest, enrolment_id = records.answers[encounter_id]
            return EarlierRequest(digest, records.enrolments[enrolment_id])
        return None


class FakeWriting(FakeReading):
    """`service.ports.Writing`: works on a copy, which the store keeps if a change was made."""

    def __init__(
        self,
        galleries: dict[str, Records],
        gallery_id: str,
        now: datetime,
        numbers: Iterator[int],
        also: Sequence[str] = (),
    ) -> None:
        super().__init__(galleries)
        for each in also:
            existing(galleries, each, GalleryNotFound)
        self._also = also
        self.records = existing(galleries, gallery_id, GalleryNotFound).copy()
        self._galleries = self.galleries = {**galleries, gallery_id: self.records}
        self.has_changed = False
        self._now = now
        self._numbers = numbers
        self._gallery_id = gallery_id

    @property
    def seq(self) -> int:
        return len(self.records.changes) + (0 if self.has_changed else 1)

    def insert_enrolment(self, enrolment: NewEnrolment) -> Enrolment:
        self._expect_no_change()
        records, new = self.records, enrolment
        if new.encounter_id in records.encounters:
            raise EncounterExists("the encounter is enrolled already")
        reference_ids = {each.position: next(self._numbers) for each in new.templates}
        standby_ids = {each.position: next(self._numbers) for each in new.standby_templates}
        case_ids = tuple(next(self._numbers) for _ in new.cases)
        stored = _to_enrolment(new, self._gallery_id, self.seq, self._now, reference_ids, case_ids)
        self._remember(new)
        for ids, made in ((reference_ids, new.templates), (standby_ids, new.standby_templates)):
            for each in made:
                embedding = np.array(each.template.embedding, dtype=np.float32)
                number = ids[each.position]
                records.references[number] = Reference(
                    number, new.subject_id, new.encounter_id, embedding, each.verifies, new.facts.capture(self._now)
                )
        for candidate in new.standby_candidates:
            self._open_standby_case(new, candidate)
        for case_id, kind in zip(case_ids, new.cases, strict=True):
            records.cases[case_id] = Case(
                case_id, self._gallery_id, kind, CaseStatus.OPEN,
                new.enrolment_id, new.subject_id, new.encounter_id, self._now,
            )  # fmt: skip
        earlier = records.subjects.get(new.subject_id, Subject(new.subject_id, self._gallery_id, (), self._now))
        records.subjects[new.subject_id] = replace(earlier, encounter_ids=(*earlier.encounter_ids, new.encounter_id))
        records.encounters[new.encounter_id] = _to_encounter(
            new, self._gallery_id, self._now, reference_ids, standby_ids
        )
        records.status_seqs[new.encounter_id] = self.seq
        if new.templates and records.gallery.model_id is None:
            records.gallery = replace(records.gallery, model_id=new.templates[0].model_id)
        records.samples[new.encounter_id] = {
            each.position: each.sample for each in new.templates if each.sample is not None
        }
        records.answers[new.encounter_id] = (new.content_digest, new.enrolment_id)
        records.enrolments[new.enrolment_id] = stored
        self._change(added=tuple(sorted([*reference_ids.values(), *standby_ids.values()])), removed=())
        for other_id in self._also:
            other = self._copied(other_id)
            other.gallery = replace(other.gallery, searched_seq=other.gallery.last_seq)
            append_audit(self.galleries, other, searched_by_another(new, self._gallery_id, other_id), self._now)
        record_thresholds(records, new.threshold_change, self._now)
        self._record(enrolment_recorded(new, len(case_ids)))
        return stored

    def _record(self, entry: NewEntry) -> None:
        append_audit(self.galleries, self.records, entry, self._now)

    def _open_standby_case(self, new: NewEnrolment, candidate: Candidate) -> None:
        (migration,) = [each for each in self.records.migrations.values() if not each.stage.has_ended]
        opened = replace(migration, cases_opened=migration.cases_opened + 1)
        self.records.migrations[migration.job_id] = opened
        case_id = next(self._numbers)
        self.records.cases[case_id] = Case(
            case_id, self._gallery_id, CaseKind.MIGRATION, CaseStatus.OPEN,
            new.enrolment_id, new.subject_id, new.encounter_id, self._now, replace(candidate, rank=1), migration.job_id,
        )  # fmt: skip

    def _remember(self, new: NewEnrolment) -> None:
        if new.idempotency_key is None:
            return
        taken = self.records.keys.get(new.idempotency_key)
        if taken is not None and taken.created_at >= self._now - KEY_RETENTION:
            raise IdempotencyKeyReused("the Idempotency-Key was used for another request")
        self.records.keys[new.idempotency_key] = Key(
            new.content_digest, self._now, enrolment_id=new.enrolment_id, subject_id=new.subject_id
        )

    def erase_subject(self, subject_id: str, terms: ErasureTerms | None = None) -> Erasure:
        self._expect_no_change()
        records = self.records
        subject = existing(records.subjects, subject_id, SubjectNotFound)
        removed = tuple(each.reference_id for each in records.references.values() if each.subject_id == subject_id)
        parts = self._parts_of(subject, removed)
        record = erasure_record(
            terms or ErasureTerms(), self._gallery_id, subject_id, key_id=None, parts=parts, seq=self.seq, now=self._now
        )
        asked = record.repeat_digest
        if asked is not None and any(each.repeat_digest == asked for each in records.erasures):
            raise IdempotencyKeyReused("the Idempotency-Key was used for another request")
        for encounter_id in subject.encounter_ids:
            records.samples.pop(encounter_id)
            _, enrolment_id = records.answers.pop(encounter_id)
            del records.encounters[encounter_id], records.enrolments[enrolment_id]
        for reference_id in removed:
            del records.references[reference_id]
        del records.subjects[subject_id]
        records.keys = {name: key for name, key in records.keys.items() if key.subject_id not in {subject_id, None}}
        records.cases = {number: case for number, case in records.cases.items() if case.subject_id != subject_id}
        for gallery_id in self.galleries:
            for enrolment in list(self._copied(gallery_id).enrolments.values()):
                self._forget(enrolment, subject_id)
        for case, candidate in self._pairs():
            if candidate.subject_id == subject_id:
                nobody = replace(candidate, subject_id=None, encounter_id=None, reference_id=None)
                self._keep(replace(case, candidate=nobody, status=CaseStatus.VOID))
        self._change(added=(), removed=removed)
        for gallery_id, each in self.galleries.items():
            left = {key: seen for key, seen in each.about.items() if key[:2] != (self._gallery_id, subject_id)}
            if left != each.about:
                self.galleries[gallery_id] = each if each is records else each.copy()
                self.galleries[gallery_id].about = left
        records.erasures = [*records.erasures, record]
        counts = {"encounters": parts.encounters, "templates": parts.templates, "samples": parts.samples}
        self._record(NewEntry(AuditEvent.SUBJECT_ERASED, details={**counts, "receipt_digest": record.digest}))
        return Erasure(record)

    def _parts_of(self, subject: Subject, reference_ids: Collection[int]) -> ErasedParts:
        records = self.records
        enrolments = [each for each in records.enrolments.values() if each.encounter_id in subject.encounter_ids]
        others = [
            candidate for each in records.enrolments.values() if each not in enrolments for candidate in each.candidates
        ]
        elsewhere = [*others, *(candidate for _, candidate in self._pairs())]
        return ErasedParts(
            data_keys=0,
            encounters=len(subject.encounter_ids),
            enrolments=len(enrolments),
            templates=len(reference_ids),
            index_places=sum(
                records.encounters[records.references[each].encounter_id].status is EncounterStatus.ACTIVE
                for each in reference_ids
            ),
            samples=sum(len(records.samples[each]) for each in subject.encounter_ids),
            candidates=sum(len(each.candidates) for each in enrolments),
            cases=sum(case.subject_id == subject.subject_id for case in records.cases.values()),
            mentions=sum(each.subject_id == subject.subject_id for each in elsewhere),
        )

    def _forget(self, enrolment: Enrolment, subject_id: str) -> None:
        records = self.galleries[enrolment.gallery_id]
        candidates = tuple(
            replace(each, subject_id=None, encounter_id=None, reference_id=None, **_NO_AGE)
            if each.subject_id == subject_id and self._is_here(enrolment, each)
            else each
            for each in enrolment.candidates
        )
        if candidates == enrolment.candidates:
            return
        records.enrolments[enrolment.enrolment_id] = replace(enrolment, candidates=candidates)
        if any(each.subject_id is not None for each in candidates):
            return
        if enrolment.searched is None or not enrolment.searched.complete:
            return
        for case_id in enrolment.case_ids:
            if records.cases[case_id].kind is CaseKind.DUPLICATE:
                records.cases[case_id] = replace(records.cases[case_id], status=CaseStatus.VOID)

    def _is_here(self, enrolment: Enrolment, candidate: Candidate) -> bool:
        return (candidate.gallery_id or enrolment.gallery_id) == self._gallery_id

    def _copied(self, gallery_id: str) -> Records:
        """Return what is held of a gallery, to be changed."""
        if gallery_id != self._gallery_id:
            self.galleries[gallery_id] = self.galleries[gallery_id].copy()
        return self.galleries[gallery_id]

    def set_encounter_status(self, encounter_id: str, status: EncounterStatus) -> Encounter:
        self._expect_no_change()
        encounter = existing(self.records.encounters, encounter_id, EncounterNotFound)
        if encounter.status is status:
            return encounter
        if encounter.status is EncounterStatus.WITHDRAWN:
            raise EncounterWithdrawn("a withdrawn encounter cannot get another status")
        if status is EncounterStatus.ACTIVE and self._others_came(encounter):
            raise EncounterOutdated("others were enrolled while this encounter was inactive: enrol the sample again")
        self.records.status_seqs[encounter_id] = self.seq
        moved = tuple(each.reference_id for each in encounter.templates)
        self.records.encounters[encounter_id] = replace(encounter, status=status)
        if status is EncounterStatus.WITHDRAWN:
            self._withdraw(encounter)
        returns = status is EncounterStatus.ACTIVE
        self._change(added=moved if returns else (), removed=() if returns else moved)
        whose = SeenSubject(encounter.subject_id, encounter_id=encounter_id)
        self._record(NewEntry(AuditEvent.ENCOUNTER_CHANGED, status.value, subjects=(whose,)))
        return self.records.encounters[encounter_id]

    def _others_came(self, encounter: Encounter) -> bool:
        since = self.records.status_seqs[encounter.encounter_id]
        return self.records.gallery.searched_seq >= since or any(
            self.records.status_seqs[other.encounter_id] > since
            for other in self.records.encounters.values()
            if other.status is EncounterStatus.ACTIVE and other.subject_id != encounter.subject_id
        )

    def _withdraw(self, encounter: Encounter) -> None:
        records = self.records
        for each in encounter.templates:
            del records.references[each.reference_id]
        records.samples[encounter.encounter_id] = {}
        records.encounters[encounter.encounter_id] = replace(
            encounter,
            status=EncounterStatus.WITHDRAWN,
            facts=EncounterFacts(),
            biometric_exception=None if encounter.biometric_exception is None else "withdrawn",
            templates=(),
            has_samples=False,
        )
        everywhere = [each for found in self.galleries for each in self._copied(found).enrolments.values()]
        for enrolment in everywhere:
            candidates = tuple(
                replace(each, reference_id=None, **_NO_AGE)
                if each.encounter_id == encounter.encounter_id and self._is_here(enrolment, each)
                else each
                for each in enrolment.candidates
            )
            findings = enrolment.samples
            if (enrolment.gallery_id, enrolment.encounter_id) == (self._gallery_id, encounter.encounter_id):
                candidates = tuple(replace(each, years_between=None) for each in candidates)
                findings = tuple(replace(each, reference_id=None, quality=None, box=None) for each in findings)
            found = self.galleries[enrolment.gallery_id].enrolments
            found[enrolment.enrolment_id] = replace(enrolment, candidates=candidates, samples=findings)
        for case, candidate in self._pairs():
            if candidate.encounter_id == encounter.encounter_id:
                self._keep(replace(case, candidate=replace(candidate, reference_id=None)))

    def _pairs(self) -> list[tuple[Case, Candidate]]:
        """Return the cases of sweeps, of all galleries, in which the other one is in this gallery."""
        return [
            (case, case.candidate)
            for records in self.galleries.values()
            for case in records.cases.values()
            if case.candidate is not None and (case.candidate.gallery_id or case.gallery_id) == self._gallery_id
        ]

    def _keep(self, case: Case) -> None:
        """Put a case in the place of what it was before, in whatever gallery."""
        self._copied(case.gallery_id).cases[case.case_id] = case

    def _expect_no_change(self) -> None:
        if self.has_changed:
            raise RuntimeError("a write transaction makes one change")

    def _change(self, *, added: tuple[int, ...], removed: tuple[int, ...]) -> None:
        records = self.records
        records.changes.append((len(records.changes) + 1, added, removed))
        self.has_changed = True
        records.gallery = counted(replace(records.gallery, last_seq=len(records.changes)), records)


def existing(found: Mapping[K, T], key: K, missing: type[NotFound]) -> T:
    if key not in found:
        raise missing(f"there is no such {missing.code.removesuffix('_not_found')}")
    return found[key]


def counted(gallery: Gallery, records: Records) -> Gallery:
    """Return the gallery with its templates counted anew."""
    found = searched(records)
    ruling = places(records, of_pack(records, found, gallery.pack_id))
    standby = places(records, of_pack(records, found, gallery.standby_pack_id)) if gallery.standby_pack_id else set()
    samples = Counter(records.encounters[encounter_id].subject_id for encounter_id, _ in ruling | standby)
    return replace(
        gallery,
        template_count=len(ruling),
        standby_template_count=len(standby),
        paired_count=len(ruling & standby),
        several_count=sum(count > 1 for count in samples.values()),
    )


def searched(records: Records) -> dict[int, Reference]:
    return {
        number: reference
        for number, reference in records.references.items()
        if records.encounters[reference.encounter_id].status is EncounterStatus.ACTIVE
    }


def _to_enrolment(
    new: NewEnrolment,
    gallery_id: str,
    seq: int,
    now: datetime,
    reference_ids: dict[int, int],
    case_ids: tuple[int, ...],
) -> Enrolment:
    accepted = [
        SampleFinding(
            each.position,
            reference_ids[each.position],
            None,
            each.template.quality,
            each.template.box,
            each.template.presentation_attack,
        )
        for each in new.templates
    ]
    return Enrolment(
        enrolment_id=new.enrolment_id,
        gallery_id=gallery_id,
        subject_id=new.subject_id,
        encounter_id=new.encounter_id,
        outcome=new.outcome,
        candidates=tuple(sorted(new.candidates, key=lambda each: each.rank)),
        thresholds=new.thresholds,
        searched=new.searched,
        continuity=new.continuity,
        samples=tuple(sorted([*accepted, *new.rejected_samples], key=lambda each: each.position)),
        biometric_exception=new.biometric_exception,
        case_ids=case_ids,
        warnings=new.warnings,
        seq=seq,
        created_at=now,
    )


def _to_encounter(
    new: NewEnrolment, gallery_id: str, now: datetime, reference_ids: dict[int, int], standby_ids: dict[int, int]
) -> Encounter:
    made = [(reference_ids[each.position], each) for each in new.templates]
    made += [(standby_ids[each.position], each) for each in new.standby_templates]
    templates = tuple(
        TemplateFacts(
            reference_id=number,
            position=each.position,
            pack_id=each.template.pack_id,
            model_id=each.model_id,
            verifies=each.verifies,
            quality=each.template.quality,
            box=each.template.box,
        )
        for number, each in sorted(made, key=lambda pair: (pair[1].position, pair[0]))
    )
    return Encounter(
        encounter_id=new.encounter_id,
        gallery_id=gallery_id,
        subject_id=new.subject_id,
        status=EncounterStatus.ACTIVE,
        facts=replace(new.facts, captured_at=new.facts.captured_at and new.facts.captured_at.astimezone(UTC)),
        biometric_exception=new.biometric_exception,
        templates=templates,
        has_samples=any(each.sample is not None for each in new.templates),
        created_at=now,
    )
