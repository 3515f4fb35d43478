"""What the use cases ask of the outer folders: an embedder, an index for each gallery, the record.

Over 300 lines on purpose: all ports in one place, nothing but signatures.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from service.access import Client, ClientKey
from service.agreement import Agreement, AgreementUse, NewUse, UseResult
from service.audit_chain import AuditEntry, AuditEvent, NewEntry, SubjectEntry
from service.audit_check import ChainPoint
from service.calibration import Calibration
from service.domain import (
    Band,
    Case,
    CaseDecision,
    CaseKind,
    CaseVerdict,
    Change,
    EarlierRequest,
    Embeddings,
    Encounter,
    EncounterStatus,
    Enrolment,
    Erasure,
    ErasureRecord,
    FacePolicy,
    Gallery,
    GalleryCounts,
    Held,
    Hit,
    JobState,
    KeptSample,
    Lease,
    MetadataAgreement,
    Migration,
    MigrationStage,
    MigrationStep,
    MissingSubject,
    NewEnrolment,
    Page,
    PairedTemplate,
    Probes,
    Reference,
    StoredSample,
    Subject,
    Sweep,
    SweepStep,
    Template,
    ThresholdChange,
)
from service.receipts import ErasureTerms
from service.retention_rule import (
    Hold,
    RetentionFigures,
    RetentionItem,
    RetentionReport,
    RetentionRule,
    RetentionRun,
    SkipReason,
)

StoredSamples = list[StoredSample]
PairedTemplates = list[PairedTemplate]


class Embedder(Protocol):
    """From the bytes of a sample to a template, with one model pack."""

    @property
    def pack_id(self) -> str: ...

    @property
    def model_id(self) -> str:
        """Changes whenever the weights or the pre-processing change; templates of two models are never compared."""
        ...

    @property
    def dimension(self) -> int: ...

    def extract(self, data: bytes, policy: FacePolicy) -> Template:
        """Return the template of the face in `data`.

        Raises:
            SampleRejected: no usable face; the subclass says why.
            Overloaded: too many samples are waiting.
        """
        ...


PartState = Literal["open", "sealing", "sealed"]


@dataclass(frozen=True, slots=True)
class IndexPart:
    """One part of an index. An open part takes templates and is compared exactly; a sealed one never grows."""

    state: PartState
    templates: int
    removed: int  # templates that were taken out and whose place is not yet given back
    ram_bytes: int
    disk_bytes: int = 0
    file_name: str | None = None


class GalleryIndex(Protocol):
    """The searchable copy of one gallery. It applies the change log in order and without gaps."""

    @property
    def high_water_mark(self) -> int:
        """The last change applied; 0 when nothing was."""
        ...

    @property
    def miss_bound(self) -> float:
        """Upper 95 % bound on the share of pairs at or above a threshold that `search` misses; 0 for an exact one."""
        ...

    def __len__(self) -> int: ...

    def add(self, seq: int, reference_ids: Sequence[int], embeddings: Embeddings) -> None:
        """Apply change `seq`, which adds these references (none is allowed).

        Raises:
            IndexUnavailable: `seq` is not the next change.
        """
        ...

    def remove(self, seq: int, reference_ids: Sequence[int]) -> None:
        """Apply change `seq`, which takes these references out; unknown ones are ignored (erased before they came).

        Raises:
            IndexUnavailable: `seq` is not the next change.
        """
        ...

    def search(self, probes: Embeddings, threshold: float) -> list[list[Hit]]:
        """Return for each probe every reference with score >= threshold, best first, however many there are.

        What an index that is not exact may miss is its `miss_bound`.

        Args:
            probes: (n, D) float32, rows of L2 norm 1.
            threshold: cosine, -1..1.
        """
        ...

    def templates(self, after: int, up_to: int) -> tuple[npt.NDArray[np.int64], Embeddings]:
        """Return what it holds of references `after` < id <= `up_to`, to be compared with the record.

        Returns:
            (n,) int64 ids, ascending, and copies of their rows, (n, D) float32, as they were added.
        """
        ...

    def parts(self) -> list[IndexPart]: ...

    def compact(self) -> None:
        """Leave nothing, in memory and on disk, of the templates that were removed before the call.

        Raises:
            IndexUnavailable: that failed; what is searched is right nevertheless.
        """
        ...

    def discard(self, reason: str = "differs_from_record") -> None:
        """Keep nothing of it: another takes its place, for this reason."""
        ...

    def close(self) -> None:
        """Write no more; what is kept on disk is right and stays for the next."""
        ...


@dataclass(frozen=True, slots=True)
class KeptCalibration:
    """A calibration that was made for a gallery, and when."""

    calibration: Calibration
    created_at: datetime


class NewIndex(Protocol):
    """Makes the index of a gallery, empty or with what it kept since the last start."""

    def __call__(self, gallery: Gallery, embedder: Embedder) -> GalleryIndex:
        """Raises VarUnusable."""
        ...


class Reading(Protocol):
    """Reads of the record from one consistent snapshot."""

    def gallery(self, gallery_id: str) -> Gallery:
        """Raises GalleryNotFound."""
        ...

    def changes_after(self, gallery_id: str, seq: int, limit: int, pack_id: str | None = None) -> list[Change]:
        """Return up to `limit` changes with numbers above `seq`, in order.

        They add the templates of that pack only, None: of every pack. What they remove is of every pack.
        """
        ...

    def references(
        self, gallery_id: str, reference_ids: Sequence[int], pack_id: str | None = None
    ) -> dict[int, Reference]:
        """Return those of the references that exist and are searched now: erased and inactive ones are left out.

        Those of one pack; None: of every pack.
        """
        ...

    def left_out(self, gallery_id: str, band: Band) -> int:
        """Return how many samples that are searched now are known to be of somebody outside the band, quickly.

        By whichever pack of the gallery.
        """
        ...

    def subject_references(
        self, gallery_id: str, subject_id: str, *, inactive: bool = False, pack_id: str | None = None
    ) -> list[Reference]:
        """Return the searched references of a subject, oldest first; with `inactive` also those not searched now.

        Those of one pack; None: of every pack. Empty when there is no such subject.
        """
        ...

    def references_of(self, gallery_id: str, subject_ids: Sequence[str], pack_id: str | None = None) -> list[Reference]:
        """Return the searched references of several subjects, in the order of their ids.

        Those of one pack; None: of every pack.
        """
        ...

    def references_after(
        self, gallery_id: str, after: int, last: int, limit: int, pack_id: str | None = None
    ) -> list[Reference]:
        """Return up to `limit` searched references above `after` and up to `last`, in the order of their ids.

        Those of one pack; None: of every pack.
        """
        ...

    def last_reference_id(self) -> int:
        """Return the highest reference id of all galleries, 0 where there is none."""
        ...

    def probes_after(self, gallery_id: str, after: int, last: int, limit: int, pack_id: str | None = None) -> Probes:
        """Return what `references_after` does, without whose they are: all at once, for many."""
        ...

    def without_counterpart(self, gallery_id: str, reference_ids: Sequence[int], pack_id: str) -> set[int]:
        """Return those of the references whose sample has no template of `pack_id`."""
        ...

    def samples_after(
        self, gallery_id: str, packs: tuple[str, str], after: int, last: int, limit: int
    ) -> StoredSamples:
        """Return the samples of up to `limit` references of the first pack, in the order of their ids.

        Above `after` and up to `last`; those whose sample has a template of the second pack already are left out.
        """
        ...

    def paired_templates(self, gallery_id: str, packs: tuple[str, str], after: int, limit: int) -> PairedTemplates:
        """Return up to `limit` samples that are searched in both packs, by the first pack's reference above `after`."""
        ...

    def repeated_templates(self, gallery_id: str, packs: tuple[str, str], subjects: int) -> PairedTemplates:
        """Return the samples, searched in both packs, of the first `subjects` by id with several encounters."""
        ...

    def paired_templates_of(
        self, gallery_id: str, packs: tuple[str, str], subject_ids: Sequence[str]
    ) -> PairedTemplates:
        """Return the samples of some subjects that are searched in both packs."""
        ...

    def earlier_request(
        self, gallery_id: str, idempotency_key: str | None, encounter_id: str | None, not_before: datetime
    ) -> EarlierRequest | None:
        """Return what was answered before under this key (not older than `not_before`) or this encounter."""
        ...


