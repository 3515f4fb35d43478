"""The write transaction of one gallery: an enrolment, with all that it puts into the record.

A little over 300 lines: what one change writes stands in one place.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import BigInteger, Connection, Text, bindparam, func, insert, select, update

from service.audit_chain import AuditEvent, NewEntry, SeenSubject
from service.audit_people import enrolment_recorded, searched_by_another
from service.domain import (
    CaseStatus,
    Encounter,
    EncounterStatus,
    Enrolment,
    Erasure,
    ErasureRecord,
    Gallery,
    NewEnrolment,
    NewTemplate,
    SampleFinding,
    ThresholdChange,
)
from service.erasure_ledger import LedgerLine
from service.errors import EncounterExists, GalleryNotFound, IdempotencyKeyReused, SubjectNotFound
from service.ports import SubjectCipher
from service.receipts import ErasureTerms, erasure_record
from service.store.auditing import Recorder, forget_subject
from service.store.calibrating import record_thresholds
from service.store.counts import Growth, growth_of
from service.store.erasing import clear_subject, move_encounter
from service.store.erasures import insert_erasure, is_repeated
from service.store.holds import expect_no_hold
from service.store.keys import insert_key, insert_or_ignore, purge_keys
from service.store.metadata_counts import count_in
from service.store.prepared import Prepared
from service.store.reading import SqlReading
from service.store.rows import (
    candidate_columns,
    finding_json,
    findings_of,
    flat,
    gallery_of,
    searched_json,
    template_columns,
)
from service.store.sealing import Sealing, key_of
from service.store.several import searched_counts, several_growth
from service.store.standby_cases import open_standby_cases
from service.store.tables import (
    candidates,
    candidates_elsewhere,
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
        standby_template_count=galleries.c.standby_template_count + bindparam("standby_growth"),
        paired_count=galleries.c.paired_count + bindparam("paired_growth"),
        model_id=func.coalesce(galleries.c.model_id, bindparam("made_by", type_=Text)),
    )
)
_INSERT_SUBJECT = Prepared(lambda dialect_name: insert_or_ignore(dialect_name, subjects))
_INSERT_ENCOUNTER = Prepared(lambda dialect_name: insert_or_ignore(dialect_name, encounters))
_INSERT_TEMPLATE = Prepared(insert(templates).returning(templates.c.reference_id))
_INSERT_SAMPLE = Prepared(insert(samples))
_INSERT_ENROLMENT = Prepared(insert(enrolments))
_INSERT_CANDIDATE = Prepared(insert(candidates))
_INSERT_CANDIDATE_ELSEWHERE = Prepared(insert(candidates_elsewhere))
_INSERT_CASE = Prepared(insert(cases).returning(cases.c.case_id))
_INSERT_CHANGE = Prepared(insert(changes))


class SqlWriting(SqlReading):
    """`service.ports.Writing` on one connection. The store commits it, and only if a change was made."""

    def __init__(
        self,
        connection: Connection,
        gallery_id: str,
        now: datetime,
        cipher: SubjectCipher,
        recorder: Recorder,
        *,
        also: Sequence[str] = (),
    ) -> None:
        """Take the gallery's lock, and with it its next number, and the locks of others. Raises GalleryNotFound."""
        super().__init__(connection, cipher)
        self._sealing = Sealing(cipher, gallery_id)
        self._locked: dict[str, Gallery] = {}
        # in one order, so that no two who name each other's gallery wait for each other
        for each in sorted({gallery_id, *also}):
            if (row := _LOCK.one_or_none(connection, {"locked": each})) is None:
                raise GalleryNotFound("there is no such gallery")
            self._locked[each] = gallery_of(row)
        self._gallery_id = gallery_id
        self._before = self._locked[gallery_id]
        self._seq = self._before.last_seq + 1
        self._now = now
        self._recorder = recorder
        self._has_changed = False
        self._has_erased = False

    @property
    def seq(self) -> int:
        return self._seq

    @property
    def connection(self) -> Connection:
        """For what else belongs into the transaction."""
        return self._connection

    @property
    def has_changed(self) -> bool:
        return self._has_changed

    @property
    def has_erased(self) -> bool:
        return self._has_erased

    def gallery(self, gallery_id: str) -> Gallery:
        """Return a gallery as it was when its lock was taken: `last_seq` is the change before this one."""
        return self._locked[gallery_id] if gallery_id in self._locked else super().gallery(gallery_id)

    def insert_enrolment(self, enrolment: NewEnrolment) -> Enrolment:
        """Write an enrolment with everything it brings, as this transaction's change.

        Raises:
            EncounterExists: the encounter is enrolled already.
            IdempotencyKeyReused: the key belongs to another enrolment of the last 24 hours.
        """
        self._expect_no_change()
        is_new, key_id = self._insert_subject(enrolment.subject_id)
        self._insert_encounter(enrolment, key_id)
        reference_ids = self._insert_templates(key_id, enrolment.encounter_id, enrolment.templates)
        standby_ids = self._insert_templates(key_id, enrolment.encounter_id, enrolment.standby_templates)
        count_in(self._connection, self._gallery_id, enrolment.facts.capture(), len(reference_ids))
        findings = findings_of(enrolment, reference_ids)
        self._insert_finding(enrolment, findings)
        case_ids = self._insert_cases(enrolment)
        if enrolment.standby_candidates:
            open_standby_cases(self._connection, self._gallery_id, enrolment, self._now)
        self._insert_key(enrolment)
        model_id = enrolment.templates[0].model_id if enrolment.templates else None
        added = sorted([*reference_ids.values(), *standby_ids.values()])
        growth = Growth(len(reference_ids), len(standby_ids), len(reference_ids.keys() & standby_ids.keys()))
        # nobody has templates of a subject that is new
        searched = {enrolment.subject_id: growth.samples} if is_new else self._searched(enrolment.subject_id)
        several = several_growth(searched, {enrolment.subject_id: growth.samples})
        self._record_change("enrolment", added=added, growth=growth, several=several, model_id=model_id)
        self._note_searches()
        if self._seq % CHANGES_BETWEEN_PURGES == 0:
            purge_keys(self._connection, self._gallery_id, self._now)
        self._record_enrolment(enrolment, len(case_ids), key_id)  # last: it takes the heads of the chains
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

    def _record_enrolment(self, enrolment: NewEnrolment, case_count: int, key_id: str | None) -> None:
        """Write into the chain of every gallery whose lock is held, in the order of their names."""
        for each in sorted(self._locked):
            if each == self._gallery_id:
                self._record_thresholds(enrolment.threshold_change)
                self._record(enrolment_recorded(enrolment, case_count), (enrolment.subject_id, key_id))
            else:
                entry = searched_by_another(enrolment, self._gallery_id, each)
                self._recorder.write(self._connection, each, entry, self._now)

    def _note_searches(self) -> None:
        """Note how far the other galleries were seen: an encounter that was out of them then is not made active again.

        Else it and whoever was enrolled here would never have been compared.
        """
        for each in sorted(self._locked.keys() - {self._gallery_id}):
            seen = update(galleries).where(galleries.c.gallery_id == each)
            self._connection.execute(seen.values(searched_seq=self._locked[each].last_seq))

    def erase_subject(
        self, subject_id: str, terms: ErasureTerms | None = None, replayed: LedgerLine | None = None
    ) -> Erasure:
        """Delete all that the record holds of a subject.

        In what was found for others its ids become null and the score stays; their duplicate cases without a
        candidate that is left become VOID.

        Args:
            subject_id: whom.
            terms: of the receipt; None: the usual ones, and nobody gets it.
            replayed: what the ledger says of the erasure before a restore that this one repeats.

        Raises:
            SubjectNotFound: there is none, or for a replay: it was enrolled anew since, under another key.
            LegalHold
            IdempotencyKeyReused: a request of the same key erased somebody else.
        """
        self._expect_no_change()
        if replayed is None:  # a hold came too late for what was erased before the restore
            expect_no_hold(self._connection, self._gallery_id, subject_id)
        elif key_of(self._connection, self._gallery_id, subject_id) != replayed.key_id:
            raise SubjectNotFound("there is no such subject under this key")
        cleared = clear_subject(self._connection, self._gallery_id, subject_id)
        moved, parts = cleared.moved, cleared.parts
        growth = growth_of(self._before, moved.active).negated()
        several = several_growth({}, {subject_id: growth.samples})
        self._record_change("erasure", removed=moved.reference_ids, growth=growth, several=several)
        self._has_erased = True
        forget_subject(self._connection, self._gallery_id, subject_id)
        record = erasure_record(
            terms or ErasureTerms(),
            self._gallery_id,
            subject_id,
            key_id=cleared.key_id,
            parts=parts,
            seq=self._seq,
            now=self._now,
        )
        if replayed is not None:
            record = self._as_before(record, replayed)
        insert_erasure(self._connection, record)
        event = AuditEvent.SUBJECT_ERASED if replayed is None else AuditEvent.SUBJECT_ERASED_AGAIN
        counts = {"encounters": parts.encounters, "templates": parts.templates, "samples": parts.samples}
        self._record(NewEntry(event, details={**counts, "receipt_digest": record.digest}))
        return Erasure(record)

    def _as_before(self, again: ErasureRecord, line: LedgerLine) -> ErasureRecord:
        """Return what the register keeps of an erasure that is repeated: what its receipt says, if that is known."""
        if line.record is None:
            return replace(again, receipt_id=line.receipt_id or again.receipt_id, digest=line.digest or again.digest)
        before = replace(line.record, seq=again.seq)
        return replace(before, repeat_digest=None) if is_repeated(self._connection, before) else before

    def set_encounter_status(self, encounter_id: str, status: EncounterStatus) -> Encounter:
        """Take an encounter out of the search, back into it, or withdraw it for good.

        The status that it has already is no change: the encounter is returned and no number is used.

        Raises:
            EncounterNotFound: there is no such encounter in this gallery.
            EncounterWithdrawn: it was withdrawn and cannot get another status.
            EncounterOutdated: others came while it was inactive, and were not compared with it.
            LegalHold: it was to be withdrawn, and its subject or gallery is held.
        """
        self._expect_no_change()
        encounter, moved = move_encounter(
            self._connection, self._gallery_id, encounter_id, status, self._seq, cipher=self._cipher
        )
        if moved is not None:
            returns = status is EncounterStatus.ACTIVE
            gone = growth_of(self._before, moved.active).negated()
            growth = growth_of(self._before, moved.places) if returns else gone
            self._record_change(
                status.value,
                added=moved.reference_ids if returns else (),
                removed=() if returns else moved.reference_ids,
                growth=growth,
                several=several_growth(self._searched(encounter.subject_id), {encounter.subject_id: growth.samples}),
            )
            self._has_erased = status is EncounterStatus.WITHDRAWN
            whose = SeenSubject(encounter.subject_id, encounter_id=encounter_id)
            self._record(NewEntry(AuditEvent.ENCOUNTER_CHANGED, status.value, subjects=(whose,)))
        return encounter

    def _record(self, entry: NewEntry, known: tuple[str, str | None] | None = None) -> None:
        self._recorder.write(self._connection, self._gallery_id, entry, self._now, known)

    def _record_thresholds(self, change: ThresholdChange | None) -> None:
        record_thresholds(self._connection, self._gallery_id, change, self._now, self._recorder)

    def _expect_no_change(self) -> None:
        if self._has_changed:
            raise RuntimeError("a write transaction makes one change")

    def _searched(self, subject_id: str) -> dict[str, int]:
        return searched_counts(self._connection, self._before, [subject_id])

    def _insert_subject(self, subject_id: str) -> tuple[bool, str | None]:
        """Return whether the subject is new, and the id of its data key."""
        drawn = self._cipher.take_keys(self._gallery_id, 1)
        row = {"gallery_id": self._gallery_id, "subject_id": subject_id, "created_at": self._now, "key_id": drawn[0]}
        if _INSERT_SUBJECT.run(self._connection, row).rowcount > 0:
            return True, drawn[0]
        self._cipher.give_back(self._gallery_id, drawn)
        # as it is under the gallery's lock: an erasure destroys the key only after it took the row away under that lock
        return False, key_of(self._connection, self._gallery_id, subject_id)

    def _insert_encounter(self, enrolment: NewEnrolment, key_id: str | None) -> None:
        inserted = _INSERT_ENCOUNTER.run(
            self._connection,
            {
                "gallery_id": self._gallery_id,
                "encounter_id": enrolment.encounter_id,
                "subject_id": enrolment.subject_id,
                "seq": self._seq,
                "status": EncounterStatus.ACTIVE.value,
                "status_seq": self._seq,
                **self._sealing.facts(key_id, enrolment.encounter_id, enrolment.facts, enrolment.content_digest),
                "biometric_exception": enrolment.biometric_exception,
                "created_at": self._now,
            },
        )
        if inserted.rowcount == 0:
            raise EncounterExists("the encounter is enrolled already")

    def _insert_templates(
        self, key_id: str | None, encounter_id: str, templates: Sequence[NewTemplate]
    ) -> dict[int, int]:
        """Return the reference id by the position of its sample."""
        owner = {"gallery_id": self._gallery_id, "encounter_id": encounter_id}
        reference_ids: dict[int, int] = {}
        for each in templates:
            place = key_id, encounter_id, each.position
            embedding = self._sealing.template(*place, each.template.pack_id, each.template.embedding)
            row = {**owner, **template_columns(each), "active": True, "embedding": embedding}
            reference_ids[each.position] = _INSERT_TEMPLATE.run(self._connection, row).scalar_one()
            if each.sample is not None:
                image = self._sealing.sample(*place, each.sample)
                _INSERT_SAMPLE.run(self._connection, {**owner, "position": each.position, "image": image})
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
            values = {**owner, **candidate_columns(candidate)}
            if candidate.gallery_id is None:
                _INSERT_CANDIDATE.run(self._connection, values)
            else:
                elsewhere = {**values, "other_gallery_id": candidate.gallery_id}
                _INSERT_CANDIDATE_ELSEWHERE.run(self._connection, elsewhere)

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
            # a digest of a photograph: it is read, sealed, from the encounter
            "content_digest": enrolment.content_digest if self._cipher.is_plain else "",
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
        growth: Growth = Growth(),  # noqa: B008  (frozen)
        several: int = 0,
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
                "growth": growth.ruling,
                "standby_growth": growth.standby,
                "paired_growth": growth.paired,
                "several_growth": several,
                "made_by": model_id,
            },
        )
        self._has_changed = True
