"""Small working stand-ins of the outer folders, held to the real ones by tests/contracts."""

import itertools
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from service.audit_chain import SERVICE_CHAIN, AuditEntry, AuditEvent, Detail, NewEntry, SubjectEntry
from service.audit_check import ORIGIN, ChainPoint
from service.audit_people import seen_in_candidates, seen_in_case
from service.calibration import Calibration
from service.domain import (
    FILTERED_SEXES,
    GALLERY_SETTINGS,
    Case,
    CaseDecision,
    CaseKind,
    CaseStatus,
    CaseVerdict,
    Encounter,
    Enrolment,
    ErasureRecord,
    Gallery,
    GalleryCounts,
    Held,
    KeptSample,
    MetadataAgreement,
    Migration,
    MissingSubject,
    OutcomeKind,
    Page,
    Subject,
    Sweep,
    ThresholdChange,
)
from service.errors import (
    CalibrationNotFound,
    CaseNotFound,
    CaseVoid,
    EncounterNotFound,
    EnrolmentNotFound,
    GalleryExists,
    GalleryNotFound,
    InvalidRequest,
    MigrationNotFound,
    SampleNotFound,
    SubjectNotFound,
    SweepNotFound,
)
from service.ports import KeptCalibration
from service.store.rows import gallery_settings
from tests.fake_agreements import FakeAgreements
from tests.fake_migrating import FakeMigrating
from tests.fake_packs import missing
from tests.fake_sweeping import FakeSweeping
from tests.fake_transactions import (
    KEY_RETENTION,
    FakeReading,
    FakeWriting,
    Key,
    Records,
    append_audit,
    existing,
    record_thresholds,
    sealed_reference,
)

T = TypeVar("T")


