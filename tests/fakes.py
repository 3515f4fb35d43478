"""Small working stand-ins of the outer folders, held to the real ones by tests/contracts."""

import itertools
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import numpy as np

from service.domain import (
    Case,
    CaseKind,
    CaseStatus,
    Change,
    EarlierRequest,
    Encounter,
    EncounterFacts,
    EncounterStatus,
    Enrolment,
    Erasure,
    Gallery,
    GalleryCounts,
    NewEnrolment,
    OutcomeKind,
    Page,
    Reference,
    SampleFinding,
    Subject,
    TemplateFacts,
)
from service.errors import (
    CaseNotFound,
    EncounterExists,
    EncounterNotFound,
    EncounterWithdrawn,
    EnrolmentNotFound,
    GalleryExists,
    GalleryNotFound,
    IdempotencyKeyReused,
    InvalidRequest,
    NotFound,
    SubjectNotFound,
)

K = TypeVar("K")
T = TypeVar("T")

KEY_RETENTION = timedelta(hours=24)


@dataclass(frozen=True)
class _Key:
    """What is remembered under an idempotency key."""

    content_digest: str
    created_at: datetime
    enrolment_id: str | None = None
    subject_id: str | None = None
    rejection_code: str | None = None
    rejection_message: str | None = None


@dataclass
class _Records:
    """One gallery. Values are never changed in place, so a copy of the dictionaries is a snapshot."""

    gallery: Gallery
    changes: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    subjects: dict[str, Subject] = field(default_factory=dict)
    encounters: dict[str, Encounter] = field(default_factory=dict)
    answers: dict[str, tuple[str, str]] = field(default_factory=dict)  # encounter id: content digest, enrolment id
    samples: dict[str, int] = field(default_factory=dict)
    references: dict[int, Reference] = field(default_factory=dict)
    enrolments: dict[str, Enrolment] = field(default_factory=dict)
    cases: dict[int, Case] = field(default_factory=dict)
    keys: dict[str, _Key] = field(default_factory=dict)

    def copy(self) -> "_Records":
        tables = {name: table.copy() for name, table in vars(self).items() if name != "gallery"}
        return _Records(self.gallery, **tables)


_NOTHING = _Records(Gallery("", "", 0.0, 0.0, 0.0, keep_samples=False, created_at=datetime.min.replace(tzinfo=UTC)))


