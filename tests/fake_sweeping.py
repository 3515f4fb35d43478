"""The transaction of `tests.fakes.FakeStore` that works on sweeps."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from service.audit_chain import AuditEvent, Detail, NewEntry
from service.domain import Case, CaseKind, CaseStatus, FoundPair, JobState, Lease, Sweep, SweepStep
from service.errors import GalleryNotFound, SweepNotFound, SweepUnderway
from tests.fake_packs import of_pack
from tests.fake_transactions import FakeReading, Records, append_audit, existing, searched


class FakeSweeping(FakeReading):
    """`service.ports.Sweeping`: works on a copy, which the store keeps."""

    def __init__(
        self,
        galleries: dict[str, Records],
        gallery_id: str,
        other_gallery_id: str | None,
        now: datetime,
        numbers: Iterator[int],
    ) -> None:
        super().__init__(galleries)
        self.records = existing(galleries, gallery_id, GalleryNotFound).copy()
        self._searched = existing(galleries, other_gallery_id or gallery_id, GalleryNotFound)
        if other_gallery_id is not None:
            self._searched = self._searched.copy()
        self.changed = {gallery_id: self.records}
        if other_gallery_id is not None:
            self.changed[other_gallery_id] = self._searched
        self._gallery_id = gallery_id
        self._other_gallery_id = other_gallery_id
        self._now = now
        self._numbers = numbers

    def begin_sweep(self, allowed_false_pairs: int, threshold: float) -> Sweep:
        records = self.records
        if any(not each.state.has_ended for each in records.sweeps.values()):
            raise SweepUnderway("a sweep of this gallery has not ended yet")
        references = of_pack(records, searched(records), records.gallery.pack_id)
        others = of_pack(self._searched, searched(self._searched), records.gallery.pack_id)
        last = max([*references, *others], default=0)
        left_out = records.gallery.standby_only_count
        left_out += self._searched.gallery.standby_only_count if self._other_gallery_id else 0
        sweep = Sweep(
            next(self._numbers), self._gallery_id, JobState.QUEUED, allowed_false_pairs, threshold,
            0, last, self._searched.gallery.last_seq, 0, len(references), 0, 0, 0.0, None,
            self._now, self._now, self._other_gallery_id, left_out,
        )  # fmt: skip
        records.sweeps[sweep.job_id] = sweep
        self._record(AuditEvent.SWEEP_BEGUN, None, {"job_id": sweep.job_id, "templates": len(references)})
        return sweep

    def lease_sweep(self, job_id: int, lease: Lease) -> Sweep | None:
        sweep = self._existing(job_id)
        held = self.records.leases.get(job_id)
        is_free = held is None or held.owner == lease.owner or held.until < self._now
        if sweep.state.has_ended or not is_free:
            return None
        self.records.leases[job_id] = lease
        self.records.sweeps[job_id] = replace(sweep, state=JobState.RUNNING)
        return self.records.sweeps[job_id]

    def release_sweep(self, job_id: int, owner: str) -> None:
        held = self.records.leases.get(job_id)
        if held is not None and held.owner == owner:
            del self.records.leases[job_id]

    def advance_sweep(self, job_id: int, lease: Lease, step: SweepStep) -> Sweep | None:
        sweep = self._existing(job_id)
        held = self.records.leases.get(job_id)
        if (
            sweep.state is not JobState.RUNNING
            or sweep.cursor != step.after
            or held is None
            or held.owner != lease.owner
        ):
            return None
        opened = [pair for pair in step.pairs if self._open_case(job_id, pair)]
        self.records.leases[job_id] = lease
        self.records.sweeps[job_id] = replace(
            sweep,
            state=JobState.DONE if step.is_last else JobState.RUNNING,
            cursor=step.cursor,
            done=sweep.done + step.done,
            found_pairs=sweep.found_pairs + step.found_pairs + sum(not pair.is_counted for pair in opened),
            cases_opened=sweep.cases_opened + len(opened),
            worked_s=sweep.worked_s + step.worked_s,
            updated_at=self._now,
        )
        ended = self.records.sweeps[job_id]
        if step.is_last:
            counts = {"job_id": job_id, "templates": ended.done, "cases": ended.cases_opened}
            self._record(AuditEvent.SWEEP_ENDED, ended.state.value, counts)
        return ended

    def end_sweep(self, job_id: int, state: JobState, error_code: str | None = None) -> Sweep:
        sweep = self._existing(job_id)
        if not sweep.state.has_ended:
            self.records.leases.pop(job_id, None)
            self.records.sweeps[job_id] = replace(sweep, state=state, error_code=error_code, updated_at=self._now)
            counts = {"job_id": job_id, "templates": sweep.done, "cases": sweep.cases_opened, "error_code": error_code}
            self._record(AuditEvent.SWEEP_ENDED, state.value, counts)
        return self.records.sweeps[job_id]

    def _record(self, event: AuditEvent, outcome: str | None, details: Mapping[str, Detail]) -> None:
        both = sorted(self.changed)
        for gallery_id in both:
            other = {"other_gallery_id": next((each for each in both if each != gallery_id), None)}
            append_audit({}, self.changed[gallery_id], NewEntry(event, outcome, {**details, **other}), self._now)

    def _existing(self, job_id: int) -> Sweep:
        return existing(self.records.sweeps, job_id, SweepNotFound)

    def _open_case(self, job_id: int, pair: FoundPair) -> bool:
        other_id = self._other_gallery_id or self._gallery_id
        if {(self._gallery_id, pair.subject_id), (other_id, pair.candidate.subject_id)} in self._known_pairs():
            return False
        case_id = next(self._numbers)
        _, enrolment_id = self.records.answers[pair.encounter_id]
        self.records.cases[case_id] = Case(
            case_id, self._gallery_id, CaseKind.SWEEP, CaseStatus.OPEN,
            enrolment_id, pair.subject_id, pair.encounter_id, self._now, pair.candidate, job_id,
        )  # fmt: skip
        return True

    def _known_pairs(self) -> list[set[tuple[str, str | None]]]:
        """Return the pairs that have a case in any gallery, each subject with its own."""
        found: list[set[tuple[str, str | None]]] = []
        galleries = {**self._galleries, self._gallery_id: self.records}
        for case in (case for records in galleries.values() for case in records.cases.values()):
            subject = case.gallery_id, case.subject_id
            if case.candidate is not None:
                other = case.candidate
                found.append({subject, (other.gallery_id or case.gallery_id, other.subject_id)})
            elif case.kind is CaseKind.DUPLICATE:
                others = galleries[case.gallery_id].enrolments[case.enrolment_id].candidates
                found += [{subject, (other.gallery_id or case.gallery_id, other.subject_id)} for other in others]
        return found
