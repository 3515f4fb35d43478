"""The transaction that works on a gallery's sweeps: their progress, and the cases of the pairs they found."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Column, Connection, Join, func, insert, select, update

from service.audit_chain import AuditEvent, Detail, NewEntry
from service.domain import CaseKind, CaseStatus, FoundPair, Gallery, JobState, Lease, Sweep, SweepStep
from service.errors import SweepNotFound, SweepUnderway
from service.ports import SubjectCipher
from service.store.auditing import Recorder
from service.store.leases import release_lease, take_lease
from service.store.parts import IDS_PER_STATEMENT, in_parts
from service.store.reading import SqlReading, read_gallery
from service.store.rows import AnyRow, candidate_columns, to_sweep
from service.store.standby_cases import SWEEP_KIND
from service.store.tables import (
    candidates,
    candidates_elsewhere,
    case_pairs,
    cases,
    encounters,
    enrolments,
    galleries,
    jobs,
    templates,
)

PairKey = frozenset[tuple[str, str | None]]
"""Two subjects, each with its gallery."""

_UNFINISHED = (JobState.QUEUED.value, JobState.RUNNING.value)
_PAIRS_PER_STATEMENT = IDS_PER_STATEMENT // 4  # a pair is two ids, and each list of ids is sent twice
_INSERT_CASES = insert(cases).returning(cases.c.case_id, sort_by_parameter_order=True)


class SqlSweeping(SqlReading):
    """`service.ports.Sweeping` on one connection, which the store commits."""

    def __init__(
        self,
        connection: Connection,
        gallery_id: str,
        other_gallery_id: str | None,
        now: datetime,
        *,
        cipher: SubjectCipher,
        recorder: Recorder,
    ) -> None:
        """Take the locks of the galleries. Raises GalleryNotFound."""
        super().__init__(connection, cipher)
        self._searched_id = other_gallery_id or gallery_id
        self._both = sorted({gallery_id, self._searched_id})
        # on SQLite the transaction itself is the lock; in one order, so that no two sweeps wait for each other
        locked = select(galleries.c.gallery_id).where(galleries.c.gallery_id.in_(self._both))
        connection.execute(locked.order_by(galleries.c.gallery_id).with_for_update()).all()
        read_gallery(connection, gallery_id)
        self._searched: Gallery = read_gallery(connection, self._searched_id)
        self._gallery_id = gallery_id
        self._other_gallery_id = other_gallery_id
        self._now = now
        self._recorder = recorder

    def begin_sweep(self, allowed_false_pairs: int, threshold: float) -> Sweep:
        """Queue a sweep over the references that are searched now, against the other gallery where there is one.

        Raises:
            SweepUnderway
        """
        is_sweep = jobs.c.gallery_id == self._gallery_id, jobs.c.kind == SWEEP_KIND
        if self._connection.execute(select(jobs.c.job_id).where(*is_sweep, jobs.c.state.in_(_UNFINISHED))).first():
            raise SweepUnderway("a sweep of this gallery has not ended yet")
        total = func.count().filter(templates.c.gallery_id == self._gallery_id)
        own = read_gallery(self._connection, self._gallery_id)
        # both galleries have one pack: else they could not be compared
        searched = templates.c.gallery_id.in_(self._both), templates.c.active, templates.c.pack_id == own.pack_id
        total, last = self._connection.execute(
            # one number ends both sides: the galleries share the numbers of their references
            select(total, func.max(templates.c.reference_id)).where(*searched)
        ).one()
        row = {
            "gallery_id": self._gallery_id,
            "kind": SWEEP_KIND,
            "state": JobState.QUEUED.value,
            "allowed_false_pairs": allowed_false_pairs,
            "threshold": threshold,
            "cursor": 0,
            "last_reference_id": last or 0,
            "started_seq": self._searched.last_seq,
            "done": 0,
            "total": total,
            "found_pairs": 0,
            "cases_opened": 0,
            "worked_s": 0.0,
            "created_at": self._now,
            "updated_at": self._now,
            "other_gallery_id": self._other_gallery_id,
            "left_out": own.standby_only_count + (self._searched.standby_only_count if self._other_gallery_id else 0),
        }
        begun = to_sweep(self._connection.execute(insert(jobs).values(row).returning(*jobs.c)).one())
        self._record(AuditEvent.SWEEP_BEGUN, None, {"job_id": begun.job_id, "templates": total})
        return begun

    def lease_sweep(self, job_id: int, lease: Lease) -> Sweep | None:
        """Take a sweep to work on it; None where it ended or somebody else is at it. Raises SweepNotFound."""
        self._row(job_id)
        row = take_lease(self._connection, job_id, lease, jobs.c.state.in_(_UNFINISHED), self._now)
        return None if row is None else to_sweep(row)

    def release_sweep(self, job_id: int, owner: str) -> None:
        """Let somebody else go on with it, if it is this owner's."""
        release_lease(self._connection, self._gallery_id, job_id, owner)

    def advance_sweep(self, job_id: int, lease: Lease, step: SweepStep) -> Sweep | None:
        """Move the sweep on and open a case for each pair of subjects that has none yet. Raises SweepNotFound.

        None, and nothing is written, where it ended, stands elsewhere or is somebody else's.
        """
        before = self._row(job_id)
        if (before.state, before.cursor, before.leased_by) != (JobState.RUNNING.value, step.after, lease.owner):
            return None
        opened = self._open_cases(job_id, step.pairs)
        row = self._connection.execute(
            update(jobs)
            .where(jobs.c.job_id == job_id)
            .values(
                state=JobState.DONE.value if step.is_last else JobState.RUNNING.value,
                cursor=step.cursor,
                done=jobs.c.done + step.done,
                found_pairs=jobs.c.found_pairs + step.found_pairs + sum(not each.is_counted for each in opened),
                cases_opened=jobs.c.cases_opened + len(opened),
                worked_s=jobs.c.worked_s + step.worked_s,
                leased_until=lease.until,
                updated_at=self._now,
            )
            .returning(*jobs.c)
        ).one()
        sweep = to_sweep(row)
        if step.is_last:
            counts = {"job_id": job_id, "templates": sweep.done, "cases": sweep.cases_opened}
            self._record(AuditEvent.SWEEP_ENDED, sweep.state.value, counts)
        return sweep

    def end_sweep(self, job_id: int, state: JobState, error_code: str | None = None) -> Sweep:
        """Cancel it or let it fail; one that ended already stays as it is. Raises SweepNotFound."""
        ended = self._connection.execute(
            update(jobs)
            .where(jobs.c.gallery_id == self._gallery_id, jobs.c.job_id == job_id, jobs.c.state.in_(_UNFINISHED))
            .values(state=state.value, error_code=error_code, leased_by=None, updated_at=self._now)
            .returning(jobs.c.done, jobs.c.cases_opened)
        ).one_or_none()
        if ended is not None:
            counts = {"job_id": job_id, "templates": ended.done, "cases": ended.cases_opened, "error_code": error_code}
            self._record(AuditEvent.SWEEP_ENDED, state.value, counts)
        return to_sweep(self._row(job_id))

    def _record(self, event: AuditEvent, outcome: str | None, details: Mapping[str, Detail]) -> None:
        """Write into the chain of each gallery that is searched: who answers for it sees it there."""
        for gallery_id in self._both:
            other = {"other_gallery_id": next((each for each in self._both if each != gallery_id), None)}
            self._recorder.write(
                self._connection, gallery_id, NewEntry(event, outcome, {**details, **other}), self._now
            )

    def _row(self, job_id: int) -> AnyRow:
        row = self._connection.execute(
            select(jobs).where(
                jobs.c.gallery_id == self._gallery_id, jobs.c.job_id == job_id, jobs.c.kind == SWEEP_KIND
            )
        ).one_or_none()
        if row is None:
            raise SweepNotFound("there is no such sweep in this gallery")
        return row

    def _open_cases(self, job_id: int, pairs: Sequence[FoundPair]) -> list[FoundPair]:
        """Open a case for each of the pairs that has none; return those."""
        opened: list[FoundPair] = []
        for part in in_parts(pairs, _PAIRS_PER_STATEMENT):
            known = self._known_pairs(part)
            new = [each for each in part if self._key(each) not in known]
            enrolment_ids = self._enrolment_ids([each.encounter_id for each in new])
            if new:
                self._insert_cases(job_id, new, enrolment_ids)
            opened += new
        return opened

    def _key(self, pair: FoundPair) -> PairKey:
        other = pair.candidate
        return frozenset({(self._gallery_id, pair.subject_id), (self._searched_id, other.subject_id)})

    def _known_pairs(self, pairs: Sequence[FoundPair]) -> set[PairKey]:
        """Return the pairs of subjects, out of these and more, for which an enrolment or a sweep opened a case."""
        ids = {each.subject_id for each in pairs} | {each.candidate.subject_id for each in pairs}
        of_enrolment = cases.join(enrolments).join(encounters)
        duplicates = of_enrolment.join(
            candidates,
            (candidates.c.gallery_id == cases.c.gallery_id) & (candidates.c.enrolment_id == cases.c.enrolment_id),
        )
        elsewhere = candidates_elsewhere.c.other_gallery_id
        duplicates_elsewhere = of_enrolment.join(
            candidates_elsewhere,
            (candidates_elsewhere.c.gallery_id == cases.c.gallery_id)
            & (candidates_elsewhere.c.enrolment_id == cases.c.enrolment_id),
        )
        of_pair = of_enrolment.join(case_pairs, case_pairs.c.case_id == cases.c.case_id)
        found: set[PairKey] = set()
        # a sweep the other way round has its cases in the other gallery
        for way in {(self._gallery_id, self._searched_id), (self._searched_id, self._gallery_id)}:
            for kind in (CaseKind.SWEEP, CaseKind.MIGRATION):
                found |= self._pairs_in(way, ids, case_pairs.c.gallery_id, of_pair, kind)
            if self._other_gallery_id is None:
                found |= self._pairs_in(way, ids, candidates.c.gallery_id, duplicates, CaseKind.DUPLICATE)
            else:
                found |= self._pairs_in(way, ids, elsewhere, duplicates_elsewhere, CaseKind.DUPLICATE)
        return found

    def _pairs_in(
        self, way: tuple[str, str], ids: set[str | None], column: Column[str], joined: Join, kind: CaseKind
    ) -> set[PairKey]:
        """Return the pairs in the cases of the one gallery whose candidates are in the other, as `column` says."""
        gallery_id, other_id = way
        table = column.table
        rows = self._connection.execute(
            select(encounters.c.subject_id, table.c.subject_id.label("other"))
            .select_from(joined)
            .where(
                cases.c.gallery_id == gallery_id,
                cases.c.kind == kind.value,
                column == other_id,
                table.c.subject_id.in_(ids),
                encounters.c.subject_id.in_(ids),
            )
        )
        return {frozenset({(gallery_id, row.subject_id), (other_id, row.other)}) for row in rows}

    def _enrolment_ids(self, encounter_ids: Sequence[str]) -> dict[str, str]:
        rows = self._connection.execute(
            select(enrolments.c.encounter_id, enrolments.c.enrolment_id).where(
                enrolments.c.gallery_id == self._gallery_id, enrolments.c.encounter_id.in_(encounter_ids)
            )
        )
        return {row.encounter_id: row.enrolment_id for row in rows}

    def _insert_cases(self, job_id: int, pairs: Sequence[FoundPair], enrolment_ids: dict[str, str]) -> None:
        shared = {
            "gallery_id": self._gallery_id,
            "kind": CaseKind.SWEEP.value,
            "status": CaseStatus.OPEN.value,
            "created_at": self._now,
        }
        rows = [{**shared, "enrolment_id": enrolment_ids[each.encounter_id]} for each in pairs]
        case_ids = self._connection.execute(_INSERT_CASES, rows).scalars()
        others = [candidate_columns(each.candidate) for each in pairs]
        for case_id, other in zip(case_ids, others, strict=True):
            del other["rank"]  # a pair has one candidate
            other |= {"case_id": case_id, "gallery_id": self._searched_id, "job_id": job_id}
        self._connection.execute(insert(case_pairs), others)
