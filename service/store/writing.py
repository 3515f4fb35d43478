"""The write transaction of one gallery: an enrolment, with all that it puts into the record."""

from datetime import datetime

from sqlalchemy import BigInteger, Connection, Text, bindparam, func, insert, select, update

from service.domain import (
    CaseStatus,
    Encounter,
    EncounterStatus,
    Enrolment,
    Erasure,
    Gallery,
    NewEnrolment,
    SampleFinding,
)
from service.errors import EncounterExists, GalleryNotFound, IdempotencyKeyReused
from service.store.calibrating import record_thresholds
from service.store.erasing import clear_subject, move_encounter
from service.store.keys import insert_key, insert_or_ignore, purge_keys
from service.store.metadata_counts import count_in
from service.store.prepared import Prepared
from service.store.reading import SqlReading
from service.store.rows import (
    candidate_columns,
    facts_columns,
    finding_json,
    flat,
    gallery_of,
    searched_json,
    template_columns,
)
from service.store.several import searched_counts, several_growth
from service.store.tables import (
    candidates,
    cases,
    changes,
    encounters,
    enrolments,
    galleries,
    samples,
    subjects,
    templates,
)

CHANGES_BETWEEN_PURGES = 100

# on SQLite the transaction itself is the lock; of PostgreSQL's, the one that an UPDATE takes
_LOCK = Prepared(select(galleries).where(galleries.c.gallery_id == bindparam("locked")).with_for_update(key_share=True))
_USE_NEXT_SEQ = Prepared(
    update(galleries)
    .where(galleries.c.gallery_id == bindparam("changed"))
    .values(
        last_seq=bindparam("number", type_=BigInteger),
        template_count=galleries.c.template_count + bindparam("growth"),
        several_count=galleries.c.several_count + bindparam("several_growth"),
        model_id=func.coalesce(galleries.c.model_id, bindparam("made_by", type_=Text)),
    )
)
_INSERT_SUBJECT = Prepared(lambda dialect_name: insert_or_ignore(dialect_name, subjects))
_INSERT_ENCOUNTER = Prepared(lambda dialect_name: insert_or_ignore(dialect_name, encounters))
_INSERT_TEMPLATE = Prepared(insert(templates).returning(templates.c.reference_id))
_INSERT_SAMPLE = Prepared(insert(samples))
_INSERT_ENROLMENT = Prepared(insert(enrolments))
_INSERT_CANDIDATE = Prepared(insert(candidates))
_INSERT_CASE = Prepared(insert(cases).returning(cases.c.case_id))
_INSERT_CHANGE = Prepared(insert(changes))


