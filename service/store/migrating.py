"""The transaction that works on the change of a gallery's model pack: its job, its templates, the swap of the packs."""

import uuid
from collections.abc import Sequence

from sqlalchemy import Update, delete, exists, func, insert, or_, select, update

from service.audit_chain import AuditEvent, NewEntry
from service.domain import (
    JobState,
    Lease,
    MigratedTemplate,
    Migration,
    MigrationStage,
    MigrationStep,
    NewTemplate,
    ThresholdChange,
)
from service.errors import MigrationNotFound, MigrationUnderway, SweepUnderway
from service.store.counts import Growth
from service.store.leases import release_lease, take_lease
from service.store.metadata_counts import count_anew
from service.store.pack_reading import missing_count
from service.store.parts import in_parts
from service.store.rows import AnyRow, template_columns, to_migration
from service.store.several import several_count
from service.store.standby_cases import MIGRATION_KIND, SWEEP_KIND, UNFINISHED_STAGES
from service.store.tables import encounters, galleries, jobs, subjects, templates
from service.store.writing import SqlWriting

_UNFINISHED_JOB = (JobState.QUEUED.value, JobState.RUNNING.value)
_NEEDS_WORK = tuple(stage.value for stage in MigrationStage if stage.needs_work)
_other = templates.alias("other")


