"""Makes the templates of a migration from kept samples, and deletes those of a pack that was given up."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from service.domain import (
    FacePolicy,
    Lease,
    MigratedTemplate,
    Migration,
    MigrationStage,
    MigrationStep,
    StoredSample,
)
from service.errors import Overloaded, PackMismatch, SampleRejected
from service.matching import Matcher
from service.metrics import Metrics
from service.packs import Packs
from service.ports import Store
from service.probes import is_same_face

BLOCK_SIZE = 16  # samples read, embedded and recorded together: 160 MB at the most
DROP_SIZE = 500  # templates deleted in one transaction
_WAIT_S = 0.5  # after the queue was full


class TemplateMaking:
    """The work of migrations, as `service.job_runner` asks for it, block by block."""

    def __init__(
        self,
        store: Store,
        matcher: Matcher,
        packs: Packs,
        metrics: Metrics,
        *,
        face_policy: FacePolicy,
        threads: int = 1,
        block_size: int = BLOCK_SIZE,
    ) -> None:
        """`threads`: samples that are embedded at once, beside those of requests."""
        self._store = store
        self._matcher = matcher
        self._packs = packs
        self._metrics = metrics
        self._face_policy = face_policy
        self._block_size = block_size
        self._threads = ThreadPoolExecutor(threads, "migration")
        self.news = threading.Event()
        """Set when there is something to make or to delete."""

    def unfinished(self) -> list[Migration]:
        return self._store.unfinished_migrations()

    def take(self, migration: Migration, lease: Lease) -> Migration | None:
        """Return the migration as it stands, to work on it; None where it needs none or somebody else is at it."""
        with self._store.migrating(migration.gallery_id) as migrating:
            return migrating.lease_migration(migration.job_id, lease)

    def release(self, migration: Migration, owner: str) -> None:
        with self._store.migrating(migration.gallery_id) as migrating:
            migrating.release_migration(migration.job_id, owner)

    def fail(self, migration: Migration, error_code: str) -> Migration:
        """Note why it gets no further; it is tried again."""
        with self._store.migrating(migration.gallery_id) as migrating:
            return migrating.note_migration_error(migration.job_id, error_code)

    def advance(self, migration: Migration, lease: Lease) -> Migration | None:
        """Make the next templates, or delete the next ones; recorded in one transaction with the progress.

        Returns:
            The migration after it; None where it needs no work any more or is somebody else's.

        Raises:
            PackNotLoaded, PackMismatch, StoreUnavailable, VarUnusable
        """
        if migration.stage is MigrationStage.DROPPING:
            return self._drop(migration, lease)
        start = time.perf_counter()
        packs = migration.from_pack_id, migration.to_pack_id
        bounds = migration.cursor, migration.last_reference_id
        with self._store.reading() as reading:
            gallery = reading.gallery(migration.gallery_id)
            samples = reading.samples_after(migration.gallery_id, packs, *bounds, self._block_size)
        if self._packs.of(migration.to_pack_id).embedder.model_id not in {gallery.model_id, gallery.standby_model_id}:
            raise PackMismatch(
                f"the loaded pack {migration.to_pack_id} is not the version that the migration began with"
            )
        try:
            templates = self._make(migration, samples)
        except Overloaded:
            time.sleep(_WAIT_S)  # requests come first
            return migration
        is_last = len(samples) < self._block_size
        step = MigrationStep(
            after=migration.cursor,
            cursor=migration.last_reference_id if is_last else samples[-1].reference_id,
            done=len(samples),
            templates=templates,
            worked_s=time.perf_counter() - start,
            is_last=is_last,
        )
        with self._store.migrating(migration.gallery_id) as migrating:
            moved = migrating.advance_migration(migration.job_id, lease, step)
        if moved is not None:
            self._matcher.follow(migration.gallery_id)
            self._count(moved, samples, templates)
        return moved

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _make(self, migration: Migration, samples: Sequence[StoredSample]) -> tuple[MigratedTemplate, ...]:
        """Return the templates of the samples that were kept and show a usable face. Raises Overloaded."""
        embedder = self._packs.of(migration.to_pack_id).embedder

        def made(stored: StoredSample) -> MigratedTemplate | None:
            if stored.sample is None:
                return None
            try:
                template = embedder.extract(stored.sample, self._face_policy)
            except SampleRejected:
                return None
            # with several people in a picture, two detectors may choose two of them
            if not is_same_face(stored.box, template.box):
                return None
            return MigratedTemplate(stored.reference_id, template, embedder.model_id)

        return tuple(each for each in self._threads.map(made, samples) if each is not None)

    def _drop(self, migration: Migration, lease: Lease) -> Migration | None:
        self._matcher.forget_other_packs()
        with self._store.migrating(migration.gallery_id) as migrating:
            return migrating.drop_templates(migration.job_id, lease, DROP_SIZE)

    def _count(self, migration: Migration, samples: Sequence[StoredSample], made: Sequence[MigratedTemplate]) -> None:
        kept = sum(stored.sample is not None for stored in samples)
        results = (("made", len(made)), ("no_sample", len(samples) - kept), ("unusable", kept - len(made)))
        for result, count in results:
            self._metrics.migration_templates.labels(result=result).inc(count)
        self._metrics.migration_progress.labels(gallery=migration.gallery_id).set(progress_of(migration))


def progress_of(migration: Migration) -> float:
    """Return the share (0..1) of what is made, or dropped, now."""
    if not migration.needs_work or not migration.total:
        return 1.0
    return min(migration.done / migration.total, 1.0)


def seconds_left(migration: Migration) -> float | None:
    """Return the seconds of making templates that are left, None before the first; 0 where none are being made."""
    if migration.stage is not MigrationStage.MAKING:
        return 0.0
    if not migration.done:
        return None
    return migration.worked_s / migration.done * max(migration.total - migration.done, 0)