class Writing(Reading, Protocol):
    """The write transaction of one gallery: holds the gallery's lock and its next change number.

    `gallery` is as it was when the lock was taken, and costs no query; so are the others whose locks it holds.
    """

    @property
    def seq(self) -> int:
        """The number of the change that this transaction makes."""
        ...

    def insert_enrolment(self, enrolment: NewEnrolment) -> Enrolment: ...

    def erase_subject(self, subject_id: str, terms: ErasureTerms | None = None) -> Erasure:
        """Delete all that is held of a subject, on these terms or, where nobody wants a receipt, the usual ones.

        Raises:
            SubjectNotFound
            LegalHold
            IdempotencyKeyReused: a request with the same key erased somebody else.
        """
        ...

    def set_encounter_status(self, encounter_id: str, status: EncounterStatus) -> Encounter:
        """Give an encounter another status.

        It can become active again only while nobody was enrolled since it became inactive: whoever was, was not
        compared with it.

        Raises:
            EncounterNotFound, EncounterWithdrawn, EncounterOutdated
            LegalHold: it was to be withdrawn, and its subject or gallery is held.
        """
        ...


class Sweeping(Reading, Protocol):
    """The transaction that works on a gallery's sweeps: holds the gallery's lock, and makes no change of the gallery.

    Where a sweep is against another gallery it holds that one's lock too: nobody in it is erased meanwhile.
    `SweepNotFound` where there is no sweep of this number in the gallery.
    """

    def begin_sweep(self, allowed_false_pairs: int, threshold: float) -> Sweep:
        """Queue a sweep over the references that are searched now, against the other gallery where there is one.

        Raises:
            SweepUnderway
        """
        ...

    def lease_sweep(self, job_id: int, lease: Lease) -> Sweep | None:
        """Take a sweep to work on it; None where it ended or somebody else is at it."""
        ...

    def release_sweep(self, job_id: int, owner: str) -> None:
        """Let somebody else go on with it, if it is this owner's."""
        ...

    def advance_sweep(self, job_id: int, lease: Lease, step: SweepStep) -> Sweep | None:
        """Move the sweep on and open a case for each pair of subjects that has none yet, in either gallery.

        None, and nothing is written, where it ended, stands elsewhere or is somebody else's.
        """
        ...

    def end_sweep(self, job_id: int, state: JobState, error_code: str | None = None) -> Sweep:
        """Cancel it or let it fail; one that ended already stays as it is."""
        ...