class SqlWriting(SqlReading):
    """`service.ports.Writing` on one connection. The store commits it, and only if a change was made."""

    def __init__(self, connection: Connection, gallery_id: str, now: datetime) -> None:
        """Take the gallery's lock, and with it its next number. Raises GalleryNotFound."""
        super().__init__(connection)
        row = _LOCK.one_or_none(connection, {"locked": gallery_id})
        if row is None:
            raise GalleryNotFound("there is no such gallery")
        self._gallery_id = gallery_id
        self._before = gallery_of(row)
        self._seq = self._before.last_seq + 1
        self._now = now
        self._has_changed = False
        self._has_erased = False

    @property
    def seq(self) -> int:
        return self._seq

    @property
    def has_changed(self) -> bool:
        return self._has_changed

    @property
    def has_erased(self) -> bool:
        return self._has_erased

    def gallery(self, gallery_id: str) -> Gallery:
        """Return the gallery as it was when its lock was taken: `last_seq` is the change before this one."""
        return self._before if gallery_id == self._gallery_id else super().gallery(gallery_id)

    def insert_enrolment(self, enrolment: NewEnrolment) -> Enrolment:
        """Write an enrolment with everything it brings, as this transaction's change.

        Raises:
            EncounterExists: the encounter is enrolled already.
            IdempotencyKeyReused: the key belongs to another enrolment of the last 24 hours.
        """
        self._expect_no_change()
        is_new = self._insert_encounter(enrolment)
        reference_ids = self._insert_templates(enrolment)
        count_in(self._connection, self._gallery_id, enrolment.facts.capture(), len(reference_ids))
        findings = _findings(enrolment, reference_ids)
        self._insert_finding(enrolment, findings)
        case_ids = self._insert_cases(enrolment)
        self._insert_key(enrolment)
        record_thresholds(self._connection, self._gallery_id, enrolment.threshold_change, self._now)
        model_id = enrolment.templates[0].model_id if enrolment.templates else None
        added = sorted(reference_ids.values())
        # nobody has templates of a subject that is new
        searched = {enrolment.subject_id: len(added)} if is_new else self._searched(enrolment.subject_id)
        several = several_growth(searched, {enrolment.subject_id: len(added)})
        self._record_change("enrolment", added=added, growth=len(added), several=several, model_id=model_id)
        if self._seq % CHANGES_BETWEEN_PURGES == 0:
            purge_keys(self._connection, self._gallery_id, self._now)
        return Enrolment(
            enrolment_id=enrolment.enrolment_id,
            gallery_id=self._gallery_id,
            subject_id=enrolment.subject_id,
            encounter_id=enrolment.encounter_id,
            outcome=enrolment.outcome,
            candidates=tuple(sorted(enrolment.candidates, key=lambda each: each.rank)),
            thresholds=enrolment.thresholds,
            searched=enrolment.searched,
            continuity=enrolment.continuity,
            samples=tuple(findings),
            biometric_exception=enrolment.biometric_exception,
            case_ids=tuple(case_ids),
            warnings=enrolment.warnings,
            seq=self._seq,
            created_at=self._now,
        )

    def erase_subject(self, subject_id: str) -> Erasure:
        """Delete all that the record holds of a subject; raises SubjectNotFound.

        In what was found for others its ids become null and the score stays; their duplicate cases without a
        candidate that is left become VOID.
        """
        self._expect_no_change()
        moved, encounter_count, sample_count = clear_subject(self._connection, self._gallery_id, subject_id)
        several = several_growth({}, {subject_id: -moved.active_count})
        self._record_change("erasure", removed=moved.reference_ids, growth=-moved.active_count, several=several)
        self._has_erased = True
        return Erasure(encounter_count, len(moved.reference_ids), sample_count, self._seq)

    def set_encounter_status(self, encounter_id: str, status: EncounterStatus) -> Encounter:
        """Take an encounter out of the search, back into it, or withdraw it for good.

        The status that it has already is no change: the encounter is returned and no number is used.

        Raises:
            EncounterNotFound: there is no such encounter in this gallery.
            EncounterWithdrawn: it was withdrawn and cannot get another status.
            EncounterOutdated: others came while it was inactive, and were not compared with it.
        """
        self._expect_no_change()
        encounter, moved = move_encounter(self._connection, self._gallery_id, encounter_id, status, self._seq)
        if moved is not None:
            returns = status is EncounterStatus.ACTIVE
            growth = len(moved.reference_ids) if returns else -moved.active_count
            self._record_change(
                status.value,
                added=moved.reference_ids if returns else (),
                removed=() if returns else moved.reference_ids,
                growth=growth,
                several=several_growth(self._searched(encounter.subject_id), {encounter.subject_id: growth}),
            )
            self._has_erased = status is EncounterStatus.WITHDRAWN
        return encounter

    def _expect_no_change(self) -> None:
        if self._has_changed:
            raise RuntimeError("a write transaction makes one change")

    def _searched(self, subject_id: str) -> dict[str, int]:
        return searched_counts(self._connection, self._gallery_id, [subject_id])

    def _insert_encounter(self, enrolment: NewEnrolment) -> bool:
        """Return whether its subject is new."""
        subject = _INSERT_SUBJECT.run(
            self._connection,
            {"gallery_id": self._gallery_id, "subject_id": enrolment.subject_id, "created_at": self._now},
        )
        inserted = _INSERT_ENCOUNTER.run(
            self._connection,
            {
                "gallery_id": self._gallery_id,
                "encounter_id": enrolment.encounter_id,
                "subject_id": enrolment.subject_id,
                "seq": self._seq,
                "status": EncounterStatus.ACTIVE.value,
                "status_seq": self._seq,
                **facts_columns(enrolment.facts),
                "biometric_exception": enrolment.biometric_exception,
                "content_digest": enrolment.content_digest,
                "created_at": self._now,
            },
        )
        if inserted.rowcount == 0:
            raise EncounterExists("the encounter is enrolled already")
        return subject.rowcount > 0

    def _insert_templates(self, enrolment: NewEnrolment) -> dict[int, int]:
        """Return the reference id by the position of its sample."""
        owner = {"gallery_id": self._gallery_id, "encounter_id": enrolment.encounter_id}
        reference_ids: dict[int, int] = {}
        for each in enrolment.templates:
            row = {**owner, **template_columns(each), "active": True}
            reference_ids[each.position] = _INSERT_TEMPLATE.run(self._connection, row).scalar_one()
            if each.sample is not None:
                _INSERT_SAMPLE.run(self._connection, {**owner, "position": each.position, "image": each.sample})
        return reference_ids

    def _insert_finding(self, enrolment: NewEnrolment, findings: list[SampleFinding]) -> None:
        owner = {"gallery_id": self._gallery_id, "enrolment_id": enrolment.enrolment_id}
        _INSERT_ENROLMENT.run(
            self._connection,
            {
                **owner,
                "seq": self._seq,
                "encounter_id": enrolment.encounter_id,
                "outcome": enrolment.outcome.value,
                "thresholds": flat(enrolment.thresholds) if enrolment.thresholds else None,
                "searched": searched_json(enrolment.searched) if enrolment.searched else None,
                "continuity": flat(enrolment.continuity) if enrolment.continuity else None,
                "samples": [finding_json(each) for each in findings],
                "warnings": enrolment.warnings,
                "created_at": self._now,
            },
        )
        for candidate in enrolment.candidates:
            _INSERT_CANDIDATE.run(self._connection, {**owner, **candidate_columns(candidate)})

    def _insert_cases(self, enrolment: NewEnrolment) -> list[int]:
        owner = {"gallery_id": self._gallery_id, "enrolment_id": enrolment.enrolment_id}
        opened = {"status": CaseStatus.OPEN.value, "created_at": self._now}
        return [
            _INSERT_CASE.run(self._connection, {**owner, **opened, "kind": kind.value}).scalar_one()
            for kind in enrolment.cases
        ]

    def _insert_key(self, enrolment: NewEnrolment) -> None:
        if enrolment.idempotency_key is None:
            return
        row = {
            "gallery_id": self._gallery_id,
            "key": enrolment.idempotency_key,
            "content_digest": enrolment.content_digest,
            "subject_id": enrolment.subject_id,
            "enrolment_id": enrolment.enrolment_id,
            "created_at": self._now,
        }
        if not insert_key(self._connection, row):
            raise IdempotencyKeyReused("the Idempotency-Key was used for another request")

    def _record_change(
        self,
        kind: str,
        *,
        added: list[int] | tuple[int, ...] = (),
        removed: list[int] | tuple[int, ...] = (),
        growth: int,
        several: int,
        model_id: str | None = None,
    ) -> None:
        _INSERT_CHANGE.run(
            self._connection,
            {
                "gallery_id": self._gallery_id,
                "seq": self._seq,
                "kind": kind,
                "added_ids": added,
                "removed_ids": removed,
                "created_at": self._now,
            },
        )
        _USE_NEXT_SEQ.run(
            self._connection,
            {
                "changed": self._gallery_id,
                "number": self._seq,
                "growth": growth,
                "several_growth": several,
                "made_by": model_id,
            },
        )
        self._has_changed = True


def _findings(enrolment: NewEnrolment, reference_ids: dict[int, int]) -> list[SampleFinding]:
    accepted = [
        SampleFinding(
            position=each.position,
            reference_id=reference_ids[each.position],
            rejection_code=None,
            quality=each.template.quality,
            box=each.template.box,
        )
        for each in enrolment.templates
    ]
    return sorted([*accepted, *enrolment.rejected_samples], key=lambda finding: finding.position)
