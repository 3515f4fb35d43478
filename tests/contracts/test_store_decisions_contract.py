"""What every store keeps of the decisions of humans on cases."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.domain import CaseDecision, CaseKind, CaseStatus, CaseVerdict, Searched
from service.errors import CaseNotFound, CaseVoid, GalleryNotFound
from tests.store.building import KINDS, AnyStore, Clock, candidate_of, enrol, new_enrolment, new_gallery, open_store

SAME, DIFFERENT = CaseVerdict.SAME_PERSON, CaseVerdict.DIFFERENT_PEOPLE


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[AnyStore]:
    yield from open_store(request.param, tmp_path, clock)


@pytest.fixture
def case_id(store: AnyStore) -> int:
    """The case of subject s-b, who looks like s-a."""
    first = enrol(store, new_enrolment("a"))
    candidates = [candidate_of(first)]
    return enrol(store, new_enrolment("b", candidates=candidates, cases=[CaseKind.DUPLICATE])).case_ids[0]


def events(store: AnyStore) -> list[object]:
    return [dict(each.details) for each in store.audit("camp", None, 10).items if each.event == "case.decided"]


def test_the_last_decision_counts_and_the_audit_trail_keeps_each(store: AnyStore, case_id: int, clock: Clock) -> None:
    store.decide_case("camp", case_id, CaseDecision(SAME, "analyst-7"))
    clock.pass_by(hours=1)
    decided = store.decide_case("camp", case_id, CaseDecision(DIFFERENT, "analyst-8"))

    assert (decided.status, decided.verdict, decided.decided_by) == (CaseStatus.DECIDED, DIFFERENT, "analyst-8")
    assert decided.decided_at == clock.now
    assert store.case("camp", case_id) == decided
    assert store.open_case_count("camp") == 0
    assert store.verdict_counts("camp") == {(CaseKind.DUPLICATE, DIFFERENT): 1}
    assert events(store) == [
        {"case_id": case_id, "verdict": "SAME_PERSON", "before": None, "decided_by": "analyst-7"},
        {"case_id": case_id, "verdict": "DIFFERENT_PEOPLE", "before": "SAME_PERSON", "decided_by": "analyst-8"},
    ]


def test_the_same_decision_sent_again_is_one_decision(store: AnyStore, case_id: int, clock: Clock) -> None:
    decided = store.decide_case("camp", case_id, CaseDecision(SAME, "analyst-7"))
    clock.pass_by(hours=1)

    assert store.decide_case("camp", case_id, CaseDecision(SAME, "analyst-7")) == decided
    assert len(events(store)) == 1


def test_a_case_is_opened_again(store: AnyStore, case_id: int) -> None:
    before = store.case("camp", case_id)
    store.decide_case("camp", case_id, CaseDecision(SAME, "analyst-7"))

    assert store.decide_case("camp", case_id, CaseDecision(None, "analyst-8")) == before
    assert store.verdict_counts("camp") == {}
    assert store.open_case_count("camp") == 1
    assert len(events(store)) == 2


def test_who_was_decided_to_be_one_person(store: AnyStore, case_id: int) -> None:
    assert store.same_people("camp") == []
    store.decide_case("camp", case_id, CaseDecision(SAME, "analyst-7"))
    store.create_gallery(new_gallery("abroad"))

    assert store.same_people("camp") == [("s-b", "s-a")]
    assert store.same_people("abroad") == []
    store.decide_case("camp", case_id, CaseDecision(DIFFERENT, "analyst-7"))
    assert store.same_people("camp") == []


def test_where_the_other_was_erased_nothing_is_left_to_decide(store: AnyStore, case_id: int) -> None:
    store.decide_case("camp", case_id, CaseDecision(SAME, "analyst-7"))
    with store.writing("camp") as tx:
        tx.erase_subject("s-a")

    with pytest.raises(CaseVoid):
        store.decide_case("camp", case_id, CaseDecision(DIFFERENT, "analyst-7"))
    assert store.same_people("camp") == []
    # the decision was made, and counts for what searches found
    assert store.verdict_counts("camp") == {(CaseKind.DUPLICATE, SAME): 1}


def test_an_erased_person_leaves_no_decision(store: AnyStore, case_id: int) -> None:
    store.decide_case("camp", case_id, CaseDecision(SAME, "analyst-7"))
    with store.writing("camp") as tx:
        tx.erase_subject("s-b")

    assert store.verdict_counts("camp") == {}
    with pytest.raises(CaseNotFound):
        store.decide_case("camp", case_id, CaseDecision(DIFFERENT, "analyst-7"))


def test_a_case_of_another_gallery_is_none(store: AnyStore, case_id: int) -> None:
    store.create_gallery(new_gallery("abroad"))

    with pytest.raises(CaseNotFound):
        store.decide_case("abroad", case_id, CaseDecision(SAME, "analyst-7"))
    with pytest.raises(GalleryNotFound):
        store.decide_case("nowhere", case_id, CaseDecision(SAME, "analyst-7"))
    assert store.case("camp", case_id).verdict is None
    assert store.verdict_counts("nowhere") == {}


def test_continuity_says_nothing_of_two_subjects(store: AnyStore) -> None:
    first = enrol(store, new_enrolment("a"))
    cases = [CaseKind.DUPLICATE, CaseKind.CONTINUITY]
    second = enrol(store, new_enrolment("b", candidates=[replace(candidate_of(first), rank=1)], cases=cases))
    of_kind = {store.case("camp", number).kind: number for number in second.case_ids}
    store.decide_case("camp", of_kind[CaseKind.CONTINUITY], CaseDecision(SAME, "analyst-7"))

    assert store.same_people("camp") == []
    assert store.verdict_counts("camp") == {(CaseKind.CONTINUITY, SAME): 1}


def test_a_case_about_those_who_could_not_be_compared_outlives_its_candidate(store: AnyStore) -> None:
    first = enrol(store, new_enrolment("a"))
    new = new_enrolment("b", candidates=[candidate_of(first)], cases=[CaseKind.DUPLICATE])
    case_id = enrol(store, replace(new, searched=Searched(41, 7, complete=False))).case_ids[0]
    with store.writing("camp") as tx:
        tx.erase_subject("s-a")

    assert store.case("camp", case_id).status is CaseStatus.OPEN