class Migrating(Reading, Protocol):
    """The transaction that works on the change of a gallery's pack: holds the gallery's lock and its next number.

    `MigrationNotFound` where there is no migration of this number in the gallery.
    """

    def begin_migration(self, to_pack_id: str, to_model_id: str, own_model_id: str) -> Migration:
        """Let a pack stand by: from now on every enrolment brings templates of both.

        Raises:
            MigrationUnderway
        """
        ...

    def current_migration(self) -> Migration:
        """Return the last one that was begun, as it is under the lock."""
        ...

    def lease_migration(self, job_id: int, lease: Lease) -> Migration | None:
        """Take a migration to work on it; None where it needs no work or somebody else is at it."""
        ...

    def release_migration(self, job_id: int, owner: str) -> None:
        """Let somebody else go on with it, if it is this owner's."""
        ...

    def advance_migration(self, job_id: int, lease: Lease, step: MigrationStep) -> Migration | None:
        """Write the templates of a step whose old ones are still there, as one change, and move on.

        None, and nothing is written, where it needs none, stands elsewhere or is somebody else's.
        """
        ...

    def drop_templates(self, job_id: int, lease: Lease, limit: int) -> Migration | None:
        """Delete up to `limit` templates of the pack that was given up; it has ended when none are left."""
        ...

    def note_migration_error(self, job_id: int, error_code: str) -> Migration:
        """Say why it gets no further now."""
        ...

    def swap_packs(self, job_id: int, stage: MigrationStage, change: ThresholdChange | None) -> Migration:
        """Let the standby pack rule and the ruling one stand by, as one change: the cut-over, or the way back.

        What thresholds follow from it goes into the audit trail.

        Raises:
            SweepUnderway: a sweep of the gallery, or against it, goes by the scores of the ruling pack.
        """
        ...

    def give_up_standby(self, job_id: int) -> Migration:
        """Let the ruling pack be the only one; the templates of the other are deleted by `drop_templates`."""
        ...

    def missing_count(self, gallery_id: str, pack_id: str) -> int:
        """Return how many subjects `pack_id` would not find."""
        ...


