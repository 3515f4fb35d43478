"""Whom a record concerns: who is named by the entry that says it was made or looked at."""

from collections.abc import Iterable

from service.audit_chain import AuditEvent, NewEntry, SeenSubject
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
