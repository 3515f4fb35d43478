"""The transaction of `tests.fakes.FakeStore` that works on the change of a gallery's model pack."""

import uuid
from dataclasses import replace

import numpy as np

from service.audit_chain import AuditEvent, NewEntry
from service.domain import (
    EncounterStatus,
    Lease,
    MigratedTemplate,
    Migration,
    MigrationStage,
    MigrationStep,
    TemplateFacts,
    ThresholdChange,
)
from service.errors import MigrationNotFound, MigrationUnderway, SweepUnderway
from tests.fake_packs import facts, missing, of_pack
from tests.fake_transactions import FakeWriting, existing, record_thresholds


class FakeMigrating(FakeWriting):
    """`service.ports.Migrating`: works on a copy, which the store keeps."""

    def begin_migration(self, to_pack_id: str, to_model_id: str, own_model_id: str) -> Migration:
        records = self.records
        if any(not each.stage.has_ended for each in records.migrations.values()):
            raise MigrationUnderway("the model pack of this gallery is being changed already")
        old = of_pack(records, records.references, records.gallery.pack_id)
        migration = Migration(
            next(self._numbers), self._gallery_id, records.gallery.pack_id, to_pack_id, MigrationStage.MAKING,
            0, max(old, default=0), 0, len(old), 0, 0.0, None, self._now, self._now,
        )  # fmt: skip
        records.migrations[migration.job_id] = migration
        records.gallery = replace(
            records.gallery,
            model_id=records.gallery.model_id or own_model_id,
            standby_pack_id=to_pack_id,
            standby_model_id=to_model_id,
            standby_timeline_id=uuid.uuid4().hex,
        )
        self._change(added=(), removed=())
        packs = {"from_pack_id": migration.from_pack_id, "to_pack_id": to_pack_id}
        self._record(NewEntry(AuditEvent.MIGRATION_BEGUN, details=packs))
        return migration

    def current_migration(self) -> Migration:
        if not self.records.migrations:
            raise MigrationNotFound("the model pack of this gallery was never changed")
        return self.records.migrations[max(self.records.migrations)]

    def lease_migration(self, job_id: int, lease: Lease) -> Migration | None:
        migration = self._existing(job_id)
        held = self.records.leases.get(job_id)
        is_free = held is None or held.owner == lease.owner or held.until < self._now
        if not migration.needs_work or not is_free:
            return None
        self.records.leases[job_id] = lease
        return migration

    def release_migration(self, job_id: int, owner: str) -> None:
        held = self.records.leases.get(job_id)
        if held is not None and held.owner == owner:
            del self.records.leases[job_id]

    def advance_migration(self, job_id: int, lease: Lease, step: MigrationStep) -> Migration | None:
        before = self._existing(job_id)
        if before.stage is not MigrationStage.MAKING or before.cursor != step.after or not self._holds(job_id, lease):
            return None
        added = [number for each in step.templates for number in self._migrated(each)]
        if step.templates:
            active = [each for each in added if self._is_active(each)]
            self._change(added=tuple(active), removed=())
        self.records.leases[job_id] = lease
        if step.is_last:
            self._record(NewEntry(AuditEvent.MIGRATION_READY, details={"templates": before.done + step.done}))
        return self._moved(
            before,
            stage=MigrationStage.READY if step.is_last else MigrationStage.MAKING,
            cursor=step.cursor,
            done=before.done + step.done,
            worked_s=before.worked_s + step.worked_s,
            error_code=None,
        )

    def _migrated(self, new: MigratedTemplate) -> list[int]:
        records = self.records
        old = records.references.get(new.reference_id)
        if old is None or not self.without_counterpart(self._gallery_id, [new.reference_id], new.template.pack_id):
            return []
        encounter = records.encounters[old.encounter_id]
        position = facts(records)[new.reference_id][1].position
        number = next(self._numbers)
        embedding = np.array(new.template.embedding, dtype=np.float32)
        records.references[number] = replace(old, reference_id=number, embedding=embedding)
        made = TemplateFacts(
            number, position, new.template.pack_id, new.model_id, old.verifies, new.template.quality, new.template.box
        )
        ordered = sorted([*encounter.templates, made], key=lambda each: (each.position, each.reference_id))
        records.encounters[old.encounter_id] = replace(encounter, templates=tuple(ordered))
        return [number]

    def drop_templates(self, job_id: int, lease: Lease, limit: int) -> Migration | None:
        before, records = self._existing(job_id), self.records
        if before.stage is not MigrationStage.DROPPING or not self._holds(job_id, lease):
            return None
        is_finished = records.gallery.pack_id == before.to_pack_id
        dropped = before.from_pack_id if is_finished else before.to_pack_id
        gone = sorted(of_pack(records, records.references, dropped))[:limit]
        for number in gone:
            encounter = records.encounters[records.references.pop(number).encounter_id]
            left = tuple(each for each in encounter.templates if each.reference_id != number)
            records.encounters[encounter.encounter_id] = replace(encounter, templates=left)
        end = MigrationStage.FINISHED if is_finished else MigrationStage.CANCELLED
        stage = before.stage if len(gone) == limit else end
        if stage is end:
            self._record(NewEntry(AuditEvent.MIGRATION_ENDED, end.value, {"templates": before.done + len(gone)}))
        return self._moved(before, stage=stage, done=before.done + len(gone), error_code=None)

    def note_migration_error(self, job_id: int, error_code: str) -> Migration:
        return self._moved(self._existing(job_id), error_code=error_code)

    def swap_packs(self, job_id: int, stage: MigrationStage, change: ThresholdChange | None) -> Migration:
        before = self._existing(job_id)
        sweeps = [each for records in self.galleries.values() for each in records.sweeps.values()]
        concerned = [each for each in sweeps if self._gallery_id in {each.gallery_id, each.other_gallery_id}]
        if any(not each.state.has_ended for each in concerned):
            raise SweepUnderway("a sweep of this gallery, or against it, has not ended yet: wait for it or cancel it")
        self.records.gallery = self.records.gallery.swapped()
        self._change(added=(), removed=())
        record_thresholds(self.records, change, self._now)
        is_ahead = stage is MigrationStage.CUT_OVER
        self._record(NewEntry(AuditEvent.MIGRATION_CUT_OVER if is_ahead else AuditEvent.MIGRATION_CUT_BACK))
        return self._moved(before, stage=stage)

    def give_up_standby(self, job_id: int) -> Migration:
        before, records = self._existing(job_id), self.records
        assert records.gallery.standby_pack_id is not None
        total = len(of_pack(records, records.references, records.gallery.standby_pack_id))
        ending = NewEntry(AuditEvent.MIGRATION_ENDING, details={"pack_id": records.gallery.standby_pack_id})
        records.gallery = replace(
            records.gallery,
            standby_pack_id=None,
            standby_model_id=None,
            standby_timeline_id="",
            standby_calibration_id=None,
        )
        self._change(added=(), removed=())
        self._record(ending)
        return self._moved(before, stage=MigrationStage.DROPPING, cursor=0, done=0, total=total)

    def missing_count(self, gallery_id: str, pack_id: str) -> int:
        return len(missing(self._records(gallery_id), pack_id))

    def _is_active(self, number: int) -> bool:
        encounter = self.records.encounters[self.records.references[number].encounter_id]
        return encounter.status is EncounterStatus.ACTIVE

    def _holds(self, job_id: int, lease: Lease) -> bool:
        held = self.records.leases.get(job_id)
        return held is not None and held.owner == lease.owner

    def _existing(self, job_id: int) -> Migration:
        return existing(self.records.migrations, job_id, MigrationNotFound)

    def _moved(self, before: Migration, **values: object) -> Migration:
        moved = replace(before, **values, updated_at=self._now)  # type: ignore[arg-type]  # by name
        self.records.migrations[before.job_id] = moved
        return moved