class Records(Protocol):
    """Listings and single records, each a read of its own, for the read routes."""

    def subject(self, gallery_id: str, subject_id: str) -> Subject: ...

    def subjects(self, gallery_id: str, after: str | None, limit: int) -> Page[Subject]: ...

    def encounter(self, gallery_id: str, encounter_id: str) -> Encounter: ...

    def encounters(self, gallery_id: str, subject_id: str | None, after: str | None, limit: int) -> Page[Encounter]: ...

    def enrolment(self, gallery_id: str, enrolment_id: str) -> Enrolment: ...

    def enrolments(self, gallery_id: str, after: str | None, limit: int) -> Page[Enrolment]: ...

    def case(self, gallery_id: str, case_id: int) -> Case: ...

    def cases(self, gallery_id: str, after: str | None, limit: int, job_id: int | None = None) -> Page[Case]:
        """Return cases in the order of their numbers, those of one sweep or all."""
        ...

    def sweep(self, gallery_id: str, job_id: int) -> Sweep: ...

    def sweeps(self, gallery_id: str, after: str | None, limit: int) -> Page[Sweep]: ...

    def held_about(self, gallery_id: str, subject_id: str) -> Held:
        """Return all that is held of a subject. Raises GalleryNotFound, SubjectNotFound."""
        ...

    def kept_sample(self, gallery_id: str, encounter_id: str, position: int) -> KeptSample:
        """Return a sample as it was sent. Raises GalleryNotFound, EncounterNotFound, SampleNotFound."""
        ...

    def migration(self, gallery_id: str) -> Migration:
        """Return the last one that was begun. Raises GalleryNotFound, MigrationNotFound."""
        ...

    def missing_subjects(self, gallery_id: str, pack_id: str, after: str | None, limit: int) -> Page[MissingSubject]:
        """Return whom `pack_id` would not find, in the order of their ids."""
        ...


class AuditTrail(Protocol):
    """The chains of what was done: one of each gallery, one of the service. Entries are appended, never changed."""

    def record(self, entry: NewEntry, gallery_id: str | None = None) -> None:
        """Write an act of whoever acts now, in the chain of a gallery or, for None, of the service, and commit.

        Raises:
            GalleryNotFound, StoreUnavailable
        """
        ...

    def audit(
        self, gallery_id: str | None, after: str | None, limit: int, event: AuditEvent | None = None
    ) -> Page[AuditEntry]:
        """Return the entries of a chain, oldest first, those of one event or all. Raises GalleryNotFound."""
        ...

    def audit_heads(self) -> dict[str, ChainPoint]:
        """Return how far each chain is, in the order of their names."""
        ...

    def audit_block(self, chain: str, after: int, limit: int) -> list[AuditEntry]:
        """Return up to `limit` entries of a chain behind a number, in order."""
        ...

    def audit_about(self, gallery_id: str, subject_id: str) -> list[SubjectEntry]:
        """Return the entries of all chains that concern a subject, oldest first."""
        ...


class Agreements(Protocol):
    """The record of sharing agreements and of every search under them."""

    def add(self, agreement: Agreement) -> None:
        """Keep a new agreement, and say so in the gallery's audit trail. Raises GalleryNotFound."""
        ...

    def end(self, gallery_id: str, agreement_id: str, ended_by: str, clock: Callable[[], datetime]) -> Agreement:
        """End an agreement; one that ended already stays as it is. Raises GalleryNotFound, AgreementNotFound.

        The clock is read under the agreement's lock: no search that was let in bears a later time than the end.
        """
        ...

    def of_gallery(self, gallery_id: str, after: str | None, limit: int) -> Page[Agreement]:
        """Return the agreements about a gallery in the order of their ids. Raises GalleryNotFound."""
        ...

    def of_partner(self, partner_id: str, after: str | None, limit: int) -> Page[Agreement]:
        """Return the agreements of a client in the order of their ids."""
        ...

    def begin_use(self, use: NewUse, clock: Callable[[], datetime]) -> tuple[Agreement, int]:
        """Let a partner search once, and note it; return the agreement and the number of the use, from 1 in each.

        Args:
            use: that is asked for.
            clock: time zone aware; read under the agreement's lock, so that nobody waits past its end and is let in.

        Raises:
            AgreementNotFound: there is none that this client may use now, whatever the reason.
            PurposeNotAgreed: the use is for another purpose.
            AgreementLimitReached: the searches of the day are used up; `retry_after_s` says until when.
        """
        ...

    def finish_use(
        self,
        agreement_id: str,
        use_id: int,
        result: UseResult,
        now: datetime,
        partner_gallery_ids: Sequence[str],
    ) -> None:
        """Note what came of a use, in the audit trails of both sides too.

        Args:
            agreement_id: whose use it is.
            use_id: as `begin_use` told.
            result: what came of it.
            now: time zone aware.
            partner_gallery_ids: the partner's own galleries. Where none of them is there, its side is the service's
                chain.
        """
        ...

    def uses(
        self,
        agreement_id: str,
        after: str | None,
        limit: int,
        *,
        gallery_id: str | None = None,
        partner_id: str | None = None,
    ) -> Page[AgreementUse]:
        """Return the uses of an agreement, oldest first. Raises AgreementNotFound: it is of neither of the two."""
        ...


