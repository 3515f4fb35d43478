"""Change the model pack of a gallery: new templates from kept samples, a comparison, the cut-over, and the way back."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from service.domain import (
    Gallery,
    Migration,
    MigrationStage,
    MissingSubject,
    Page,
    PairedTemplate,
)
from service.errors import (
    InvalidRequest,
    MigrationNotReady,
    PeopleWouldBeMissed,
)
from service.fusion import comparisons_of
from service.matching import Matcher
from service.metrics import Metrics
from service.pack_comparison import Judge, PackComparison, compare_packs
from service.packs import Packs
from service.ports import Migrating, Reading, Store
from service.same_people import one_name

_COMPARED_SUBJECTS = 2000  # with several encounters; and as many others
_PARTS = 20  # of the gallery, from which the others are taken


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """How far a migration is, and whom it cannot bring along."""

    migration: Migration
    gallery: Gallery
    missing_in_new: int | None  # people whom the new pack would not find; None while templates are being made
    missing_in_old: int  # and whom the old pack would not find: after the cut-over


class MigrationService:
    """The use cases about the change of a model pack. `service.template_making` makes the templates."""

    def __init__(
        self, store: Store, matcher: Matcher, packs: Packs, metrics: Metrics, tell_making: Callable[[], None]
    ) -> None:
        """`tell_making` is called when there are templates to make or to delete."""
        self._store = store
        self._matcher = matcher
        self._packs = packs
        self._metrics = metrics
        self._tell_making = tell_making

    def begin(self, gallery_id: str, to_pack_id: str) -> Migration:
        """Let a pack stand by in a gallery, and make its templates.

        Raises:
            GalleryNotFound, InvalidRequest, PackNotLoaded, MigrationUnderway, StoreUnavailable
        """
        embedder = self._packs.of(to_pack_id).embedder
        with self._store.migrating(gallery_id) as migrating:
            pack_id = migrating.gallery(gallery_id).pack_id
            if pack_id == to_pack_id:
                raise InvalidRequest(f"to_pack_id: the gallery has the pack {to_pack_id} already")
            own_model_id = self._packs.of(pack_id).embedder.model_id
            migration = migrating.begin_migration(to_pack_id, embedder.model_id, own_model_id)
        self._metrics.migration_progress.labels(gallery=gallery_id).set(0.0)
        self._matcher.follow(gallery_id)
        self._tell_making()
        return migration

    def report(self, gallery_id: str) -> MigrationReport:
        """Raises GalleryNotFound, MigrationNotFound, StoreUnavailable."""
        migration = self._store.migration(gallery_id)
        with self._store.reading() as reading:
            gallery = reading.gallery(gallery_id)
        stage = migration.stage
        if stage not in {MigrationStage.READY, MigrationStage.CUT_OVER}:
            return MigrationReport(migration, gallery, None if stage is MigrationStage.MAKING else 0, 0)
        old, new = (gallery, gallery.swapped()) if stage is MigrationStage.READY else (gallery.swapped(), gallery)
        return MigrationReport(migration, gallery, self._missing(new), self._missing(old))

    def missing(self, gallery_id: str, pack_id: str | None, after: str | None, limit: int) -> Page[MissingSubject]:
        """Return whom `pack_id` (None: the new pack) would not find: to be captured again.

        Raises:
            GalleryNotFound, MigrationNotFound, InvalidRequest, MigrationNotReady
        """
        migration = self._store.migration(gallery_id)
        if pack_id not in {None, migration.from_pack_id, migration.to_pack_id}:
            raise InvalidRequest(f"pack_id: the packs are {migration.from_pack_id} and {migration.to_pack_id}")
        if migration.stage is MigrationStage.MAKING:
            raise MigrationNotReady("templates are still being made; who is left without one is known at the end")
        if migration.stage not in {MigrationStage.READY, MigrationStage.CUT_OVER}:
            return Page((), None)
        return self._store.missing_subjects(gallery_id, pack_id or migration.to_pack_id, after, limit)

    def comparison(self, gallery_id: str) -> PackComparison:
        """Compare both packs on the samples that have templates of both; see `service.pack_comparison`.

        Raises:
            GalleryNotFound, MigrationNotFound, MigrationNotReady, PackNotLoaded, StoreUnavailable
        """
        migration = self._store.migration(gallery_id)
        packs = migration.from_pack_id, migration.to_pack_id
        with self._store.reading() as reading:
            gallery = reading.gallery(gallery_id)
            if set(gallery.pack_ids) != set(packs):
                raise MigrationNotReady("the gallery has templates of one pack only: there is nothing to compare")
            repeated = reading.repeated_templates(gallery_id, packs, _COMPARED_SUBJECTS)
            names = one_name(self._store.same_people(gallery_id))
            confirmed = reading.paired_templates_of(gallery_id, packs, sorted(names)[:_COMPARED_SUBJECTS])
            others = _spread(reading, migration)
        repeated = _under_one_name([*repeated, *confirmed], names)
        others = [each for each in others if names.get(each.subject_id, each.subject_id) == each.subject_id]
        of_pack = {side.pack_id: self._judge(side) for side in gallery.sides()}
        return compare_packs(repeated, others, (of_pack[packs[0]], of_pack[packs[1]]))

    def cut_over(self, gallery_id: str, accepted_missing: int = 0) -> Migration:
        """Let the new pack rule, from one change of the gallery to the next.

        Args:
            gallery_id: the gallery.
            accepted_missing: the number of people who have no template of the new pack, as `report` names it.

        Raises:
            GalleryNotFound, MigrationNotFound, SweepUnderway, IndexUnavailable, StoreUnavailable
            MigrationNotReady: templates are still being made, or the new pack rules already.
            PeopleWouldBeMissed: another number of people has none.
        """
        return self._swap(gallery_id, MigrationStage.READY, MigrationStage.CUT_OVER, accepted_missing)

    def back(self, gallery_id: str, accepted_missing: int = 0) -> Migration:
        """Let the old pack rule again; raises what `cut_over` does."""
        return self._swap(gallery_id, MigrationStage.CUT_OVER, MigrationStage.READY, accepted_missing)

    def finish(self, gallery_id: str) -> Migration:
        """Give up the old pack: its templates, index and files are deleted. There is no way back.

        Raises:
            GalleryNotFound, MigrationNotFound, StoreUnavailable
            MigrationNotReady: the new pack does not rule.
            PeopleWouldBeMissed: somebody has templates of the old pack alone.
        """
        return self._end(gallery_id, {MigrationStage.CUT_OVER}, "the old pack rules: cut over first, or cancel")

    def cancel(self, gallery_id: str) -> Migration:
        """Give up the new pack, as `finish` does the old one."""
        stages = {MigrationStage.MAKING, MigrationStage.READY}
        return self._end(gallery_id, stages, "the new pack rules: go back first, or finish")

    def _swap(self, gallery_id: str, before: MigrationStage, after: MigrationStage, accepted_missing: int) -> Migration:
        self._matcher.catch_up(gallery_id)  # both indexes: the first search after it does not wait
        with self._store.migrating(gallery_id) as migrating:
            migration = migrating.current_migration()
            if migration.stage is not before:
                raise MigrationNotReady(_wrong_stage(migration))
            gallery = migrating.gallery(gallery_id)
            side = gallery.swapped()
            _expect_missing(migrating, side, accepted_missing)
            change = self._packs.rule(side).threshold_change(side, "model")
            moved = migrating.swap_packs(migration.job_id, after, change)
        self._matcher.follow(gallery_id)
        return moved

    def _end(self, gallery_id: str, stages: set[MigrationStage], otherwise: str) -> Migration:
        with self._store.migrating(gallery_id) as migrating:
            migration = migrating.current_migration()
            if migration.stage not in stages:
                raise MigrationNotReady(otherwise if not migration.stage.has_ended else _wrong_stage(migration))
            gallery = migrating.gallery(gallery_id)
            missing = migrating.missing_count(gallery_id, gallery.pack_id)
            if missing:
                raise PeopleWouldBeMissed(
                    f"{missing:,} people have templates of {gallery.standby_pack_id} alone: nothing would find them "
                    "any more. Capture them again, withdraw or erase them, or keep both packs"
                )
            moved = migrating.give_up_standby(migration.job_id)
        self._tell_making()
        return moved

    def _missing(self, side: Gallery) -> int:
        """Return how many people the pack of this side would not find."""
        return self._store.missing_count(side.gallery_id, side.pack_id)

    def _judge(self, side: Gallery) -> Judge:
        """By the review threshold at the number of templates that are searched in both packs together."""
        thresholds = self._packs.rule(side).thresholds(side, comparisons_of(side))
        return Judge(side.pack_id, thresholds.review, thresholds.review_fmr)


def _expect_missing(migrating: Migrating, side: Gallery, accepted: int) -> None:
    """Raises PeopleWouldBeMissed: another number of people has no template of the pack that is to rule."""
    missing = migrating.missing_count(side.gallery_id, side.pack_id)
    if missing != accepted:
        raise PeopleWouldBeMissed(
            f"{missing:,} people have no template of {side.pack_id} and would be searched by {side.standby_pack_id} "
            f"alone until they are captured again; accept it by their number: accepted_missing={missing}"
        )


def _wrong_stage(migration: Migration) -> str:
    return {
        MigrationStage.MAKING: "templates are still being made",
        MigrationStage.READY: f"{migration.from_pack_id} rules: there is nothing to go back from",
        MigrationStage.CUT_OVER: f"{migration.to_pack_id} rules already",
        MigrationStage.DROPPING: "one pack was given up: its templates are being deleted",
        MigrationStage.FINISHED: "the migration is finished: the old pack's templates are deleted",
        MigrationStage.CANCELLED: "the migration was cancelled",
    }[migration.stage]


def _under_one_name(samples: list[PairedTemplate], names: dict[str, str]) -> list[PairedTemplate]:
    """Return the samples, each once, those of a person together, whatever names the person has."""
    found = {
        (each.encounter_id, each.first.tobytes()): replace(each, subject_id=names.get(each.subject_id, each.subject_id))
        for each in samples
    }
    return sorted(found.values(), key=lambda each: each.subject_id)


def _spread(reading: Reading, migration: Migration) -> list[PairedTemplate]:
    """Return samples with templates of both packs from all over the gallery."""
    packs = migration.from_pack_id, migration.to_pack_id
    each = _COMPARED_SUBJECTS // _PARTS
    starts = range(0, migration.last_reference_id + 1, max(migration.last_reference_id // _PARTS, 1))
    found = {
        (pair.subject_id, pair.encounter_id): pair
        for start in starts
        for pair in reading.paired_templates(migration.gallery_id, packs, start, each)
    }
    return list(found.values())