class SqlMigrating(SqlWriting):
    """`service.ports.Migrating` on one connection, which the store commits. `MigrationNotFound`: no such job here."""

    def begin_migration(self, to_pack_id: str, to_model_id: str, own_model_id: str) -> Migration:
        """Let a pack stand by: from now on every enrolment brings templates of both. Raises MigrationUnderway.

        An empty gallery gets the model of its own pack, as its first template would have given it.
        """
        in_gallery = jobs.c.gallery_id == self._gallery_id, jobs.c.kind == MIGRATION_KIND
        if self._connection.execute(
            select(jobs.c.job_id).where(*in_gallery, jobs.c.stage.in_(UNFINISHED_STAGES))
        ).first():
            raise MigrationUnderway("the model pack of this gallery is being changed already")
        before = self._before
        of_old_pack = templates.c.gallery_id == self._gallery_id, templates.c.pack_id == before.pack_id
        total, last = self._connection.execute(
            select(func.count(), func.max(templates.c.reference_id)).where(*of_old_pack)
        ).one()
        self._connection.execute(
            self._gallery_update().values(
                model_id=before.model_id or own_model_id,
                standby_pack_id=to_pack_id,
                standby_model_id=to_model_id,
                standby_timeline_id=uuid.uuid4().hex,
                standby_template_count=0,
                paired_count=0,
            )
        )
        self._record_change("migration_begun")
        row = {
            "gallery_id": self._gallery_id,
            "kind": MIGRATION_KIND,
            "state": JobState.QUEUED.value,
            "stage": MigrationStage.MAKING.value,
            "from_pack_id": before.pack_id,
            "to_pack_id": to_pack_id,
            "allowed_false_pairs": 0,
            "threshold": 0.0,
            "cursor": 0,
            "last_reference_id": last or 0,
            "started_seq": self._seq,
            "done": 0,
            "total": total,
            "found_pairs": 0,
            "cases_opened": 0,
            "worked_s": 0.0,
            "created_at": self._now,
            "updated_at": self._now,
        }
        begun = to_migration(self._connection.execute(insert(jobs).values(row).returning(*jobs.c)).one())
        packs = {"from_pack_id": before.pack_id, "to_pack_id": to_pack_id}
        self._record(NewEntry(AuditEvent.MIGRATION_BEGUN, details=packs))
        return begun

    def current_migration(self) -> Migration:
        """Return the last one that was begun, as it is under the lock."""
        last = select(jobs).where(jobs.c.gallery_id == self._gallery_id, jobs.c.kind == MIGRATION_KIND)
        row = self._connection.execute(last.order_by(jobs.c.job_id.desc()).limit(1)).one_or_none()
        if row is None:
            raise MigrationNotFound("the model pack of this gallery was never changed")
        return to_migration(row)

    def lease_migration(self, job_id: int, lease: Lease) -> Migration | None:
        """Take a migration to work on it; None where it needs no work or somebody else is at it."""
        self._row(job_id)
        row = take_lease(self._connection, job_id, lease, jobs.c.stage.in_(_NEEDS_WORK), self._now)
        return None if row is None else to_migration(row)

    def release_migration(self, job_id: int, owner: str) -> None:
        """Let somebody else go on with it, if it is this owner's."""
        release_lease(self._connection, self._gallery_id, job_id, owner)

    def advance_migration(self, job_id: int, lease: Lease, step: MigrationStep) -> Migration | None:
        """Write the templates of a step whose old ones are still there, as one change, and move on.

        None, and nothing is written, where it needs none, stands elsewhere or is somebody else's.
        """
        before = self._row(job_id)
        if (before.stage, before.cursor, before.leased_by) != (MigrationStage.MAKING.value, step.after, lease.owner):
            return None
        added, inactive = self._insert_migrated(step)
        if added or inactive:
            # an index takes the inactive ones when their encounter becomes active again
            self._record_change("migration", added=added, growth=Growth(0, len(added), len(added)))
        if step.is_last:
            self._record(NewEntry(AuditEvent.MIGRATION_READY, details={"templates": before.done + step.done}))
        return self._moved(
            job_id,
            stage=MigrationStage.READY.value if step.is_last else before.stage,
            cursor=step.cursor,
            done=before.done + step.done,
            worked_s=before.worked_s + step.worked_s,
            leased_until=lease.until,
            error_code=None,
        )

    def _insert_migrated(self, step: MigrationStep) -> tuple[list[int], list[int]]:
        """Return the new references, those that are searched now and the others."""
        added: list[int] = []
        inactive: list[int] = []
        for part in in_parts(step.templates):
            old = {row.reference_id: row for row in self._without_new(part)}
            for each in part:
                row = old.pop(each.reference_id, None)
                if row is None:
                    continue  # erased since, or made already
                new = NewTemplate(row.position, each.template, each.model_id, verifies=row.verifies, sample=None)
                place = {"gallery_id": self._gallery_id, "encounter_id": row.encounter_id, "active": row.active}
                sealed = self._sealing.template(
                    row.key_id, row.encounter_id, row.position, each.template.pack_id, each.template.embedding
                )
                values = {**place, **template_columns(new), "embedding": sealed}
                made = insert(templates).values(values).returning(templates.c.reference_id)
                (added if row.active else inactive).append(self._connection.execute(made).scalar_one())
        return added, inactive

    def _without_new(self, part: Sequence[MigratedTemplate]) -> list[AnyRow]:
        """Return the old templates of these that are there and have no new one, as they are under the lock."""
        is_made = exists().where(
            _other.c.gallery_id == templates.c.gallery_id,
            _other.c.encounter_id == templates.c.encounter_id,
            _other.c.position == templates.c.position,
            _other.c.pack_id == self._before.standby_pack_id,
        )
        wanted = (
            select(templates, subjects.c.key_id)
            .select_from(templates.join(encounters).join(subjects))
            .where(
                templates.c.gallery_id == self._gallery_id,
                templates.c.reference_id.in_([each.reference_id for each in part]),
                ~is_made,
            )
        )
        return list(self._connection.execute(wanted))

    def drop_templates(self, job_id: int, lease: Lease, limit: int) -> Migration | None:
        """Delete up to `limit` templates of the pack that was given up; it has ended when none are left."""
        before = self._row(job_id)
        if (before.stage, before.leased_by) != (MigrationStage.DROPPING.value, lease.owner):
            return None
        is_finished = self._before.pack_id == before.to_pack_id
        dropped_pack = before.from_pack_id if is_finished else before.to_pack_id
        # in the order of the primary key, from where it was
        wanted = (
            select(templates.c.reference_id)
            .where(
                templates.c.gallery_id + "" == self._gallery_id,
                templates.c.pack_id == dropped_pack,
                templates.c.reference_id > before.cursor,
            )
            .order_by(templates.c.reference_id)
            .limit(limit)
        )
        ids = list(self._connection.execute(wanted).scalars())
        for part in in_parts(ids):
            self._connection.execute(delete(templates).where(templates.c.reference_id.in_(part)))
        values = {"done": before.done + len(ids), "leased_until": lease.until, "error_code": None}
        if len(ids) == limit:
            return self._moved(job_id, cursor=ids[-1], **values)
        self._has_erased = True
        end = MigrationStage.FINISHED if is_finished else MigrationStage.CANCELLED
        state = JobState.DONE if is_finished else JobState.CANCELLED
        ended = NewEntry(AuditEvent.MIGRATION_ENDED, end.value, {"templates": before.done + len(ids)})
        self._record(ended)
        return self._moved(job_id, stage=end.value, state=state.value, **values)

    def note_migration_error(self, job_id: int, error_code: str) -> Migration:
        """Say why it gets no further now."""
        return self._moved(job_id, error_code=error_code)

    def swap_packs(self, job_id: int, stage: MigrationStage, change: ThresholdChange | None) -> Migration:
        """Let the standby pack rule and the ruling one stand by, as one change. Raises SweepUnderway."""
        self._row(job_id)
        is_concerned = or_(jobs.c.gallery_id == self._gallery_id, jobs.c.other_gallery_id == self._gallery_id)
        sweeps = jobs.c.kind == SWEEP_KIND, jobs.c.state.in_(_UNFINISHED_JOB)
        if self._connection.execute(select(jobs.c.job_id).where(is_concerned, *sweeps)).first():
            raise SweepUnderway("a sweep of this gallery, or against it, has not ended yet: wait for it or cancel it")
        columns = galleries.c
        self._connection.execute(
            self._gallery_update().values(
                pack_id=columns.standby_pack_id,
                model_id=columns.standby_model_id,
                timeline_id=columns.standby_timeline_id,
                calibration_id=columns.standby_calibration_id,
                template_count=columns.standby_template_count,
                standby_pack_id=columns.pack_id,
                standby_model_id=columns.model_id,
                standby_timeline_id=columns.timeline_id,
                standby_calibration_id=columns.calibration_id,
                standby_template_count=columns.template_count,
            )
        )
        is_ahead = stage is MigrationStage.CUT_OVER
        self._record_change("cut_over" if is_ahead else "cut_back")
        self._record_thresholds(change)
        self._record(NewEntry(AuditEvent.MIGRATION_CUT_OVER if is_ahead else AuditEvent.MIGRATION_CUT_BACK))
        return self._moved(job_id, stage=stage.value)

    def give_up_standby(self, job_id: int) -> Migration:
        """Let the ruling pack be the only one; the templates of the other are deleted by `drop_templates`."""
        self._row(job_id)
        dropped = self._before.standby_pack_id
        of_pack = templates.c.gallery_id == self._gallery_id, templates.c.pack_id == dropped
        total = self._connection.execute(select(func.count()).select_from(templates).where(*of_pack)).scalar_one()
        several = self._before.several_count
        if self._before.standby_only_count:  # else every sample has a template of the pack that is left
            several = several_count(self._connection, self._gallery_id, self._before.pack_id)
        self._connection.execute(
            self._gallery_update().values(
                standby_pack_id=None,
                standby_model_id=None,
                standby_timeline_id="",
                standby_calibration_id=None,
                standby_template_count=0,
                paired_count=0,
                several_count=several,
            )
        )
        if self._before.standby_only_count:
            count_anew(self._connection, self._gallery_id)
        self._record_change("standby_given_up")
        self._record(NewEntry(AuditEvent.MIGRATION_ENDING, details={"pack_id": dropped}))
        return self._moved(job_id, stage=MigrationStage.DROPPING.value, cursor=0, done=0, total=total)

    def missing_count(self, gallery_id: str, pack_id: str) -> int:
        """Return how many subjects `pack_id` would not find."""
        return missing_count(self._connection, gallery_id, pack_id)

    def _gallery_update(self) -> Update:
        return update(galleries).where(galleries.c.gallery_id == self._gallery_id)

    def _moved(self, job_id: int, **values: object) -> Migration:
        self._row(job_id)
        row = self._connection.execute(
            update(jobs).where(jobs.c.job_id == job_id).values(**values, updated_at=self._now).returning(*jobs.c)
        ).one()
        return to_migration(row)

    def _row(self, job_id: int) -> AnyRow:
        row = self._connection.execute(
            select(jobs).where(
                jobs.c.gallery_id == self._gallery_id, jobs.c.job_id == job_id, jobs.c.kind == MIGRATION_KIND
            )
        ).one_or_none()
        if row is None:
            raise MigrationNotFound("there is no such migration in this gallery")
        return row
