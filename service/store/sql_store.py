"""The record in SQLite or PostgreSQL: transactions, galleries, migration.

Over 300 lines on purpose: each use of the record opens its transaction here.
"""

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, inspect, select, text, update

from service.audit_chain import SERVICE_CHAIN, AuditEvent, NewEntry
from service.calibration import Calibration
from service.domain import Case, CaseDecision, ErasureRecord, Gallery, Held, KeptSample, ThresholdChange
from service.erasure_ledger import LedgerLine
from service.errors import GalleryExists, GalleryNotFound, StoreUnavailable, SubjectNotFound
from service.import_request import ImportBlock, ImportSource, ImportState
from service.plain_cipher import NO_KEYS, PlainCipher
from service.ports import KeptCalibration, SubjectCipher
from service.store import calibrating, deciding, record_keys
from service.store.agreements import SqlAgreements
from service.store.auditing import Recorder
from service.store.checkpoints import Checkpoints
from service.store.clients import SqlClients
from service.store.encrypting import encrypt_block, purge, unencrypted_count
from service.store.engine import LOCK_TIMEOUT_S, begin, empty_log, make_engine, translated
from service.store.erasures import (
    erasure_by,
    first_erasing,
    lacking_erasures,
    oldest_undestroyed,
    restore_erasures,
    subjects_under,
    undestroyed,
)
from service.store.holdings import held_about, kept_sample
from service.store.holds import SqlHolds
from service.store.importing import check_import, import_state, write_block
from service.store.keys import insert_key, insert_or_ignore, purge_keys
from service.store.migrating import SqlMigrating
from service.store.migrations.upgrade import head_revision, upgrade
from service.store.parts import in_parts
from service.store.planner_statistics import tell_planner
from service.store.rate_counts import add_rate_counts
from service.store.reading import SqlReading, read_gallery
from service.store.records import SqlRecords
from service.store.retaining import SqlRetention
from service.store.retention_runs import SqlRetentionRuns
from service.store.rows import gallery_settings, new_gallery_columns, to_gallery
from service.store.sweeping import SqlSweeping
from service.store.tables import galleries, key_destructions
from service.store.writing import SqlWriting

_MIGRATION_LOCK = 0x62696F6465647570  # any constant that no other user of the database takes
_REPLAY_LOCK = 0x62696F6465647265


def _now() -> datetime:
    return datetime.now(UTC)