class Store(Records, AuditTrail, Protocol):
    """The record. A restore renews the timeline id of each gallery; an index of another timeline is thrown away."""

    def reading(self) -> AbstractContextManager[Reading]: ...

    def erasure_by(self, gallery_id: str, repeat_digest: str) -> ErasureRecord | None:
        """Return the erasure that a request asked for; None: it asked for none yet."""
        ...

    def destroy_keys(self) -> None:
        """Destroy the keys of all subjects whose erasure was committed. Raises StoreUnavailable, VarUnusable."""
        ...

    def writing(self, gallery_id: str, also: Sequence[str] = ()) -> AbstractContextManager[Writing]:
        """Take the gallery's lock and next number; commit on leaving, roll back on an exception.

        Args:
            gallery_id: the gallery that is changed.
            also: galleries that are searched too. Their locks are taken as well, all in the order of their names: who
                was enrolled in one of them is seen, and nobody is enrolled there before this is committed.

        Raises:
            GalleryNotFound: there is no such gallery, or not one of the others.
            StoreUnavailable: the database does not answer.
        """
        ...

    def sweeping(self, gallery_id: str, other_gallery_id: str | None = None) -> AbstractContextManager[Sweeping]:
        """Take the gallery's lock, and that of the other; commit on leaving, roll back on an exception.

        Raises:
            GalleryNotFound, StoreUnavailable
        """
        ...

    def missing_count(self, gallery_id: str, pack_id: str) -> int:
        """Return how many these are. Takes seconds a million templates."""
        ...

    def migrating(self, gallery_id: str) -> AbstractContextManager[Migrating]:
        """Take the gallery's lock; commit on leaving, roll back on an exception.

        Raises:
            GalleryNotFound, StoreUnavailable
        """
        ...

    def unfinished_migrations(self) -> list[Migration]:
        """Return the migrations of all galleries that need work, oldest first."""
        ...

    def unfinished_sweeps(self) -> list[Sweep]:
        """Return the sweeps of all galleries that have not ended, oldest first."""
        ...

    def remember_rejection(
        self, gallery_id: str, idempotency_key: str, content_digest: str, code: str, message: str
    ) -> None:
        """Keep a rejected enrolment's answer under its key, unless the key is taken already."""
        ...

    def create_gallery(self, gallery: Gallery) -> Gallery:
        """Begin an empty gallery with a timeline id of its own. Raises GalleryExists."""
        ...

    def update_gallery(
        self,
        gallery_id: str,
        revise: Callable[[Gallery], Gallery],
        threshold_change: Callable[[Gallery], ThresholdChange | None] = lambda _: None,
    ) -> Gallery:
        """Store other settings of a gallery, and what they make of its thresholds, in one transaction.

        Args:
            revise: given the gallery as it is under the lock, returns it with its new `GALLERY_SETTINGS`; where it
                raises, nothing is stored.
            threshold_change: given the revised gallery, returns what to write into the audit trail.

        Raises:
            GalleryNotFound
        """
        ...

    def add_calibration(self, gallery_id: str, calibration: Calibration) -> None:
        """Keep a calibration for a gallery; one that is there already stays as it is. Raises GalleryNotFound."""
        ...

    def calibration(self, gallery_id: str, calibration_id: str) -> Calibration:
        """Raises GalleryNotFound, CalibrationNotFound."""
        ...

    def calibrations(self, gallery_id: str) -> list[KeptCalibration]:
        """Return the calibrations kept for a gallery, oldest first. Raises GalleryNotFound."""
        ...

    def galleries(self) -> list[Gallery]: ...

    def gallery_counts(self, gallery_id: str) -> GalleryCounts: ...

    def metadata_agreement(
        self, gallery_id: str, *, by_sex: bool, birth_year_tolerance: int | None
    ) -> MetadataAgreement:
        """Return of how many people a fact that filters is known twice, and of how many it disagrees.

        Takes seconds for millions of people.

        Args:
            gallery_id: none is found where there is no such gallery.
            by_sex: whether the recorded sex counts.
            birth_year_tolerance: years that two years of birth may lie apart; None: they do not count.
        """
        ...

    def open_case_count(self, gallery_id: str) -> int: ...

    def decide_case(self, gallery_id: str, case_id: int, decision: CaseDecision) -> Case:
        """Keep what a human says of a case: the last verdict counts, each goes into the audit trail.

        Raises:
            GalleryNotFound, CaseNotFound
            CaseVoid: every record it compared the person with was erased.
        """
        ...

    def verdict_counts(self, gallery_id: str) -> dict[tuple[CaseKind, CaseVerdict], int]:
        """Return how many cases have each verdict, those that became void since among them."""
        ...

    def same_people(self, gallery_id: str) -> list[tuple[str, str]]:
        """Return the pairs of subjects of a gallery that were decided to be one person."""
        ...