class FakeReading:
    """`service.ports.Reading` of one snapshot."""

    def __init__(self, galleries: dict[str, _Records]) -> None:
        self._galleries = galleries

    def gallery(self, gallery_id: str) -> Gallery:
        return _existing(self._galleries, gallery_id, GalleryNotFound).gallery

    def changes_after(self, gallery_id: str, seq: int, limit: int) -> list[Change]:
        records = self._galleries.get(gallery_id, _NOTHING)
        return [
            Change(
                number,
                tuple((each, records.references[each].embedding) for each in added if each in records.references),
                removed,
            )
            for number, added, removed in records.changes
            if number > seq
        ][:limit]

    def references(self, gallery_id: str, reference_ids: Sequence[int]) -> dict[int, Reference]:
        searched = _searched(self._galleries.get(gallery_id, _NOTHING))
        return {each: searched[each] for each in reference_ids if each in searched}

    def subject_references(self, gallery_id: str, subject_id: str) -> list[Reference]:
        searched = _searched(self._galleries.get(gallery_id, _NOTHING))
        return [searched[each] for each in sorted(searched) if searched[each].subject_id == subject_id]

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

    def __init__(self, galleries: dict[str, _Records], gallery_id: str, now: datetime, numbers: Iterator[int]) -> None:
        super().__init__(galleries)
        self.records = _existing(galleries, gallery_id, GalleryNotFound).copy()
        self._galleries = {**galleries, gallery_id: self.records}
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
        case_ids = tuple(next(self._numbers) for _ in new.cases)
        stored = _to_enrolment(new, self._gallery_id, self.seq, self._now, reference_ids, case_ids)
        self._remember(new)
        for each in new.templates:
            embedding = np.array(each.template.embedding, dtype=np.float32)
            number = reference_ids[each.position]
            records.references[number] = Reference(number, new.subject_id, new.encounter_id, embedding, each.verifies)
        for case_id, kind in zip(case_ids, new.cases, strict=True):
            records.cases[case_id] = Case(
                case_id, self._gallery_id, kind, CaseStatus.OPEN,
                new.enrolment_id, new.subject_id, new.encounter_id, self._now,
            )  # fmt: skip
        earlier = records.subjects.get(new.subject_id, Subject(new.subject_id, self._gallery_id, (), self._now))
        records.subjects[new.subject_id] = replace(earlier, encounter_ids=(*earlier.encounter_ids, new.encounter_id))
        records.encounters[new.encounter_id] = _to_encounter(new, self._gallery_id, self._now, reference_ids)
        records.samples[new.encounter_id] = sum(each.sample is not None for each in new.templates)
        records.answers[new.encounter_id] = (new.content_digest, new.enrolment_id)
        records.enrolments[new.enrolment_id] = stored
        self._change(added=tuple(sorted(reference_ids.values())), removed=())
        return stored

    def _remember(self, new: NewEnrolment) -> None:
        if new.idempotency_key is None:
            return
        taken = self.records.keys.get(new.idempotency_key)
        if taken is not None and taken.created_at >= self._now - KEY_RETENTION:
            raise IdempotencyKeyReused("the Idempotency-Key was used for another request")
        self.records.keys[new.idempotency_key] = _Key(
            new.content_digest, self._now, enrolment_id=new.enrolment_id, subject_id=new.subject_id
        )

    def erase_subject(self, subject_id: str) -> Erasure:
        self._expect_no_change()
        records = self.records
        subject = _existing(records.subjects, subject_id, SubjectNotFound)
        removed = tuple(each.reference_id for each in records.references.values() if each.subject_id == subject_id)
        sample_count = sum(records.samples.pop(each) for each in subject.encounter_ids)
        for encounter_id in subject.encounter_ids:
            _, enrolment_id = records.answers.pop(encounter_id)
            del records.encounters[encounter_id], records.enrolments[enrolment_id]
        for reference_id in removed:
            del records.references[reference_id]
        del records.subjects[subject_id]
        records.keys = {name: key for name, key in records.keys.items() if key.subject_id != subject_id}
        records.cases = {number: case for number, case in records.cases.items() if case.subject_id != subject_id}
        for enrolment in list(records.enrolments.values()):
            self._forget(enrolment, subject_id)
        self._change(added=(), removed=removed)
        return Erasure(len(subject.encounter_ids), len(removed), sample_count, self.seq)

    def _forget(self, enrolment: Enrolment, subject_id: str) -> None:
        if all(each.subject_id != subject_id for each in enrolment.candidates):
            return
        candidates = tuple(
            replace(each, subject_id=None, encounter_id=None, reference_id=None)
            if each.subject_id == subject_id
            else each
            for each in enrolment.candidates
        )
        self.records.enrolments[enrolment.enrolment_id] = replace(enrolment, candidates=candidates)
        if any(each.subject_id is not None for each in candidates):
            return
        for case_id in enrolment.case_ids:
            if self.records.cases[case_id].kind is CaseKind.DUPLICATE:
                self.records.cases[case_id] = replace(self.records.cases[case_id], status=CaseStatus.VOID)

    def set_encounter_status(self, encounter_id: str, status: EncounterStatus) -> Encounter:
        self._expect_no_change()
        encounter = _existing(self.records.encounters, encounter_id, EncounterNotFound)
        if encounter.status is status:
            return encounter
        if encounter.status is EncounterStatus.WITHDRAWN:
            raise EncounterWithdrawn("a withdrawn encounter cannot get another status")
        moved = tuple(each.reference_id for each in encounter.templates)
        self.records.encounters[encounter_id] = replace(encounter, status=status)
        if status is EncounterStatus.WITHDRAWN:
            self._withdraw(encounter)
        returns = status is EncounterStatus.ACTIVE
        self._change(added=moved if returns else (), removed=() if returns else moved)
        return self.records.encounters[encounter_id]

    def _withdraw(self, encounter: Encounter) -> None:
        records = self.records
        for each in encounter.templates:
            del records.references[each.reference_id]
        records.samples[encounter.encounter_id] = 0
        records.encounters[encounter.encounter_id] = replace(
            encounter, status=EncounterStatus.WITHDRAWN, facts=EncounterFacts(), templates=(), has_samples=False
        )
        for enrolment_id, enrolment in records.enrolments.items():
            candidates = tuple(
                replace(each, reference_id=None) if each.encounter_id == encounter.encounter_id else each
                for each in enrolment.candidates
            )
            findings = enrolment.samples
            if enrolment.encounter_id == encounter.encounter_id:
                findings = tuple(replace(each, reference_id=None, quality=None, box=None) for each in findings)
            records.enrolments[enrolment_id] = replace(enrolment, candidates=candidates, samples=findings)

    def _expect_no_change(self) -> None:
        if self.has_changed:
            raise RuntimeError("a write transaction makes one change")

    def _change(self, *, added: tuple[int, ...], removed: tuple[int, ...]) -> None:
        records = self.records
        records.changes.append((len(records.changes) + 1, added, removed))
        self.has_changed = True
        records.gallery = replace(
            records.gallery, last_seq=len(records.changes), template_count=len(_searched(records))
        )


