"""Whom a record concerns: who is named by the entry that says it was made or looked at."""

from collections.abc import Iterable

from service.audit_chain import AuditEvent, Detail, NewEntry, SeenSubject
from service.domain import Candidate, Case, Encounter, Enrolment, NewEnrolment


def seen_in_candidates(candidates: Iterable[Candidate]) -> tuple[SeenSubject, ...]:
    """Return those of the candidates who were not erased."""
    return tuple(
        SeenSubject(each.subject_id, "candidate", each.encounter_id, each.gallery_id)
        for each in candidates
        if each.subject_id is not None
    )


def seen_in_encounter(encounter: Encounter) -> tuple[SeenSubject, ...]:
    return (SeenSubject(encounter.subject_id, encounter_id=encounter.encounter_id),)


def seen_in_enrolment(enrolment: Enrolment) -> tuple[SeenSubject, ...]:
    own = SeenSubject(enrolment.subject_id, encounter_id=enrolment.encounter_id)
    return (own, *seen_in_candidates(enrolment.candidates))


def seen_in_case(case: Case) -> tuple[SeenSubject, ...]:
    own = SeenSubject(case.subject_id, encounter_id=case.encounter_id)
    return (own, *seen_in_candidates([] if case.candidate is None else [case.candidate]))


def enrolment_recorded(enrolment: NewEnrolment, cases: int) -> NewEntry:
    """Return what is written of an enrolment that opened so many cases."""
    own = SeenSubject(enrolment.subject_id, encounter_id=enrolment.encounter_id)
    people = (own, *seen_in_candidates((*enrolment.candidates, *enrolment.standby_candidates)))
    counts = {"samples": len(enrolment.templates), "candidates": len(enrolment.candidates), "cases": cases}
    return NewEntry(AuditEvent.ENROLMENT_RECORDED, enrolment.outcome.value, counts, people)


def searched_by_another(enrolment: NewEnrolment, gallery_id: str, searched_id: str) -> NewEntry:
    """Return what is written in the chain of a further gallery that an enrolment into `gallery_id` searched."""
    found = [each for each in enrolment.candidates if each.gallery_id == searched_id]
    parts = enrolment.searched.galleries if enrolment.searched else ()
    complete = all(each.complete for each in parts if each.gallery_id == searched_id)
    details: dict[str, Detail] = {"candidates": len(found), "complete": complete, "for_gallery_id": gallery_id}
    outcome = "found" if found else "not_found"
    return NewEntry(AuditEvent.GALLERY_SEARCHED, outcome, details, seen_in_candidates(found))