class SqlStore(SqlRecords):
    """`service.ports.Store` over SQLAlchemy Core.

    Args:
        url: `sqlite:///path` or `postgresql://...`.
        clock: the time that records bear; time zone aware.
        isolation_level: of write transactions on PostgreSQL; only READ COMMITTED keeps the promise of `writing`.
        cipher: of templates, samples and what callers write freely; without one nothing is encrypted, which only
            benchmarks and tests of other things may do. A record that is encrypted cannot be read so.
        on_entry: told the event of each entry of the audit trail.
        on_erased: given what the ledger is to say of erasures that are committed, before their keys are destroyed.
        is_audited: whether anything is written down; off in a benchmark alone, which measures what it costs.

    Raises:
        SettingsInvalid: the URL names no file on SQLite and no PostgreSQL database.
    """

    def __init__(
        self,
        url: str,
        clock: Callable[[], datetime] = _now,
        isolation_level: str = "READ COMMITTED",
        *,
        cipher: SubjectCipher | None = None,
        on_entry: Callable[[AuditEvent], None] = lambda _: None,
        on_erased: Callable[[list[LedgerLine]], None] = lambda _: None,
        is_audited: bool = True,
    ) -> None:
        cipher = cipher or PlainCipher()
        recorder = Recorder(cipher, on_entry, is_on=is_audited)
        super().__init__(self._reading, cipher, recorder)
        engine = make_engine(url, isolation_level)
        self._engine = engine
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._clock = clock
        self._checkpoints = Checkpoints(engine) if self._is_sqlite else None
        # SQLite's own waiting sleeps up to 0.1 s between two looks; a lock wakes the next writer at once
        self._write_lock = threading.Lock()
        self._on_erased = on_erased
        self._destroying = threading.Lock()
        # since when SQLite's log may hold what was erased: a process that was killed may have left some
        self._log_due_since: datetime | None = clock() if self._is_sqlite else None
        self.clients = SqlClients(self._reading, self._write_transaction)
        ways = self._reading, self._write_transaction, self._utc_now
        self.holds = SqlHolds(*ways, cipher, recorder=recorder, destroy_keys=self.destroy_keys)
        self.retention = SqlRetention(*ways, recorder)
        self.retention_runs = SqlRetentionRuns(*ways, recorder, self._empty_log)
        self._kept: Connection | None = None  # on SQLite, to write with: getting one takes as long as a statement
        self.agreements = SqlAgreements(self._reading, self._write_transaction, cipher, recorder)
        # on SQLite every transaction is a snapshot by nature
        self._reads = (
            engine
            if self._is_sqlite
            else engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        )

    def migrate(self) -> None:
        """Bring the database to the newest schema. Safe when several processes start at once.

        Raises:
            StoreUnavailable: the database does not answer, or a newer version has migrated it.
        """
        with self._write_transaction() as connection:
            if not self._is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            upgrade(connection)
            if self._is_sqlite:
                tell_planner(connection)

    def is_migrated(self) -> bool:
        """Whether the database has the schema that this code expects. Raises StoreUnavailable."""
        with self._reading() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return False
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == head_revision()

    def ping(self) -> None:
        """Raises StoreUnavailable when the database does not answer."""
        with self._reading() as connection:
            connection.execute(select(1))

    def page_bytes(self) -> int | None:
        """Return the size of SQLite's pages, which a file keeps from its making on; None on PostgreSQL."""
        if not self._is_sqlite:
            return None
        with self._reading() as connection:
            return int(connection.execute(text("PRAGMA page_size")).scalar_one())

    def close(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.close()
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        self._engine.dispose()

    def renew_timelines(self) -> None:
        """Begin another history of every gallery, after a restore: indexes of the old one are thrown away."""
        with self._write_transaction() as connection:
            # in the order in which others lock several galleries: else two would wait for each other
            in_order = select(galleries.c.gallery_id, galleries.c.standby_pack_id).order_by(galleries.c.gallery_id)
            for row in connection.execute(in_order).all():
                timelines = {"timeline_id": uuid.uuid4().hex}
                if row.standby_pack_id is not None:
                    timelines["standby_timeline_id"] = uuid.uuid4().hex
                renewed = update(galleries).where(galleries.c.gallery_id == row.gallery_id)
                connection.execute(renewed.values(timelines))

    @contextmanager
    def reading(self) -> Iterator[SqlReading]:
        """Read from one snapshot. Raises StoreUnavailable."""
        with self._reading() as connection:
            yield SqlReading(connection, self._cipher)

    @contextmanager
    def writing(self, gallery_id: str, also: Sequence[str] = ()) -> Iterator[SqlWriting]:
        """Hold the gallery's lock and its next number, and the locks of others; commit on leaving after a change.

        An exception rolls back; so does leaving without a change. Neither uses up a number.

        Raises:
            GalleryNotFound: there is no such gallery.
            StoreUnavailable: the database does not answer.
        """
        with self._writing(gallery_id, also) as writing:
            yield writing
        if writing.has_erased:
            self._empty_log()
            self.destroy_keys()

    @contextmanager
    def _writing(self, gallery_id: str, also: Sequence[str] = ()) -> Iterator[SqlWriting]:
        """Do the same and leave what follows an erasure to `finish_erasures`."""
        with self._write_transaction() as connection:
            self._expect_bare(connection)
            now = self._clock().astimezone(UTC)
            writing = SqlWriting(connection, gallery_id, now, self._cipher, self._recorder, also=also)
            yield writing
            if not writing.has_changed:
                connection.rollback()

    @contextmanager
    def sweeping(self, gallery_id: str, other_gallery_id: str | None = None) -> Iterator[SqlSweeping]:
        """Hold the locks of the galleries and use no number; commit on leaving, roll back on an exception.

        Raises:
            GalleryNotFound, StoreUnavailable
        """
        with self._write_transaction() as connection:
            now = self._clock().astimezone(UTC)
            yield SqlSweeping(
                connection, gallery_id, other_gallery_id, now, cipher=self._cipher, recorder=self._recorder
            )

    @contextmanager
    def migrating(self, gallery_id: str) -> Iterator[SqlMigrating]:
        """Hold the gallery's lock; commit on leaving, roll back on an exception.

        Raises:
            GalleryNotFound, StoreUnavailable
        """
        with self._write_transaction() as connection:
            self._expect_bare(connection)
            migrating = SqlMigrating(
                connection, gallery_id, self._clock().astimezone(UTC), self._cipher, self._recorder
            )
            yield migrating
        if migrating.has_erased:
            self._empty_log()

    def key_store_id(self) -> str | None:
        """Return the id of the key store that the record was encrypted with, None where it was not yet."""
        with self._reading() as connection:
            return record_keys.key_store_id(connection)

    def adopt_key_store(self, store_id: str) -> None:
        """Remember the key store, and see whether it has a few keys of each gallery. Raises KeysMissing."""
        with self._write_transaction() as connection:
            if not self._is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            record_keys.adopt(connection, store_id)
            record_keys.check_keys(connection, self._cipher)

    def encrypt_earlier(self, on_progress: Callable[[int, int], None] = lambda _done, _total: None) -> None:
        """Encrypt what an earlier version wrote, and leave nothing of how it was in the files of the database.

        Takes minutes a million templates; whoever stops it loses the last block. `on_progress` is told how many
        subjects of how many are encrypted. Raises StoreUnavailable.
        """
        with self._reading() as connection:
            total, is_purge_due = unencrypted_count(connection), record_keys.is_purge_due(connection)
        done = 0
        while total:
            on_progress(done, total)
            with self._write_transaction() as connection:
                encrypted = encrypt_block(connection, self._cipher)
            if not encrypted:
                break
            done += encrypted
        if not total and not is_purge_due:
            return
        with translated():
            purge(self._engine)
        with self._write_transaction() as connection:
            record_keys.set_purge_due(connection, is_due=False)
        self._empty_log()
        on_progress(done, done)

    def destroy_keys(self) -> None:
        """Write down in the ledger, then destroy, the keys of all subjects whose erasure was committed.

        After each erasure, and at start: a process that died between the two leaves nothing undone.

        Raises:
            StoreUnavailable, VarUnusable: it is done by the next call.
        """
        with self._destroying:
            with self._reading() as connection:
                lines = undestroyed(connection)
            if not lines:
                return
            self._on_erased(lines)
            erased = [each.key_id for each in lines]
            self._cipher.destroy(erased)
            with self._write_transaction() as connection:
                for part in in_parts(erased):
                    connection.execute(delete(key_destructions).where(key_destructions.c.key_id.in_(part)))

    def finish_erasures(self) -> None:
        """Do what an erasure could not: destroy its key, empty SQLite's log. Raises StoreUnavailable, VarUnusable."""
        if self._log_due_since is not None:
            self._empty_log()
        self.destroy_keys()

    def oldest_undestroyed(self) -> datetime | None:
        """Return when the oldest erasure was whose key is not destroyed yet. Raises StoreUnavailable."""
        with self._reading() as connection:
            return oldest_undestroyed(connection)

    @property
    def log_due_since(self) -> datetime | None:
        """Since when SQLite's write-ahead log may hold what was erased; None: it holds nothing of it."""
        return self._log_due_since

    def gallery_heads(self) -> dict[str, int]:
        """Return the number of the last change of each gallery. Raises StoreUnavailable."""
        return {each.gallery_id: each.last_seq for each in self.galleries()}

    def first_erasing(self, gallery_id: str, after: int) -> tuple[int, datetime] | None:
        """Return number and time of the first change behind `after` that erased templates. Raises StoreUnavailable."""
        with self._reading() as connection:
            return first_erasing(connection, gallery_id, after)

    def erasure_by(self, gallery_id: str, repeat_digest: str) -> ErasureRecord | None:
        """Return the erasure that a request asked for; None: it asked for none yet. Raises StoreUnavailable."""
        with self._reading() as connection:
            return erasure_by(connection, gallery_id, repeat_digest)

    def subjects_under(self, key_ids: Iterable[str]) -> list[tuple[str, str, str]]:
        """Return gallery, subject and key of everybody whose data key is one of these. Raises StoreUnavailable."""
        with self._reading() as connection:
            return subjects_under(connection, key_ids)

    def erase_again(self, gallery_id: str, subject_id: str, line: LedgerLine) -> None:
        """Repeat an erasure that a restore undid; after many, `finish_erasures` is to be called once.

        Raises:
            StoreUnavailable
        """
        if self._is_sqlite and self._log_due_since is None:
            self._log_due_since = self._clock()
        with suppress(SubjectNotFound), self._writing(gallery_id) as writing:
            # another process may be repeating it too
            writing.erase_subject(subject_id, replayed=line)

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Let no other process repeat erasures at the same time: it waits, and then finds them done.

        SQLite's record has one service at a time (`service.var_lock`).

        Raises:
            StoreUnavailable
        """
        if self._is_sqlite:
            yield
            return
        with ExitStack() as held:
            with translated():
                connection = held.enter_context(self._engine.connect())
                # a replay may take minutes, and so may who waits for it; the lock ends with the transaction
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _REPLAY_LOCK})
            yield

    def lacking_erasures(self, records: Sequence[ErasureRecord]) -> list[ErasureRecord]:
        """Return those that the register lacks: those of a time that a restore took away. Raises StoreUnavailable."""
        with self._reading() as connection:
            return lacking_erasures(connection, records)

    def restore_erasures(self, records: Sequence[ErasureRecord]) -> None:
        """Write what the register lacks of these erasures: those of a time that a restore took away.

        Raises:
            StoreUnavailable
        """
        if records:
            with self._write_transaction() as connection:
                restore_erasures(connection, records)

    def import_state(self, gallery_id: str, source_id: str) -> ImportState:
        """Return how far the import of a source is, also when it never began. Raises GalleryNotFound."""
        with self._reading() as connection:
            return import_state(connection, gallery_id, source_id)

    def check_import(self, gallery_id: str, source: ImportSource) -> None:
        """Raises EncounterExists: the import of this source began with other rows."""
        with self._reading() as connection:
            check_import(connection, gallery_id, source)

    def import_block(self, gallery_id: str, source: ImportSource, block: ImportBlock) -> ImportState:
        """Write the next rows of an import in one transaction; return how far it is then.

        Raises:
            GalleryNotFound, PackMismatch, EncounterExists, StoreUnavailable
        """
        with self._write_transaction() as connection:
            now = self._clock().astimezone(UTC)
            self._expect_bare(connection)
            return write_block(
                connection, gallery_id, source, block, now=now, cipher=self._cipher, recorder=self._recorder
            )

    def remember_rejection(
        self, gallery_id: str, idempotency_key: str, content_digest: str, code: str, message: str
    ) -> None:
        """Keep a rejected enrolment's answer under its key, unless the key is taken. Raises GalleryNotFound."""
        now = self._clock()
        row = {
            "gallery_id": gallery_id,
            "key": idempotency_key,
            "content_digest": content_digest,
            "rejection_code": code,
            "rejection_message": message,
            "created_at": now,
        }
        with self._write_transaction() as connection:
            read_gallery(connection, gallery_id)
            purge_keys(connection, gallery_id, now)
            insert_key(connection, row)

    def create_gallery(self, gallery: Gallery) -> Gallery:
        """Begin an empty gallery. Raises GalleryExists."""
        with self._write_transaction() as connection:
            row = new_gallery_columns(gallery)
            if connection.execute(insert_or_ignore(connection.dialect.name, galleries), row).rowcount == 0:
                raise GalleryExists("there is a gallery of this name")
            self._recorder.begin_chain(connection, gallery.gallery_id)
            created = NewEntry(AuditEvent.GALLERY_CREATED, details=gallery_settings(gallery))
            self._recorder.write(connection, gallery.gallery_id, created, self._clock())
            return read_gallery(connection, gallery.gallery_id)

    def update_gallery(
        self,
        gallery_id: str,
        revise: Callable[[Gallery], Gallery],
        threshold_change: Callable[[Gallery], ThresholdChange | None] = lambda _: None,
    ) -> Gallery:
        """Store other settings of a gallery, and what they make of its thresholds; see `service.ports.Store`.

        Raises:
            GalleryNotFound
        """
        with self._write_transaction() as connection:
            of_id = galleries.c.gallery_id == gallery_id
            row = connection.execute(select(galleries).where(of_id).with_for_update(key_share=True)).one_or_none()
            if row is None:
                raise GalleryNotFound("there is no such gallery")
            before = gallery_settings(to_gallery(row))
            wanted = gallery_settings(revise(to_gallery(row)))
            row = connection.execute(update(galleries).where(of_id).values(**wanted).returning(*galleries.c)).one()
            change = threshold_change(to_gallery(row))
            settings = {name: wanted[name] for name in wanted if wanted[name] != before[name]}
            changed = NewEntry(AuditEvent.GALLERY_CHANGED, details=settings)
            if settings:
                self._recorder.write(connection, gallery_id, changed, self._clock())
            calibrating.record_thresholds(connection, gallery_id, change, self._clock(), self._recorder)
            return to_gallery(row)

    def add_calibration(self, gallery_id: str, calibration: Calibration) -> None:
        """Keep a calibration for a gallery; one that is there already stays as it is. Raises GalleryNotFound."""
        with self._write_transaction() as connection:
            calibrating.add_calibration(connection, gallery_id, calibration, self._clock(), self._recorder)

    def decide_case(self, gallery_id: str, case_id: int, decision: CaseDecision) -> Case:
        """Keep what a human says of a case. Raises GalleryNotFound, CaseNotFound, CaseVoid."""
        with self._write_transaction() as connection:
            return deciding.decide_case(
                connection, gallery_id, case_id, decision, now=self._clock(), recorder=self._recorder
            )

    def record(self, entry: NewEntry, gallery_id: str | None = None) -> None:
        """Write an act into the chain of a gallery, or of the service, in a transaction of its own.

        Raises:
            GalleryNotFound, StoreUnavailable
        """
        with self._write_transaction() as connection:
            self._recorder.write(connection, gallery_id or SERVICE_CHAIN, entry, self._clock())

    def held_about(self, gallery_id: str, subject_id: str) -> Held:
        """Return all that is held of a subject. Raises GalleryNotFound, SubjectNotFound."""
        with self._reading() as connection:
            return held_about(connection, gallery_id, subject_id, self._cipher)

    def kept_sample(self, gallery_id: str, encounter_id: str, position: int) -> KeptSample:
        """Return a sample as it was sent. Raises GalleryNotFound, EncounterNotFound, SampleNotFound."""
        with self._reading() as connection:
            return kept_sample(connection, gallery_id, encounter_id, position, self._cipher)

    def calibration(self, gallery_id: str, calibration_id: str) -> Calibration:
        """Raises GalleryNotFound, CalibrationNotFound."""
        with self._reading() as connection:
            return calibrating.calibration_of(connection, gallery_id, calibration_id)

    def calibrations(self, gallery_id: str) -> list[KeptCalibration]:
        """Return the calibrations kept for a gallery, oldest first. Raises GalleryNotFound."""
        with self._reading() as connection:
            return calibrating.calibrations_of(connection, gallery_id)

    def add_rate_counts(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Add to the counters that all processes share, and return their sums. Raises StoreUnavailable."""
        with self._write_transaction() as connection:
            return add_rate_counts(connection, counts, self._clock())

    def galleries(self) -> list[Gallery]:
        """Return all galleries in the order of their ids."""
        with self._reading() as connection:
            return [to_gallery(row) for row in connection.execute(select(galleries).order_by(galleries.c.gallery_id))]

    def _utc_now(self) -> datetime:
        return self._clock().astimezone(UTC)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with translated(), self._reads.connect() as connection:
            begin(connection, writes=False)
            yield connection  # closing it ends the transaction

    @contextmanager
    def _write_transaction(self) -> Iterator[Connection]:
        with self._alone(), translated(), self._connection() as connection:
            begin(connection, writes=True)
            yield connection
            connection.commit()
            if self._checkpoints is not None:
                self._checkpoints.committed()

    def _expect_bare(self, connection: Connection) -> None:
        """Raise StoreUnavailable where this would write plain values into a record that is encrypted."""
        if self._cipher.is_plain and record_keys.key_store_id(connection) is not None:
            raise StoreUnavailable(NO_KEYS)

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """Give the connection to write with: on SQLite, where one writes at a time, the same until anything fails."""
        if not self._is_sqlite:
            with self._engine.connect() as connection:
                yield connection
            return
        connection, self._kept = self._kept or self._engine.connect(), None
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._kept = connection

    def _empty_log(self) -> None:
        """Leave nothing of what was erased in SQLite's log."""
        if not self._is_sqlite:
            return
        if self._log_due_since is None:
            self._log_due_since = self._clock()
        # the erasure is committed: a record that is busy now must not turn its answer into an error
        with suppress(StoreUnavailable), self._alone():
            if self._checkpoints is not None:
                self._checkpoints.close()  # one that runs would keep the log from being emptied
            if empty_log(self._engine):
                self._log_due_since = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """On SQLite: no other thread of this process writes meanwhile."""
        if not self._is_sqlite:
            yield
            return
        if not self._write_lock.acquire(timeout=LOCK_TIMEOUT_S):
            raise StoreUnavailable("the record is busy")
        try:
            yield
        finally:
            self._write_lock.release()
