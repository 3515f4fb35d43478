"""Listings and single records, each a read of its own, paged by key.

A little over 300 lines: every listing beside the single record of its kind.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, func, select

from service.audit_chain import SERVICE_CHAIN, AuditEntry, AuditEvent, SubjectEntry
from service.audit_check import ChainPoint
from service.domain import (
    Case,
    CaseKind,
    CaseStatus,
    CaseVerdict,
    Encounter,
    EncounterFacts,
    Enrolment,
    GalleryCounts,
    JobState,
    MetadataAgreement,
    Migration,
    MigrationStage,
    MissingSubject,
    OutcomeKind,
    Page,
    Subject,
    Sweep,
    TemplateFacts,
)
from service.errors import (
    CaseNotFound,
    EncounterNotFound,
    EnrolmentNotFound,
    InvalidRequest,
    MigrationNotFound,
    NotFound,
    SubjectNotFound,
    SweepNotFound,
)
from service.ports import SubjectCipher
from service.store import deciding
from service.store.auditing import Recorder, chain_heads, entries_about, entries_after
from service.store.metadata_counts import agreement_of
from service.store.pack_reading import missing_count, missing_subjects
from service.store.parts import in_parts
from service.store.reading import CASE_ROWS, ENROLMENT_ROWS, build_enrolments, read_gallery
from service.store.rows import AnyRow, to_case, to_encounter, to_migration, to_sweep, to_template_facts
from service.store.sealing import Sealing
from service.store.standby_cases import MIGRATION_KIND, SWEEP_KIND
from service.store.tables import (
    MAX_ROW_NUMBER,
    case_pairs,
    cases,
    encounters,
    enrolments,
    jobs,
    samples,
    subjects,
    templates,
)

T = TypeVar("T")


_SWEEPS = select(jobs).where(jobs.c.kind == SWEEP_KIND)
_MIGRATIONS = select(jobs).where(jobs.c.kind == MIGRATION_KIND)

_TEMPLATE_FACTS = select(
    templates.c.reference_id,
    templates.c.encounter_id,
    templates.c.position,
    templates.c.pack_id,
    templates.c.model_id,
    templates.c.verifies,
    templates.c.quality,
    templates.c.box,
)


def build_encounters(
    connection: Connection, gallery_id: str, rows: Iterable[AnyRow], cipher: SubjectCipher
) -> list[Encounter]:
    """Return the encounters of `rows` (all columns of the table), in that order, with their templates.

    Those whose subject was erased since the rows were read are left out.
    """
    rows = list(rows)
    opened = Sealing(cipher, gallery_id).open_facts(rows)
    found: dict[str, list[TemplateFacts]] = {row.encounter_id: [] for row in rows}
    with_samples: set[str] = set()
    for part in in_parts(list(found)):
        for template in connection.execute(
            _TEMPLATE_FACTS.where(templates.c.gallery_id == gallery_id, templates.c.encounter_id.in_(part)).order_by(
                templates.c.position, templates.c.reference_id
            )
        ):
            found[template.encounter_id].append(to_template_facts(template))
        with_samples |= set(
            connection.execute(
                select(samples.c.encounter_id)
                .where(samples.c.gallery_id == gallery_id, samples.c.encounter_id.in_(part))
                .distinct()
            ).scalars()
        )
    return [
        to_encounter(
            row,
            EncounterFacts(row.captured_at, free.site, free.operator_ref, row.birth_year, row.sex, free.labels),
            found[row.encounter_id],
            has_samples=row.encounter_id in with_samples,
        )
        for row, free in zip(rows, opened, strict=True)
        if free is not None
    ]


def build_subjects(connection: Connection, gallery_id: str, rows: Iterable[AnyRow]) -> list[Subject]:
    """Return the subjects of `rows`, in that order, with their encounters in the order of enrolment."""
    rows = list(rows)
    found: dict[str, list[str]] = {row.subject_id: [] for row in rows}
    for part in in_parts(list(found)):
        for encounter in connection.execute(
            select(encounters.c.subject_id, encounters.c.encounter_id)
            .where(encounters.c.gallery_id == gallery_id, encounters.c.subject_id.in_(part))
            .order_by(encounters.c.seq)
        ):
            found[encounter.subject_id].append(encounter.encounter_id)
    return [Subject(row.subject_id, row.gallery_id, tuple(found[row.subject_id]), row.created_at) for row in rows]


def build_cases(_connection: Connection, _gallery_id: str, rows: Iterable[AnyRow]) -> list[Case]:
    return [to_case(row) for row in rows]


def build_sweeps(_connection: Connection, _gallery_id: str, rows: Iterable[AnyRow]) -> list[Sweep]:
    return [to_sweep(row) for row in rows]


def to_number(after: str | None) -> int:
    """Return the number in a cursor, 0 for the first page. Raises InvalidRequest."""
    if after is None:
        return 0
    if not (after.isascii() and after.isdigit()) or int(after[:20]) > MAX_ROW_NUMBER:
        raise InvalidRequest("the cursor `after` is none that this listing gave")
    return int(after)


class SqlRecords:
    """`service.ports.Records` over a function that opens a read transaction."""

    def __init__(
        self, read: Callable[[], AbstractContextManager[Connection]], cipher: SubjectCipher, recorder: Recorder
    ) -> None:
        self._read = read
        self._cipher = cipher
        self._recorder = recorder

    def _build_encounters(self, connection: Connection, gallery_id: str, rows: Iterable[AnyRow]) -> list[Encounter]:
        return build_encounters(connection, gallery_id, rows, self._cipher)

    def subject(self, gallery_id: str, subject_id: str) -> Subject:
        """Raises GalleryNotFound, SubjectNotFound."""
        wanted = select(subjects).where(subjects.c.subject_id == subject_id)
        return self._single(gallery_id, wanted, subjects.c.gallery_id, build_subjects, SubjectNotFound)

    def subjects(self, gallery_id: str, after: str | None, limit: int) -> Page[Subject]:
        """Return subjects in the order of their ids; `after` is the last id of the page before."""
        wanted = select(subjects)
        if after is not None:
            wanted = wanted.where(subjects.c.subject_id > after)
        return self._page(gallery_id, wanted, (subjects.c.gallery_id, subjects.c.subject_id), limit, build_subjects)

    def encounter(self, gallery_id: str, encounter_id: str) -> Encounter:
        """Raises GalleryNotFound, EncounterNotFound."""
        wanted = select(encounters).where(encounters.c.encounter_id == encounter_id)
        return self._single(gallery_id, wanted, encounters.c.gallery_id, self._build_encounters, EncounterNotFound)

    def encounters(self, gallery_id: str, subject_id: str | None, after: str | None, limit: int) -> Page[Encounter]:
        """Return encounters, of one subject or of all, in the order of enrolment."""
        wanted = select(encounters).where(encounters.c.seq > to_number(after))
        if subject_id is not None:
            wanted = wanted.where(encounters.c.subject_id == subject_id)
        return self._page(
            gallery_id, wanted, (encounters.c.gallery_id, encounters.c.seq), limit, self._build_encounters
        )

    def enrolment(self, gallery_id: str, enrolment_id: str) -> Enrolment:
        """Raises GalleryNotFound, EnrolmentNotFound."""
        wanted = ENROLMENT_ROWS.where(enrolments.c.enrolment_id == enrolment_id)
        return self._single(gallery_id, wanted, enrolments.c.gallery_id, build_enrolments, EnrolmentNotFound)

    def enrolments(self, gallery_id: str, after: str | None, limit: int) -> Page[Enrolment]:
        """Return enrolments in their order."""
        wanted = ENROLMENT_ROWS.where(enrolments.c.seq > to_number(after))
        return self._page(gallery_id, wanted, (enrolments.c.gallery_id, enrolments.c.seq), limit, build_enrolments)

    def case(self, gallery_id: str, case_id: int) -> Case:
        """Raises GalleryNotFound, CaseNotFound."""
        # a number beyond the column's range is no case either; the drivers would raise
        wanted = CASE_ROWS.where(cases.c.case_id == min(max(case_id, 0), MAX_ROW_NUMBER))
        return self._single(gallery_id, wanted, cases.c.gallery_id, build_cases, CaseNotFound)

    def cases(self, gallery_id: str, after: str | None, limit: int, job_id: int | None = None) -> Page[Case]:
        """Return cases in the order of their numbers, those of one sweep or all."""
        wanted = CASE_ROWS.where(cases.c.case_id > to_number(after))
        if job_id is not None:
            # this page alone, from the index of a sweep's cases: the databases would walk through all cases
            of_sweep = select(case_pairs.c.case_id).where(
                case_pairs.c.job_id == job_id, case_pairs.c.case_id > to_number(after)
            )
            page = of_sweep.order_by(case_pairs.c.case_id).limit(limit + 1)
            wanted = wanted.where(cases.c.case_id.in_(page.scalar_subquery()))
        return self._page(gallery_id, wanted, (cases.c.gallery_id, cases.c.case_id), limit, build_cases)

    def sweep(self, gallery_id: str, job_id: int) -> Sweep:
        """Raises GalleryNotFound, SweepNotFound."""
        wanted = _SWEEPS.where(jobs.c.job_id == min(max(job_id, 0), MAX_ROW_NUMBER))
        return self._single(gallery_id, wanted, jobs.c.gallery_id, build_sweeps, SweepNotFound)

    def sweeps(self, gallery_id: str, after: str | None, limit: int) -> Page[Sweep]:
        """Return sweeps in the order of their numbers."""
        wanted = _SWEEPS.where(jobs.c.job_id > to_number(after))
        return self._page(gallery_id, wanted, (jobs.c.gallery_id, jobs.c.job_id), limit, build_sweeps)

    def audit(
        self, gallery_id: str | None, after: str | None, limit: int, event: AuditEvent | None = None
    ) -> Page[AuditEntry]:
        """Return the audit trail of a gallery, None: of the service, oldest first. Raises GalleryNotFound."""
        with self._read() as connection:
            if gallery_id is not None:
                read_gallery(connection, gallery_id)
            found = entries_after(connection, gallery_id or SERVICE_CHAIN, to_number(after), limit + 1, event)
        return Page(tuple(found[:limit]), str(found[limit - 1].seq) if len(found) > limit else None)

    def audit_heads(self) -> dict[str, ChainPoint]:
        """Return how far each chain is, in the order of their names."""
        with self._read() as connection:
            return chain_heads(connection)

    def audit_block(self, chain: str, after: int, limit: int) -> list[AuditEntry]:
        """Return up to `limit` entries of a chain behind a number, in order."""
        with self._read() as connection:
            return entries_after(connection, chain, after, limit)

    def audit_about(self, gallery_id: str, subject_id: str) -> list[SubjectEntry]:
        """Return the entries of all chains that concern a subject, oldest first."""
        with self._read() as connection:
            return entries_about(connection, gallery_id, subject_id, self._recorder)

    def unfinished_sweeps(self) -> list[Sweep]:
        """Return the sweeps of all galleries that have not ended, oldest first."""
        unfinished = [state.value for state in JobState if not state.has_ended]
        wanted = _SWEEPS.where(jobs.c.state.in_(unfinished)).order_by(jobs.c.job_id)
        with self._read() as connection:
            return [to_sweep(row) for row in connection.execute(wanted)]

    def migration(self, gallery_id: str) -> Migration:
        """Return the last one that was begun. Raises GalleryNotFound, MigrationNotFound."""
        last = _MIGRATIONS.where(jobs.c.gallery_id == gallery_id).order_by(jobs.c.job_id.desc()).limit(1)
        with self._read() as connection:
            row = connection.execute(last).one_or_none()
            if row is None:
                read_gallery(connection, gallery_id)
                raise MigrationNotFound("the model pack of this gallery was never changed")
            return to_migration(row)

    def unfinished_migrations(self) -> list[Migration]:
        """Return the migrations of all galleries that need work, oldest first."""
        stages = [stage.value for stage in MigrationStage if stage.needs_work]
        with self._read() as connection:
            rows = connection.execute(_MIGRATIONS.where(jobs.c.stage.in_(stages)).order_by(jobs.c.job_id))
            return [to_migration(row) for row in rows]

    def missing_subjects(self, gallery_id: str, pack_id: str, after: str | None, limit: int) -> Page[MissingSubject]:
        """Return whom `pack_id` would not find, in the order of their ids. Raises GalleryNotFound."""
        with self._read() as connection:
            read_gallery(connection, gallery_id)
            found = missing_subjects(connection, gallery_id, pack_id, after, limit + 1)
        return Page(tuple(found[:limit]), found[limit - 1].subject_id if len(found) > limit else None)

    def missing_count(self, gallery_id: str, pack_id: str) -> int:
        """Return how many these are."""
        with self._read() as connection:
            return missing_count(connection, gallery_id, pack_id)

    def gallery_counts(self, gallery_id: str) -> GalleryCounts:
        """Return what a gallery holds now; encounters count whatever their status. Raises GalleryNotFound.

        Takes seconds for millions of people.
        """
        with self._read() as connection:
            gallery = read_gallery(connection, gallery_id)
            in_gallery = encounters.c.gallery_id == gallery_id
            encounter_count, exceptions = connection.execute(
                select(func.count(), func.count(encounters.c.biometric_exception)).where(in_gallery)
            ).one()
            subject_count = connection.execute(
                select(func.count()).select_from(subjects).where(subjects.c.gallery_id == gallery_id)
            ).scalar_one()
            open_cases = _open_case_count(connection, gallery_id)
            outcomes = connection.execute(
                select(enrolments.c.outcome, func.count())
                .where(enrolments.c.gallery_id == gallery_id)
                .group_by(enrolments.c.outcome)
                .order_by(enrolments.c.outcome)
            ).all()
        return GalleryCounts(
            subjects=subject_count,
            encounters=encounter_count,
            templates=gallery.template_count,
            biometric_exceptions=exceptions,
            open_cases=open_cases,
            outcomes=tuple((OutcomeKind(outcome), count) for outcome, count in outcomes),
        )

    def metadata_agreement(
        self, gallery_id: str, *, by_sex: bool, birth_year_tolerance: int | None
    ) -> MetadataAgreement:
        """Return how often what is recorded of one person at several encounters agrees. Reads all encounters."""
        with self._read() as connection:
            return agreement_of(connection, gallery_id, by_sex=by_sex, birth_year_tolerance=birth_year_tolerance)

    def open_case_count(self, gallery_id: str) -> int:
        """Return how many cases are open, quickly, however large the gallery is; 0 where there is none."""
        with self._read() as connection:
            return _open_case_count(connection, gallery_id)

    def verdict_counts(self, gallery_id: str) -> dict[tuple[CaseKind, CaseVerdict], int]:
        """Return how many cases have each verdict, quickly; nothing where there is no such gallery."""
        with self._read() as connection:
            return deciding.verdict_counts(connection, gallery_id)

    def same_people(self, gallery_id: str) -> list[tuple[str, str]]:
        """Return the pairs of subjects of a gallery that were decided to be one person."""
        with self._read() as connection:
            return deciding.same_people(connection, gallery_id)

    def _single(
        self,
        gallery_id: str,
        wanted: Select[*tuple[Any, ...]],
        column: ColumnElement[str],
        build: Callable[[Connection, str, Sequence[AnyRow]], list[T]],
        missing: type[NotFound],
    ) -> T:
        with self._read() as connection:
            row = connection.execute(wanted.where(column == gallery_id)).one_or_none()
            found = [] if row is None else build(connection, gallery_id, [row])
            if not found:
                read_gallery(connection, gallery_id)
                raise missing(f"there is no such {missing.code.removesuffix('_not_found')} in this gallery")
            return found[0]

    def _page(
        self,
        gallery_id: str,
        wanted: Select[*tuple[Any, ...]],
        key: tuple[ColumnElement[str], ColumnElement[Any]],
        limit: int,
        build: Callable[[Connection, str, Sequence[AnyRow]], list[T]],
    ) -> Page[T]:
        in_gallery, order = key
        with self._read() as connection:
            # one more than asked for tells whether there is a next page
            rows = connection.execute(wanted.where(in_gallery == gallery_id).order_by(order).limit(limit + 1)).all()
            if not rows:
                read_gallery(connection, gallery_id)
            items = build(connection, gallery_id, rows[:limit])
            last = str(rows[limit - 1]._mapping[order]) if len(rows) > limit else None
        return Page(tuple(items), last)


def _open_case_count(connection: Connection, gallery_id: str) -> int:
    is_open = (cases.c.gallery_id == gallery_id, cases.c.status == CaseStatus.OPEN.value)
    return connection.execute(select(func.count()).where(*is_open)).scalar_one()