class FakeStore:
    """`service.ports.Store` in memory. Writers take turns, whatever their gallery."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._galleries: dict[str, Records] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        nothing = Gallery(SERVICE_CHAIN, "", 0.0, 0.0, 0.0, keep_samples=False, created_at=clock())
        self._service = Records(nothing)
        self.agreements = FakeAgreements(self._of, self._note)

    def _note(self, gallery_id: str | None, entry: NewEntry, now: datetime) -> None:
        with self._lock:
            records = self._service if gallery_id is None else self._of(gallery_id)
            append_audit(self._galleries, records, entry, now)

    def renew_timelines(self) -> None:
        with self._lock:
            for records in self._galleries.values():
                standby = uuid.uuid4().hex if records.gallery.standby_pack_id is not None else ""
                timeline = uuid.uuid4().hex
                records.gallery = replace(records.gallery, timeline_id=timeline, standby_timeline_id=standby)

    @contextmanager
    def reading(self) -> Iterator[FakeReading]:
        yield FakeReading(self._galleries)

    @contextmanager
    def writing(self, gallery_id: str, also: Sequence[str] = ()) -> Iterator[FakeWriting]:
        with self._lock:
            writing = FakeWriting(self._galleries, gallery_id, self._clock(), self._numbers, also)
            yield writing
            if writing.has_changed:
                self._galleries = writing.galleries

    def erasure_by(self, gallery_id: str, repeat_digest: str) -> ErasureRecord | None:
        records = self._galleries.get(gallery_id)
        found = [each for each in records.erasures if each.repeat_digest == repeat_digest] if records else []
        return found[0] if found else None

    def destroy_keys(self) -> None:
        """There are none."""

    @contextmanager
    def sweeping(self, gallery_id: str, other_gallery_id: str | None = None) -> Iterator[FakeSweeping]:
        with self._lock:
            sweeping = FakeSweeping(self._galleries, gallery_id, other_gallery_id, self._clock(), self._numbers)
            yield sweeping
            self._galleries = {**self._galleries, **sweeping.changed}

    @contextmanager
    def migrating(self, gallery_id: str) -> Iterator[FakeMigrating]:
        with self._lock:
            migrating = FakeMigrating(self._galleries, gallery_id, self._clock(), self._numbers)
            yield migrating
            self._galleries = migrating.galleries

    def unfinished_migrations(self) -> list[Migration]:
        found = [each for records in self._galleries.values() for each in records.migrations.values()]
        return sorted((each for each in found if each.needs_work), key=lambda each: each.job_id)

    def migration(self, gallery_id: str) -> Migration:
        migrations = self._of(gallery_id).migrations
        return existing(migrations, max(migrations, default=0), MigrationNotFound)

    def missing_subjects(self, gallery_id: str, pack_id: str, after: str | None, limit: int) -> Page[MissingSubject]:
        found = missing(self._of(gallery_id), pack_id)
        return _page([(each.subject_id, each) for each in found if after is None or each.subject_id > after], limit)

    def missing_count(self, gallery_id: str, pack_id: str) -> int:
        return len(missing(self._of(gallery_id), pack_id))

    def unfinished_sweeps(self) -> list[Sweep]:
        found = [each for records in self._galleries.values() for each in records.sweeps.values()]
        return sorted((each for each in found if not each.state.has_ended), key=lambda each: each.job_id)

    def remember_rejection(
        self, gallery_id: str, idempotency_key: str, content_digest: str, code: str, message: str
    ) -> None:
        with self._lock:
            records = existing(self._galleries, gallery_id, GalleryNotFound).copy()
            now = self._clock()
            taken = records.keys.get(idempotency_key)
            if taken is None or taken.created_at < now - KEY_RETENTION:
                records.keys[idempotency_key] = Key(content_digest, now, rejection_code=code, rejection_message=message)
            self._galleries = {**self._galleries, gallery_id: records}

    def create_gallery(self, gallery: Gallery) -> Gallery:
        with self._lock:
            if gallery.gallery_id in self._galleries:
                raise GalleryExists("there is a gallery of this name")
            records = Records(replace(gallery, last_seq=0, template_count=0, timeline_id=uuid.uuid4().hex))
            append_audit(
                {}, records, NewEntry(AuditEvent.GALLERY_CREATED, details=gallery_settings(gallery)), self._clock()
            )
            self._galleries = {**self._galleries, gallery.gallery_id: records}
            return records.gallery

    def update_gallery(
        self,
        gallery_id: str,
        revise: Callable[[Gallery], Gallery],
        threshold_change: Callable[[Gallery], ThresholdChange | None] = lambda _: None,
    ) -> Gallery:
        with self._lock:
            records = existing(self._galleries, gallery_id, GalleryNotFound).copy()
            wanted = revise(records.gallery)
            before = gallery_settings(records.gallery)
            records.gallery = replace(records.gallery, **{name: getattr(wanted, name) for name in GALLERY_SETTINGS})
            changed = {name: value for name, value in gallery_settings(wanted).items() if value != before[name]}
            if changed:
                append_audit({}, records, NewEntry(AuditEvent.GALLERY_CHANGED, details=changed), self._clock())
            record_thresholds(records, threshold_change(records.gallery), self._clock())
            self._galleries = {**self._galleries, gallery_id: records}
            return records.gallery

    def add_calibration(self, gallery_id: str, calibration: Calibration) -> None:
        with self._lock:
            records = existing(self._galleries, gallery_id, GalleryNotFound).copy()
            number = calibration.calibration_id
            if number not in records.calibrations:
                records.calibrations[number] = KeptCalibration(calibration, self._clock())
                details: dict[str, Detail] = {
                    "calibration_id": number,
                    "method": calibration.method,
                    "people": calibration.people,
                    "comparisons": calibration.comparisons,
                }
                append_audit({}, records, NewEntry(AuditEvent.CALIBRATION_ADDED, details=details), self._clock())
            self._galleries = {**self._galleries, gallery_id: records}

    def calibration(self, gallery_id: str, calibration_id: str) -> Calibration:
        return existing(self._of(gallery_id).calibrations, calibration_id, CalibrationNotFound).calibration

    def calibrations(self, gallery_id: str) -> list[KeptCalibration]:
        return list(self._of(gallery_id).calibrations.values())

    def record(self, entry: NewEntry, gallery_id: str | None = None) -> None:
        with self._lock:
            if gallery_id is None:
                append_audit({}, self._service, entry, self._clock())
                return
            records = self._of(gallery_id).copy()
            append_audit(self._galleries, records, entry, self._clock())
            self._galleries = {**self._galleries, gallery_id: records}

    def audit(
        self, gallery_id: str | None, after: str | None, limit: int, event: AuditEvent | None = None
    ) -> Page[AuditEntry]:
        records, start = self._service if gallery_id is None else self._of(gallery_id), _to_number(after)
        wanted = [each for each in records.audit.items() if event in {None, each[1].event}]
        return _page([each for each in wanted if each[0] > start], limit)

    def audit_heads(self) -> dict[str, ChainPoint]:
        chains = {SERVICE_CHAIN: self._service, **self._galleries}
        last = {chain: list(chains[chain].audit.values())[-1:] for chain in sorted(chains)}
        return {chain: ChainPoint(each[0].seq, each[0].hash) if each else ORIGIN for chain, each in last.items()}

    def audit_block(self, chain: str, after: int, limit: int) -> list[AuditEntry]:
        records = self._service if chain == SERVICE_CHAIN else self._galleries.get(chain)
        return [] if records is None else [each for number, each in records.audit.items() if number > after][:limit]

    def audit_about(self, gallery_id: str, subject_id: str) -> list[SubjectEntry]:
        found = []
        for records in (self._service, *self._galleries.values()):
            for (owner, whose, number), (position, seen) in records.about.items():
                if (owner, whose) == (gallery_id, subject_id):
                    entry = records.audit[number]
                    is_proven = entry.references[position] == sealed_reference(number, seen)
                    found.append(SubjectEntry(entry, seen.role, seen.encounter_id, is_proven))
        return sorted(found, key=lambda each: (each.entry.created_at, each.entry.chain, each.entry.seq))

    def galleries(self) -> list[Gallery]:
        return [self._galleries[each].gallery for each in sorted(self._galleries)]

    def subject(self, gallery_id: str, subject_id: str) -> Subject:
        return existing(self._of(gallery_id).subjects, subject_id, SubjectNotFound)

    def subjects(self, gallery_id: str, after: str | None, limit: int) -> Page[Subject]:
        subjects = self._of(gallery_id).subjects
        return _page([(each, subjects[each]) for each in sorted(subjects) if after is None or each > after], limit)

    def encounter(self, gallery_id: str, encounter_id: str) -> Encounter:
        return existing(self._of(gallery_id).encounters, encounter_id, EncounterNotFound)

    def encounters(self, gallery_id: str, subject_id: str | None, after: str | None, limit: int) -> Page[Encounter]:
        records, start = self._of(gallery_id), _to_number(after)
        by_seq = [(each.seq, records.encounters[each.encounter_id]) for each in records.enrolments.values()]
        wanted = [each for each in by_seq if subject_id is None or each[1].subject_id == subject_id]
        return _page([each for each in wanted if each[0] > start], limit)

    def enrolment(self, gallery_id: str, enrolment_id: str) -> Enrolment:
        return existing(self._of(gallery_id).enrolments, enrolment_id, EnrolmentNotFound)

    def enrolments(self, gallery_id: str, after: str | None, limit: int) -> Page[Enrolment]:
        records, start = self._of(gallery_id), _to_number(after)
        return _page([(each.seq, each) for each in records.enrolments.values() if each.seq > start], limit)

    def case(self, gallery_id: str, case_id: int) -> Case:
        return existing(self._of(gallery_id).cases, case_id, CaseNotFound)

    def cases(self, gallery_id: str, after: str | None, limit: int, job_id: int | None = None) -> Page[Case]:
        records, start = self._of(gallery_id), _to_number(after)
        wanted = [each for each in records.cases.items() if job_id in {None, each[1].job_id}]
        return _page([each for each in wanted if each[0] > start], limit)

    def held_about(self, gallery_id: str, subject_id: str) -> Held:
        records = self._of(gallery_id)
        subject = existing(records.subjects, subject_id, SubjectNotFound)
        every = sorted(
            (case for each in self._galleries.values() for case in each.cases.values()), key=lambda each: each.case_id
        )
        return Held(
            subject,
            tuple(records.encounters[each] for each in subject.encounter_ids),
            tuple(each for each in records.enrolments.values() if each.subject_id == subject_id),
            tuple((each, position) for each in subject.encounter_ids for position in sorted(records.samples[each])),
            tuple(each for each in records.cases.values() if each.subject_id == subject_id),
            tuple(each for each in every if (gallery_id, subject_id) in self._candidates_of(each)),
        )

    def _candidates_of(self, case: Case) -> set[tuple[str, str | None]]:
        found = [case.candidate] if case.candidate is not None else []
        if case.kind is CaseKind.DUPLICATE:
            found = list(self._galleries[case.gallery_id].enrolments[case.enrolment_id].candidates)
        return {(each.gallery_id or case.gallery_id, each.subject_id) for each in found}

    def kept_sample(self, gallery_id: str, encounter_id: str, position: int) -> KeptSample:
        records = self._of(gallery_id)
        encounter = existing(records.encounters, encounter_id, EncounterNotFound)
        return KeptSample(encounter.subject_id, existing(records.samples[encounter_id], position, SampleNotFound))

    def sweep(self, gallery_id: str, job_id: int) -> Sweep:
        return existing(self._of(gallery_id).sweeps, job_id, SweepNotFound)

    def sweeps(self, gallery_id: str, after: str | None, limit: int) -> Page[Sweep]:
        records, start = self._of(gallery_id), _to_number(after)
        return _page([each for each in records.sweeps.items() if each[0] > start], limit)

    def gallery_counts(self, gallery_id: str) -> GalleryCounts:
        records = self._of(gallery_id)
        outcomes = sorted(each.outcome for each in records.enrolments.values())
        return GalleryCounts(
            subjects=len(records.subjects),
            encounters=len(records.encounters),
            templates=records.gallery.template_count,
            biometric_exceptions=sum(each.biometric_exception is not None for each in records.encounters.values()),
            open_cases=self.open_case_count(gallery_id),
            outcomes=tuple((OutcomeKind(kind), len(list(same))) for kind, same in itertools.groupby(outcomes)),
        )

    def metadata_agreement(
        self, gallery_id: str, *, by_sex: bool, birth_year_tolerance: int | None
    ) -> MetadataAgreement:
        verdicts = []
        encounters = self._galleries[gallery_id].encounters if gallery_id in self._galleries else {}
        for subject_id in {each.subject_id for each in encounters.values()}:
            facts = [each.facts for each in encounters.values() if each.subject_id == subject_id]
            sexes = [each.sex for each in facts if by_sex and each.sex in FILTERED_SEXES]
            years = [each.birth_year for each in facts if each.birth_year is not None]
            years = [] if birth_year_tolerance is None else years
            if len(sexes) > 1 or len(years) > 1:
                spread = max(years, default=0) - min(years, default=0)
                verdicts.append(len(set(sexes)) > 1 or spread > (birth_year_tolerance or 0))
        return MetadataAgreement(len(verdicts), sum(verdicts))

    def open_case_count(self, gallery_id: str) -> int:
        records = self._galleries.get(gallery_id)
        return sum(each.status is CaseStatus.OPEN for each in records.cases.values()) if records is not None else 0

    def decide_case(self, gallery_id: str, case_id: int, decision: CaseDecision) -> Case:
        verdict, decided_by = decision.verdict, decision.decided_by
        with self._lock:
            records = self._of(gallery_id)
            before = existing(records.cases, case_id, CaseNotFound)
            if before.status is CaseStatus.VOID:
                raise CaseVoid("the records it compared were erased: there is nothing left to decide")
            who = None if verdict is None else decided_by
            if (before.verdict, before.decided_by) == (verdict, who):
                return before
            now = self._clock()
            records.cases[case_id] = replace(
                before,
                status=CaseStatus.OPEN if verdict is None else CaseStatus.DECIDED,
                verdict=verdict,
                decided_by=who,
                decided_at=None if verdict is None else now,
            )
            details = {"case_id": case_id, "verdict": verdict, "before": before.verdict, "decided_by": decided_by}
            found = records.enrolments[before.enrolment_id].candidates if before.candidate is None else ()
            people = (*seen_in_case(before), *seen_in_candidates(found))
            decided = NewEntry(AuditEvent.CASE_DECIDED, verdict and verdict.value, details, people)
            append_audit(self._galleries, records, decided, now)
            return records.cases[case_id]

    def verdict_counts(self, gallery_id: str) -> dict[tuple[CaseKind, CaseVerdict], int]:
        cases = self._galleries[gallery_id].cases.values() if gallery_id in self._galleries else ()
        return dict(Counter((each.kind, each.verdict) for each in cases if each.verdict is not None))

    def same_people(self, gallery_id: str) -> list[tuple[str, str]]:
        found = []
        records = self._of(gallery_id)
        for case in records.cases.values():
            if case.verdict is not CaseVerdict.SAME_PERSON or case.kind is CaseKind.CONTINUITY:
                continue
            other = case.candidate or records.enrolments[case.enrolment_id].candidates[0]
            if other.subject_id is not None and other.gallery_id in {None, gallery_id}:
                found.append((case.subject_id, other.subject_id))
        return found

    def _of(self, gallery_id: str) -> Records:
        return existing(self._galleries, gallery_id, GalleryNotFound)


def _to_number(after: str | None) -> int:
    if after is not None and not (after.isascii() and after.isdigit() and int(after) < 2**63):
        raise InvalidRequest("the cursor `after` is none that this listing gave")
    return int(after or 0)


def _page(found: Sequence[tuple[str | int, T]], limit: int) -> Page[T]:
    last = str(found[limit - 1][0]) if len(found) > limit else None
    return Page(tuple(item for _, item in found[:limit]), last)