class FakeStore:
    """`service.ports.Store` in memory. Writers take turns, whatever their gallery."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._galleries: dict[str, _Records] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._timeline_id = uuid.uuid4().hex

    def timeline_id(self) -> str:
        return self._timeline_id

    def renew_timeline(self) -> str:
        self._timeline_id = uuid.uuid4().hex
        return self._timeline_id

    @contextmanager
    def reading(self) -> Iterator[FakeReading]:
        yield FakeReading(self._galleries)

    @contextmanager
    def writing(self, gallery_id: str) -> Iterator[FakeWriting]:
        with self._lock:
            writing = FakeWriting(self._galleries, gallery_id, self._clock(), self._numbers)
            yield writing
            if writing.has_changed:
                self._galleries = {**self._galleries, gallery_id: writing.records}

    def remember_rejection(
        self, gallery_id: str, idempotency_key: str, content_digest: str, code: str, message: str
    ) -> None:
        with self._lock:
            records = _existing(self._galleries, gallery_id, GalleryNotFound).copy()
            now = self._clock()
            taken = records.keys.get(idempotency_key)
            if taken is None or taken.created_at < now - KEY_RETENTION:
                records.keys[idempotency_key] = _Key(
                    content_digest, now, rejection_code=code, rejection_message=message
                )
            self._galleries = {**self._galleries, gallery_id: records}

    def create_gallery(self, gallery: Gallery) -> Gallery:
        with self._lock:
            if gallery.gallery_id in self._galleries:
                raise GalleryExists("there is a gallery of this name")
            records = _Records(replace(gallery, last_seq=0, template_count=0))
            self._galleries = {**self._galleries, gallery.gallery_id: records}
            return records.gallery

    def update_gallery(self, gallery: Gallery) -> Gallery:
        with self._lock:
            records = _existing(self._galleries, gallery.gallery_id, GalleryNotFound).copy()
            records.gallery = replace(
                records.gallery,
                review_fpir=gallery.review_fpir,
                duplicate_fpir=gallery.duplicate_fpir,
                verification_fmr=gallery.verification_fmr,
                keep_samples=gallery.keep_samples,
            )
            self._galleries = {**self._galleries, gallery.gallery_id: records}
            return records.gallery

    def galleries(self) -> list[Gallery]:
        return [self._galleries[each].gallery for each in sorted(self._galleries)]

    def subject(self, gallery_id: str, subject_id: str) -> Subject:
        return _existing(self._of(gallery_id).subjects, subject_id, SubjectNotFound)

    def subjects(self, gallery_id: str, after: str | None, limit: int) -> Page[Subject]:
        subjects = self._of(gallery_id).subjects
        return _page([(each, subjects[each]) for each in sorted(subjects) if after is None or each > after], limit)

    def encounter(self, gallery_id: str, encounter_id: str) -> Encounter:
        return _existing(self._of(gallery_id).encounters, encounter_id, EncounterNotFound)

    def encounters(self, gallery_id: str, subject_id: str | None, after: str | None, limit: int) -> Page[Encounter]:
        records, start = self._of(gallery_id), _to_number(after)
        by_seq = [(each.seq, records.encounters[each.encounter_id]) for each in records.enrolments.values()]
        wanted = [each for each in by_seq if subject_id is None or each[1].subject_id == subject_id]
        return _page([each for each in wanted if each[0] > start], limit)

    def enrolment(self, gallery_id: str, enrolment_id: str) -> Enrolment:
        return _existing(self._of(gallery_id).enrolments, enrolment_id, EnrolmentNotFound)

    def enrolments(self, gallery_id: str, after: str | None, limit: int) -> Page[Enrolment]:
        records, start = self._of(gallery_id), _to_number(after)
        return _page([(each.seq, each) for each in records.enrolments.values() if each.seq > start], limit)

    def case(self, gallery_id: str, case_id: int) -> Case:
        return _existing(self._of(gallery_id).cases, case_id, CaseNotFound)

    def cases(self, gallery_id: str, after: str | None, limit: int) -> Page[Case]:
        records, start = self._of(gallery_id), _to_number(after)
        return _page([each for each in records.cases.items() if each[0] > start], limit)

    def gallery_counts(self, gallery_id: str) -> GalleryCounts:
        records = self._of(gallery_id)
        outcomes = sorted(each.outcome for each in records.enrolments.values())
        return GalleryCounts(
            subjects=len(records.subjects),
            encounters=len(records.encounters),
            templates=records.gallery.template_count,
            biometric_exceptions=sum(each.biometric_exception is not None for each in records.encounters.values()),
            open_cases=sum(each.status is CaseStatus.OPEN for each in records.cases.values()),
            outcomes=tuple((OutcomeKind(kind), len(list(same))) for kind, same in itertools.groupby(outcomes)),
        )

    def _of(self, gallery_id: str) -> _Records:
        return _existing(self._galleries, gallery_id, GalleryNotFound)


def _existing(found: Mapping[K, T], key: K, missing: type[NotFound]) -> T:
    if key not in found:
        raise missing("there is no such record")
    return found[key]


def _searched(records: _Records) -> dict[int, Reference]:
    return {
        number: reference
        for number, reference in records.references.items()
        if records.encounters[reference.encounter_id].status is EncounterStatus.ACTIVE
    }


def _to_number(after: str | None) -> int:
    if after is not None and not (after.isascii() and after.isdigit() and int(after) < 2**63):
        raise InvalidRequest("the cursor `after` is none that this listing gave")
    return int(after or 0)


def _page(found: Sequence[tuple[str | int, T]], limit: int) -> Page[T]:
    last = str(found[limit - 1][0]) if len(found) > limit else None
    return Page(tuple(item for _, item in found[:limit]), last)


def _to_enrolment(
    new: NewEnrolment,
    gallery_id: str,
    seq: int,
    now: datetime,
    reference_ids: dict[int, int],
    case_ids: tuple[int, ...],
) -> Enrolment:
    accepted = [
        SampleFinding(each.position, reference_ids[each.position], None, each.template.quality, each.template.box)
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


def _to_encounter(new: NewEnrolment, gallery_id: str, now: datetime, reference_ids: dict[int, int]) -> Encounter:
    templates = tuple(
        TemplateFacts(
            reference_id=reference_ids[each.position],
            position=each.position,
            pack_id=each.template.pack_id,
            model_id=each.model_id,
            verifies=each.verifies,
            quality=each.template.quality,
            box=each.template.box,
        )
        for each in sorted(new.templates, key=lambda each: each.position)
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
