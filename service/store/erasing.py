"""Taking out of the record: erasing a subject, making an encounter inactive, withdrawing it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Connection, Table, case, delete, exists, or_, select, tuple_, union, update

from service.domain import (
    NO_ATTACK_MODEL,
    CaseKind,
    CaseStatus,
    Encounter,
    EncounterFacts,
    EncounterStatus,
    ErasedParts,
)
from service.errors import EncounterNotFound, EncounterOutdated, EncounterWithdrawn, SubjectNotFound
from service.ports import SubjectCipher
from service.store.counts import Place
from service.store.holds import expect_no_hold, forget_holds
from service.store.import_erasures import note_erasure
from service.store.keys import insert_or_ignore
from service.store.metadata_counts import count_encounters
from service.store.parts import in_parts
from service.store.records import build_encounters
from service.store.rows import AnyRow, finding_json, to_finding
from service.store.sealing import Sealing, key_of
from service.store.tables import (
    candidates,
    candidates_elsewhere,
    case_pairs,
    cases,
    encounters,
    enrolments,
    galleries,
    idempotency_keys,
    key_destructions,
    retention_items,
    samples,
    subjects,
    templates,
)


@dataclass(frozen=True, slots=True)
class Moved:
    """The references that a change takes out of the indexes or puts back, each with its place and pack."""

    reference_ids: tuple[int, ...]
    places: tuple[Place, ...]
    active: tuple[Place, ...]  # those that were searched before


@dataclass(frozen=True, slots=True)
class Cleared:
    """What went with a subject."""

    moved: Moved
    key_id: str | None
    parts: ErasedParts


def clear_subject(connection: Connection, gallery_id: str, subject_id: str) -> Cleared:
    """Delete every row of a subject; return its references, the id of its data key, and how much it was.

    What stays is a digest, for each import that could bring the subject back, until that is finished; and the id of
    its data key, until the key store has destroyed that: the caller sees to it after the commit.

    Raises:
        SubjectNotFound: there is no such subject in this gallery.
    """
    is_subject = (subjects.c.gallery_id == gallery_id, subjects.c.subject_id == subject_id)
    subject = connection.execute(select(subjects.c.key_id).where(*is_subject)).one_or_none()
    if subject is None:
        raise SubjectNotFound("there is no such subject")
    if subject.key_id is not None:
        destruction = insert_or_ignore(connection.dialect.name, key_destructions)
        connection.execute(destruction, {"key_id": subject.key_id})
    _lock_shared(connection, gallery_id, subject_id)
    mentions = _forget_in_other_findings(connection, gallery_id, subject_id)
    its_encounters = select(encounters.c.encounter_id).where(
        encounters.c.gallery_id == gallery_id, encounters.c.subject_id == subject_id
    )
    encounter_ids = list(connection.execute(its_encounters).scalars())
    moved, counts = Moved((), (), ()), Counter[str]()
    for part in in_parts(encounter_ids):
        count_encounters(connection, gallery_id, part, -1)
        gone, deleted = _clear_encounters(connection, gallery_id, part)
        moved = Moved(moved.reference_ids + gone.reference_ids, moved.places + gone.places, moved.active + gone.active)
        counts.update(deleted)
    connection.execute(
        delete(idempotency_keys).where(
            idempotency_keys.c.gallery_id == gallery_id,
            # rejected requests name no subject: any of them may be this one's, and they cost nothing to answer anew
            or_(idempotency_keys.c.subject_id == subject_id, idempotency_keys.c.subject_id.is_(None)),
        )
    )
    of_report = retention_items.c.gallery_id == gallery_id, retention_items.c.subject_id == subject_id
    connection.execute(delete(retention_items).where(*of_report))
    forget_holds(connection, gallery_id, subject_id)
    connection.execute(delete(subjects).where(*is_subject))
    note_erasure(connection, gallery_id, subject_id)
    parts = ErasedParts(
        data_keys=0 if subject.key_id is None else 1,
        encounters=counts["encounters"],
        enrolments=counts["enrolments"],
        templates=len(moved.reference_ids),
        index_places=len(moved.active),
        samples=counts["samples"],
        candidates=counts["candidates"],
        cases=counts["cases"],
        mentions=mentions,
    )
    return Cleared(moved, subject.key_id, parts)


def _forget_in_other_findings(connection: Connection, gallery_id: str, subject_id: str) -> int:
    """Null a subject's ids among the candidates of others; void the duplicate cases that have no candidate left.

    Returns how often it was among them.
    """
    touched: dict[str, list[str]] = {}  # enrolments by gallery
    elsewhere = (candidates_elsewhere.c.other_gallery_id == gallery_id, candidates_elsewhere.c.subject_id == subject_id)
    rows = select(candidates_elsewhere.c.gallery_id, candidates_elsewhere.c.enrolment_id).where(*elsewhere)
    for row in connection.execute(rows):
        touched.setdefault(row.gallery_id, []).append(row.enrolment_id)
    here = (candidates.c.gallery_id == gallery_id, candidates.c.subject_id == subject_id)
    own = connection.execute(select(candidates.c.enrolment_id).where(*here).distinct()).scalars()
    touched.setdefault(gallery_id, []).extend(own)
    mentions = 0
    for table, is_about in ((candidates_elsewhere, elsewhere), (candidates, here)):
        nobody = update(table).where(*is_about).values(subject_id=None, encounter_id=None, reference_id=None)
        mentions += connection.execute(nobody).rowcount
    for its_gallery_id in sorted(touched):
        _void_without_candidate(connection, its_gallery_id, touched[its_gallery_id])
    return mentions + _forget_in_pairs(connection, gallery_id, subject_id)


def _lock_shared(connection: Connection, gallery_id: str, subject_id: str) -> None:
    """Lock what another gallery may be at too, before anything is changed: each kind of row whole, and in one order.

    Two galleries may erase at once, each under its own lock, what one row is about: its candidate, and its enrolment.
    Whoever comes second waits here, and sees afterwards what the first one left. On SQLite the transaction is the lock.
    """
    if connection.dialect.name == "sqlite":
        return
    seen, pair = candidates_elsewhere.c, case_pairs.c
    is_here = (candidates.c.gallery_id == gallery_id, candidates.c.subject_id == subject_id)
    is_elsewhere = (seen.other_gallery_id == gallery_id, seen.subject_id == subject_id)
    is_paired = (pair.gallery_id == gallery_id, pair.subject_id == subject_id)
    own = (
        select(enrolments.c.gallery_id, enrolments.c.enrolment_id)
        .join(encounters)
        .where(encounters.c.gallery_id == gallery_id, encounters.c.subject_id == subject_id)
    )
    key = (seen.gallery_id, seen.enrolment_id, seen.rank)
    its_rows = union(
        select(*key).where(*is_elsewhere), select(*key).where(tuple_(seen.gallery_id, seen.enrolment_id).in_(own))
    )
    connection.execute(select(*key).where(tuple_(*key).in_(its_rows)).order_by(*key).with_for_update()).all()
    is_own = tuple_(cases.c.gallery_id, cases.c.enrolment_id).in_(own)
    paired = union(select(pair.case_id).where(*is_paired), select(cases.c.case_id).where(is_own))
    connection.execute(
        select(pair.case_id).where(pair.case_id.in_(paired)).order_by(pair.case_id).with_for_update()
    ).all()
    findings = union(
        own,
        select(seen.gallery_id, seen.enrolment_id).where(*is_elsewhere),
        select(candidates.c.gallery_id, candidates.c.enrolment_id).where(*is_here),
    )
    of_findings = select(cases.c.case_id).where(tuple_(cases.c.gallery_id, cases.c.enrolment_id).in_(findings))
    its_cases = union(of_findings, select(pair.case_id).where(*is_paired))
    wanted = select(cases.c.case_id).where(cases.c.case_id.in_(its_cases))
    connection.execute(wanted.order_by(cases.c.case_id).with_for_update()).all()


def _void_without_candidate(connection: Connection, gallery_id: str, enrolment_ids: Sequence[str]) -> None:
    """Void the duplicate cases of enrolments that have no candidate left.

    A continuity case compares a person with itself, so nobody else's erasure voids it. One that was opened since not
    everybody could be compared is about all others, too.
    """
    has_candidate = [
        exists().where(
            table.c.gallery_id == cases.c.gallery_id,
            table.c.enrolment_id == cases.c.enrolment_id,
            table.c.subject_id.is_not(None),
        )
        for table in (candidates, candidates_elsewhere)
    ]
    for part in in_parts(enrolment_ids):
        searches = select(enrolments.c.enrolment_id, enrolments.c.searched).where(
            enrolments.c.gallery_id == gallery_id, enrolments.c.enrolment_id.in_(part)
        )
        complete = [row.enrolment_id for row in connection.execute(searches) if (row.searched or {}).get("complete")]
        its_cases = (
            cases.c.gallery_id == gallery_id,
            cases.c.enrolment_id.in_(complete),
            cases.c.kind == CaseKind.DUPLICATE.value,
        )
        connection.execute(update(cases).where(*its_cases, ~or_(*has_candidate)).values(status=CaseStatus.VOID.value))


def _forget_in_pairs(connection: Connection, gallery_id: str, subject_id: str) -> int:
    """Void the cases of sweeps in which a subject is the other one, in any gallery, and null its ids there."""
    is_about = (case_pairs.c.gallery_id == gallery_id, case_pairs.c.subject_id == subject_id)
    nobody = update(case_pairs).where(*is_about).values(subject_id=None, encounter_id=None, reference_id=None)
    touched = list(connection.execute(nobody.returning(case_pairs.c.case_id)).scalars())
    for part in in_parts(touched):
        connection.execute(update(cases).where(cases.c.case_id.in_(part)).values(status=CaseStatus.VOID.value))
    return len(touched)


def _clear_encounters(
    connection: Connection, gallery_id: str, encounter_ids: Sequence[str]
) -> tuple[Moved, dict[str, int]]:
    """Delete encounters with their templates, samples, enrolments, candidates and cases; return how much went."""
    gone, sample_count = _clear_biometrics(connection, gallery_id, encounter_ids)
    enrolment_ids = (
        select(enrolments.c.enrolment_id)
        .where(enrolments.c.gallery_id == gallery_id, enrolments.c.encounter_id.in_(encounter_ids))
        .scalar_subquery()
    )
    its_cases = select(cases.c.case_id).where(cases.c.gallery_id == gallery_id, cases.c.enrolment_id.in_(enrolment_ids))
    connection.execute(delete(case_pairs).where(case_pairs.c.case_id.in_(its_cases.scalar_subquery())))
    counts = Counter({"samples": sample_count})
    for table, part in ((cases, "cases"), (candidates, "candidates"), (candidates_elsewhere, "candidates")):
        of_enrolments = delete(table).where(table.c.gallery_id == gallery_id, table.c.enrolment_id.in_(enrolment_ids))
        counts[part] += connection.execute(of_enrolments).rowcount
    for table in (enrolments, encounters):
        of_encounters = delete(table).where(*_of_encounters(table, gallery_id, encounter_ids))
        counts[table.name] = connection.execute(of_encounters).rowcount
    return gone, counts


def _clear_biometrics(connection: Connection, gallery_id: str, encounter_ids: Sequence[str]) -> tuple[Moved, int]:
    """Delete the templates and samples of encounters; return the references and the number of samples."""
    moved = _references_of(connection, gallery_id, encounter_ids)
    connection.execute(delete(templates).where(*_of_encounters(templates, gallery_id, encounter_ids)))
    deleted = connection.execute(delete(samples).where(*_of_encounters(samples, gallery_id, encounter_ids)))
    return moved, deleted.rowcount


def _of_encounters(
    table: Table, gallery_id: str, encounter_ids: Sequence[str]
) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.gallery_id == gallery_id, table.c.encounter_id.in_(encounter_ids)


def _references_of(connection: Connection, gallery_id: str, encounter_ids: Sequence[str]) -> Moved:
    rows = connection.execute(
        select(
            templates.c.reference_id,
            templates.c.pack_id,
            templates.c.encounter_id,
            templates.c.position,
            templates.c.active,
        )
        .where(*_of_encounters(templates, gallery_id, encounter_ids))
        .order_by(templates.c.reference_id)
    ).all()
    places = tuple(Place(row.pack_id, row.encounter_id, row.position) for row in rows)
    active = tuple(place for place, row in zip(places, rows, strict=True) if row.active)
    return Moved(tuple(row.reference_id for row in rows), places, active)


def move_encounter(
    connection: Connection,
    gallery_id: str,
    encounter_id: str,
    status: EncounterStatus,
    seq: int,
    *,
    cipher: SubjectCipher,
) -> tuple[Encounter, Moved | None]:
    """Give an encounter another status; return it with the references that moved, None where nothing changed.

    Raises:
        EncounterNotFound: there is no such encounter in this gallery.
        EncounterWithdrawn: it was withdrawn and cannot get another status.
        EncounterOutdated: others came while it was inactive.
        LegalHold: it was to be withdrawn, and its subject or gallery is held.
    """
    is_encounter = _of_encounters(encounters, gallery_id, [encounter_id])
    row = connection.execute(select(encounters).where(*is_encounter)).one_or_none()
    if row is None:
        raise EncounterNotFound("there is no such encounter")
    if row.status == status.value:
        return build_encounters(connection, gallery_id, [row], cipher)[0], None
    if row.status == EncounterStatus.WITHDRAWN.value:
        raise EncounterWithdrawn("a withdrawn encounter cannot get another status")
    if status is EncounterStatus.ACTIVE and _others_came(connection, row):
        raise EncounterOutdated("others were enrolled while this encounter was inactive: enrol the sample again")
    if status is EncounterStatus.WITHDRAWN:
        expect_no_hold(connection, gallery_id, row.subject_id)
    count_encounters(connection, gallery_id, [encounter_id], -1)
    if status is EncounterStatus.WITHDRAWN:
        moved = _withdraw(connection, row, Sealing(cipher, gallery_id))
    else:
        moved = _references_of(connection, gallery_id, [encounter_id])
        connection.execute(
            update(templates)
            .where(*_of_encounters(templates, gallery_id, [encounter_id]))
            .values(active=status is EncounterStatus.ACTIVE)
        )
    count_encounters(connection, gallery_id, [encounter_id], 1)
    connection.execute(update(encounters).where(*is_encounter).values(status=status.value, status_seq=seq))
    row = connection.execute(select(encounters).where(*is_encounter)).one()
    return build_encounters(connection, gallery_id, [row], cipher)[0], moved


def _others_came(connection: Connection, row: AnyRow) -> bool:
    """Whether an encounter of another subject became active after this one became inactive.

    Or somebody was enrolled elsewhere who was compared with this gallery too, and so without this encounter.
    """
    searched = select(galleries.c.searched_seq).where(galleries.c.gallery_id == row.gallery_id)
    if connection.execute(searched).scalar_one() >= row.status_seq:
        return True
    later = select(encounters.c.encounter_id).where(
        encounters.c.gallery_id == row.gallery_id,
        encounters.c.status_seq > row.status_seq,
        encounters.c.status == EncounterStatus.ACTIVE.value,
        encounters.c.subject_id != row.subject_id,
    )
    return connection.execute(later.limit(1)).first() is not None


def _withdraw(connection: Connection, row: AnyRow, sealing: Sealing) -> Moved:
    """Delete what an encounter says of a face and of a person; the encounter and its finding stay, without it."""
    gallery_id, encounter_id = row.gallery_id, row.encounter_id
    (free,) = sealing.open_facts([row])
    assert free is not None, "its subject is there as long as the gallery's lock is held"
    key_id = key_of(connection, gallery_id, row.subject_id)
    _lock_shared(connection, gallery_id, row.subject_id)
    moved, _ = _clear_biometrics(connection, gallery_id, [encounter_id])
    connection.execute(
        update(encounters)
        .where(*_of_encounters(encounters, gallery_id, [encounter_id]))
        .values(
            **sealing.facts(key_id, encounter_id, EncounterFacts(), free.content_digest),
            # still counted, but no longer saying why: the reason speaks of a body
            biometric_exception=case((encounters.c.biometric_exception.is_not(None), "withdrawn")),
        )
    )
    subject_id = select(encounters.c.subject_id).where(*_of_encounters(encounters, gallery_id, [encounter_id]))
    for table, column in (
        (candidates, candidates.c.gallery_id),
        (candidates_elsewhere, candidates_elsewhere.c.other_gallery_id),
        (case_pairs, case_pairs.c.gallery_id),
    ):
        connection.execute(
            update(table)
            .where(
                column == gallery_id,
                table.c.subject_id == subject_id.scalar_subquery(),
                table.c.encounter_id == encounter_id,
            )
            .values(reference_id=None)
        )
    is_finding = _of_encounters(enrolments, gallery_id, [encounter_id])
    findings = connection.execute(select(enrolments.c.samples).where(*is_finding)).scalar_one()
    bare = [
        replace(to_finding(each), reference_id=None, quality=None, box=None, presentation_attack=NO_ATTACK_MODEL)
        for each in findings
    ]
    connection.execute(update(enrolments).where(*is_finding).values(samples=[finding_json(each) for each in bare]))
    return moved
