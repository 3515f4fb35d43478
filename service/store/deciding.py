"""What humans decided on cases: the last word in the case, each word in the audit trail."""

from datetime import datetime

from sqlalchemy import Connection, and_, func, select, update

from service.audit_chain import AuditEvent, NewEntry, SeenSubject
from service.audit_people import seen_in_case
from service.domain import Case, CaseDecision, CaseKind, CaseStatus, CaseVerdict
from service.errors import CaseNotFound, CaseVoid
from service.store.auditing import Recorder
from service.store.reading import CASE_ROWS, read_gallery
from service.store.rows import to_case
from service.store.tables import (
    MAX_ROW_NUMBER,
    candidates,
    candidates_elsewhere,
    case_pairs,
    cases,
    encounters,
    enrolments,
)


def decide_case(
    connection: Connection,
    gallery_id: str,
    case_id: int,
    decision: CaseDecision,
    *,
    now: datetime,
    recorder: Recorder,
) -> Case:
    """Keep what a human says of a case. A verdict that stands already is neither written nor audited anew.

    Raises:
        GalleryNotFound, CaseNotFound
        CaseVoid: every record it compared the person with was erased.
    """
    case_id = min(max(case_id, 0), MAX_ROW_NUMBER)  # a number beyond the column's range is no case either
    is_case = (cases.c.gallery_id == gallery_id, cases.c.case_id == case_id)
    # the lock: two who decide at once come one after the other, on both databases
    connection.execute(update(cases).where(*is_case).values(status=cases.c.status))
    before = _case(connection, gallery_id, case_id)
    if before.status is CaseStatus.VOID:
        raise CaseVoid("the records it compared were erased: there is nothing left to decide")
    verdict = decision.verdict
    decided_by = None if verdict is None else decision.decided_by
    if (before.verdict, before.decided_by) == (verdict, decided_by):
        return before
    connection.execute(
        update(cases)
        .where(*is_case)
        .values(
            status=(CaseStatus.OPEN if verdict is None else CaseStatus.DECIDED).value,
            verdict=verdict,
            decided_by=decided_by,
            decided_at=None if verdict is None else now,
        )
    )
    details = {"case_id": case_id, "verdict": verdict, "before": before.verdict, "decided_by": decision.decided_by}
    decided = NewEntry(AuditEvent.CASE_DECIDED, verdict and verdict.value, details, _people_of(connection, before))
    recorder.write(connection, gallery_id, decided, now)
    return _case(connection, gallery_id, case_id)


def verdict_counts(connection: Connection, gallery_id: str) -> dict[tuple[CaseKind, CaseVerdict], int]:
    """Return how many cases have each verdict, those that became void since among them. Reads an index alone."""
    rows = connection.execute(
        select(cases.c.kind, cases.c.verdict, func.count())
        .where(cases.c.gallery_id == gallery_id, cases.c.verdict.is_not(None))
        .group_by(cases.c.kind, cases.c.verdict)
    )
    return {(CaseKind(kind), CaseVerdict(verdict)): count for kind, verdict, count in rows}


def same_people(connection: Connection, gallery_id: str) -> list[tuple[str, str]]:
    """Return the pairs of subjects of a gallery that were decided to be one person.

    Of a case with several candidates it is the first: the one whose score is the rarest by chance.
    """
    is_same = (cases.c.gallery_id == gallery_id, cases.c.verdict == CaseVerdict.SAME_PERSON.value)
    of_enrolment = (
        select(encounters.c.subject_id, candidates.c.subject_id.label("other"))
        .select_from(cases.join(enrolments).join(encounters))
        .join(
            candidates,
            and_(
                candidates.c.gallery_id == cases.c.gallery_id,
                candidates.c.enrolment_id == cases.c.enrolment_id,
                candidates.c.rank == 1,
            ),
        )
        .where(*is_same, cases.c.kind == CaseKind.DUPLICATE.value, candidates.c.subject_id.is_not(None))
    )
    of_pair = (
        select(encounters.c.subject_id, case_pairs.c.subject_id.label("other"))
        .select_from(cases.join(enrolments).join(encounters))
        .join(case_pairs, case_pairs.c.case_id == cases.c.case_id)
        .where(*is_same, case_pairs.c.gallery_id == gallery_id, case_pairs.c.subject_id.is_not(None))
    )
    return [(row.subject_id, row.other) for wanted in (of_enrolment, of_pair) for row in connection.execute(wanted)]


def _people_of(connection: Connection, case: Case) -> tuple[SeenSubject, ...]:
    """Return whom a case compares, those of them who were not erased."""
    if case.candidate is not None:
        return seen_in_case(case)
    ways = ((candidates, candidates.c.gallery_id), (candidates_elsewhere, candidates_elsewhere.c.other_gallery_id))
    found = [
        row
        for table, whose in ways
        for row in connection.execute(
            select(table.c.rank, table.c.subject_id, table.c.encounter_id, whose.label("whose")).where(
                table.c.gallery_id == case.gallery_id,
                table.c.enrolment_id == case.enrolment_id,
                table.c.subject_id.is_not(None),
            )
        )
    ]
    found.sort(key=lambda row: row.rank)
    others = (SeenSubject(row.subject_id, "candidate", row.encounter_id, row.whose) for row in found)
    return (*seen_in_case(case), *others)


def _case(connection: Connection, gallery_id: str, case_id: int) -> Case:
    row = connection.execute(
        CASE_ROWS.where(cases.c.gallery_id == gallery_id, cases.c.case_id == case_id)
    ).one_or_none()
    if row is None:
        read_gallery(connection, gallery_id)
        raise CaseNotFound("there is no such case in this gallery")
    return to_case(row)