@dataclass(frozen=True, slots=True)
class GalleryKey:
    """A gallery's key as the key store holds it: wrapped by a master key."""

    gallery_id: str
    version: int  # from 1; the highest wraps new subject keys
    wrapped: bytes
    master_key_id: str


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """The data key of one subject as the key store holds it: wrapped by a key of its gallery."""

    key_id: str  # 32 hexadecimal digits: 12 of the time it was drawn, 20 random ones
    gallery_id: str
    version: int  # of the gallery key
    wrapped: bytes


class Wrapped(NamedTuple):
    """A secret as a master key wrapped it."""

    key_id: str
    data: bytes


class MasterKey(Protocol):
    """The key above all others, wherever it is kept. What it wraps opens in its own context only."""

    @property
    def key_id(self) -> str:
        """The name of the key that wraps now. Raises MasterKeyUnusable."""
        ...

    def wrap(self, secret: bytes, context: bytes) -> Wrapped:
        """Return a secret wrapped by the newest key there is. Raises MasterKeyUnusable."""
        ...

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Return what the key of that name wrapped. Raises MasterKeyUnusable, also where that key is not here."""
        ...

    def renew(self) -> None:
        """Draw another key, which wraps from now on; what the earlier ones wrapped still opens.

        Raises:
            MasterKeyUnusable: also where somebody else must give the next key.
        """
        ...

    def retire(self) -> None:
        """Told that the earlier keys wrap nothing any more. Raises MasterKeyUnusable."""
        ...

    def close(self) -> None: ...


class KeyStore(Protocol):
    """Where wrapped keys are kept, apart from the record: who has the one has nothing of the other."""

    @property
    def store_id(self) -> str:
        """Drawn when it was made; the record remembers it."""
        ...

    def gallery_keys(self, gallery_id: str | None = None) -> list[GalleryKey]:
        """Return the keys of a gallery, or (None) of all, by gallery and version."""
        ...

    def add_gallery_key(self, key: GalleryKey) -> bool:
        """Keep a new gallery key.

        False, and nothing is written, where its gallery has one of this version, or another master key wraps now.
        """
        ...

    def set_master_key(self, key_id: str) -> None:
        """From now on this master key wraps: gallery keys that another one wrapped are not taken any more."""
        ...

    def rewrap(self, before: GalleryKey, after: GalleryKey) -> bool:
        """Put a gallery key in the place of the same one under another master key; False where it changed since."""
        ...

    def add_subject_keys(self, keys: Sequence[SubjectKey]) -> None: ...

    def subject_keys(self, key_ids: Sequence[str]) -> dict[str, SubjectKey]:
        """Return those that are there, by id."""
        ...

    def discard(self, key_ids: Sequence[str]) -> None:
        """Delete keys that nothing was sealed with."""
        ...

    def destroy(self, key_ids: Sequence[str]) -> None:
        """Destroy keys for good and remember that; those that are gone already are no error."""
        ...

    def destroyed(self, key_ids: Sequence[str]) -> set[str]:
        """Return those of the keys that `destroy` destroyed."""
        ...

    def all_destroyed(self) -> dict[str, datetime]:
        """Return every key that `destroy` destroyed, and when."""
        ...

    def unpurged_since(self) -> datetime | None:
        """Return since when a destroyed key may still lie in the store's files; None: none does."""
        ...

    def purge(self) -> None:
        """Write the files anew, or empty their log, without the keys that were destroyed."""
        ...


class SubjectCipher(Protocol):
    """Seals values under the data key of the subject they tell of. Threads may share it."""

    @property
    def is_plain(self) -> bool:
        """Whether nothing is encrypted, which only benchmarks and tests of other things may choose."""
        ...

    def take_keys(self, gallery_id: str, count: int) -> list[str | None]:
        """Return ids of new keys for subjects of a gallery, each for one of them; None where nothing is encrypted.

        Their keys are in the key store before this returns: what is sealed is never without its key.
        """
        ...

    def give_back(self, gallery_id: str, key_ids: Sequence[str | None]) -> None:
        """Take back keys that nothing was sealed with."""
        ...

    def seal(self, gallery_id: str, key_id: str | None, plain: bytes, context: bytes) -> bytes:
        """Return a value sealed, with the id of its key in front; it opens in the same context only.

        Raises:
            KeyDestroyed, KeysMissing, MasterKeyUnusable, StoreUnavailable
        """
        ...

    def open(self, gallery_id: str, sealed: bytes, context: bytes) -> bytes:
        """Return what `seal` was given.

        Raises:
            KeyDestroyed: its subject was erased.
            KeysMissing, Undecipherable, MasterKeyUnusable, StoreUnavailable
        """
        ...

    def open_all(self, gallery_id: str, values: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        """Return many values, each given with its context, in their order; None where the key was destroyed.

        Raises:
            KeysMissing, Undecipherable, MasterKeyUnusable, StoreUnavailable
        """
        ...

    def seal_of_gallery(self, gallery_id: str, plain: bytes, context: bytes) -> bytes:
        """Return a value that tells of no subject sealed, under the gallery's own key.

        Raises:
            MasterKeyUnusable, StoreUnavailable
        """
        ...

    def open_of_gallery(self, gallery_id: str, sealed: bytes, context: bytes) -> bytes:
        """Return what `seal_of_gallery` was given.

        Raises:
            KeysMissing, Undecipherable, MasterKeyUnusable, StoreUnavailable
        """
        ...

    def destroy(self, key_ids: Sequence[str]) -> None:
        """Destroy the keys of erased subjects, after that was committed. Raises StoreUnavailable."""


class LegalHolds(Protocol):
    """What may not be erased. A subject is None where the whole gallery is meant. All raise StoreUnavailable."""

    def place(self, gallery_id: str, subject_id: str | None, reason: str) -> Hold:
        """Hold it on behalf of whoever acts now; a hold that is there stays as it is.

        Once this returns, no erasure of it succeeds until the hold is lifted.

        Raises:
            GalleryNotFound, SubjectNotFound
        """
        ...

    def lift(self, gallery_id: str, subject_id: str | None) -> None:
        """End a hold, and forget its reason. Raises GalleryNotFound, HoldNotFound."""
        ...

    def hold(self, gallery_id: str, subject_id: str | None) -> Hold:
        """Return its own hold, with the reason. Raises GalleryNotFound, HoldNotFound."""
        ...

    def covering(self, gallery_id: str, subject_id: str | None = None) -> Hold | None:
        """Return what keeps it from being erased, its own hold or the gallery's, without the reason."""
        ...

    def held(self, gallery_id: str) -> list[Hold]:
        """Return the holds of a gallery without their reasons, its own first, then by subject."""
        ...


class RetentionRecord(Protocol):
    """Retention rules, and the reports that are made from them. All raise StoreUnavailable."""

    def rule(self, gallery_id: str) -> RetentionRule:
        """Return the rule of a gallery; one that limits nothing where none was set. Raises GalleryNotFound."""
        ...

    def set_rule(self, wanted: RetentionRule) -> RetentionRule:
        """Put another rule in the place of a gallery's; the same again changes nothing. Raises GalleryNotFound."""
        ...

    def begin_report(self, gallery_id: str, *, automatic: bool) -> RetentionReport:
        """Begin a report; earlier ones of this kind that were not acted on are superseded.

        Raises:
            GalleryNotFound
            ClockDoubtful: the clock is earlier than the gallery's last change.
        """
        ...

    def extend_report(self, report: RetentionReport, after: str) -> str | None:
        """Add what is due of the next subjects by id; return the last of these, None where there are no more.

        Raises:
            RetentionReportExpired: another report took its place meanwhile.
        """
        ...

    def finish_report(self, report: RetentionReport) -> RetentionReport | None:
        """Let a report be acted on; an automatic one without a line is dropped, and None returned.

        Raises:
            RetentionReportExpired: another report took its place meanwhile.
        """
        ...

    def report(self, gallery_id: str, report_id: int) -> RetentionReport:
        """Raises GalleryNotFound, RetentionReportNotFound."""
        ...

    def reports(self, gallery_id: str, after: str | None, limit: int) -> Page[RetentionReport]:
        """Return reports, the newest first. Raises GalleryNotFound."""
        ...

    def items(self, gallery_id: str, report_id: int, after: str | None, limit: int) -> Page[RetentionItem]:
        """Return the lines of a report that are still there. Raises GalleryNotFound, RetentionReportNotFound."""
        ...

    def claim_look(self, not_since: datetime) -> list[str]:
        """Return the galleries whose automatic rule was not looked at since, and note that it is now.

        Left out are those with an automatic report that waits to be acted on, and `doubtful_looks`.
        """
        ...

    def doubtful_looks(self) -> list[str]:
        """Return the galleries whose automatic rule waits for a human's report, since the clock may have jumped."""
        ...

    def reports_to_act_on(self) -> list[RetentionReport]:
        """Return the automatic reports whose time has come, without those of galleries under hold."""
        ...

    def figures(self, gallery_id: str) -> RetentionFigures:
        """Return what a scrape shows of a gallery, quickly."""
        ...


class RetentionRuns(Protocol):
    """The runs that act on reports, line by line. All raise StoreUnavailable.

    Where one of them counts a line it first sees, under the gallery's lock, that the run is still this owner's, the
    rule unchanged, and that nobody concerned is held.
    """

    def begin_run(self, gallery_id: str, report_id: int) -> RetentionReport:
        """Queue a run over the lines of a report; one that was begun already is returned as it is.

        Raises:
            GalleryNotFound, RetentionReportNotFound, RetentionReportExpired, RetentionRuleChanged, RetentionUnderway
            LegalHold: the whole gallery is held.
        """
        ...

    def unfinished_runs(self) -> list[RetentionRun]:
        """Return the runs of all galleries that need work, oldest first."""
        ...

    def lease_run(self, run: RetentionRun, lease: Lease) -> RetentionRun | None:
        """Take a run to work on it; None where it ended or somebody else is at it."""
        ...

    def release_run(self, run: RetentionRun, owner: str) -> None:
        """Let somebody else go on with it, if it is this owner's."""
        ...

    def run(self, run: RetentionRun) -> RetentionRun:
        """Return it as it stands."""
        ...

    def lines_left(self, run: RetentionRun, limit: int) -> list[RetentionItem]:
        """Return the next lines that the run is to deal with, in their order; those held when reported are none."""
        ...

    def claim(self, writing: Writing, run: RetentionRun, item: RetentionItem, lease: Lease) -> None:
        """Within the transaction that erases a subject: see that it still may be, and count the line as done.

        Raises:
            RunLost, SeenAgain, RetentionRuleChanged
            LegalHold: the subject or the gallery was put on hold.
        """
        ...

    def erase_samples(self, run: RetentionRun, item: RetentionItem, lease: Lease) -> int:
        """Erase the samples of the encounter of a line; its templates stay. Return how many these were.

        Raises:
            RunLost, RetentionRuleChanged
            LegalHold: the subject or the gallery was put on hold.
        """
        ...

    def skip(self, run: RetentionRun, item: RetentionItem, lease: Lease, reason: SkipReason) -> None:
        """Leave a line alone and say why.

        Raises:
            RunLost, RetentionRuleChanged
            LegalHold: the whole gallery was put on hold: nothing of it is left to do.
        """
        ...

    def finish_run(self, run: RetentionRun, lease: Lease) -> RetentionReport:
        """Let a run be done, with no line left to deal with. Raises RunLost."""
        ...

    def fail_run(self, run: RetentionRun, error_code: str) -> RetentionReport:
        """Stop a run; one that ended already stays as it is."""
        ...


class Clients(Protocol):
    """The clients that call with API keys. Each method is a transaction of its own; all raise StoreUnavailable."""

    def add(self, client: Client) -> None:
        """Keep a client with its keys. Raises ClientExists, also where the name was revoked."""
        ...

    def all(self) -> list[Client]:
        """Return all clients in the order of their names, revoked ones among them."""
        ...

    def of_key(self, key_id: str) -> Client | None:
        """Return the client of a key with this key alone, None where there is no such key."""
        ...

    def add_key(self, name: str, key: ClientKey, others_end_at: datetime) -> Client:
        """Give a client a further key; those it has end at that moment, unless they end sooner.

        Raises:
            ClientNotFound: there is none of this name, or it was revoked.
        """
        ...

    def revoke(self, name: str, now: datetime) -> Client:
        """End a client and its keys for good; one that was revoked stays as it is. Raises ClientNotFound."""
        ...

    def note_use(self, key_id: str, now: datetime) -> None:
        """Keep when a key was used last; never goes back."""
        ...
