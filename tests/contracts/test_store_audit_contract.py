"""What every store writes into the chains of the audit trail, and what it gives back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from service.acting import Actor, acting_as
from service.audit_chain import SERVICE_CHAIN, AuditEvent, NewEntry, SeenSubject
from service.audit_check import ORIGIN, check_chain
from service.domain import (
    CaseDecision,
    CaseKind,
    CaseVerdict,
    EncounterStatus,
    FoundPair,
    JobState,
    KeptSample,
    NewEnrolment,
)
from service.errors import EncounterNotFound, GalleryNotFound, SampleNotFound, SubjectNotFound
from tests.store.building import (
    KINDS,
    AnyStore,
    Clock,
    candidate_of,
    enrol,
    new_enrolment,
    new_gallery,
    new_template,
    open_store,
)
from tests.store.sweep_steps import MINE, step

DESK = Actor("client:desk", "registration", "agreement-1", "request-1")
VIEWED = NewEntry(AuditEvent.SUBJECT_VIEWED, subjects=(SeenSubject("s-a"),))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[AnyStore]:
    yield from open_store(request.param, tmp_path, clock)


def events(store: AnyStore, gallery_id: str | None = "camp") -> list[str]:
    return [each.event for each in store.audit(gallery_id, None, 100).items]


def about(store: AnyStore, subject_id: str, gallery_id: str = "camp") -> list[tuple[str, str | None]]:
    return [(each.entry.event, each.role) for each in store.audit_about(gallery_id, subject_id)]


def test_an_entry_says_who_when_what_for_and_under_which_agreement(store: AnyStore, clock: Clock) -> None:
    with acting_as(DESK):
        enrol(store, new_enrolment("a"))

    entry = store.audit("camp", None, 10).items[-1]
    assert (entry.client_id, entry.purpose, entry.agreement_id, entry.request_id) == (
        "client:desk", "registration", "agreement-1", "request-1",
    )  # fmt: skip
    assert (entry.event, entry.outcome, entry.created_at) == ("enrolment.recorded", "UNIQUE", clock.now)
    assert entry.details == {"samples": 1, "candidates": 0, "cases": 0}


def test_a_chain_follows_from_its_first_entry_and_its_head_is_its_last(store: AnyStore) -> None:
    enrol(store, new_enrolment("a"))
    store.record(VIEWED, "camp")

    entries = store.audit_block("camp", 0, 100)
    head = store.audit_heads()["camp"]
    assert [each.seq for each in entries] == [1, 2, 3]
    assert check_chain(entries, end=head).fault is None
    assert head == check_chain(entries).reached


def test_each_gallery_and_the_service_have_a_chain_of_their_own(store: AnyStore) -> None:
    store.create_gallery(new_gallery("village"))
    store.record(NewEntry(AuditEvent.CLIENT_ADDED))

    assert events(store) == ["gallery.created"]
    assert events(store, "village") == ["gallery.created"]
    assert events(store, None) == ["client.added"]
    assert {chain: head.seq for chain, head in store.audit_heads().items()} == {
        SERVICE_CHAIN: 1, "camp": 1, "village": 1,
    }  # fmt: skip


def test_a_chain_without_entries_is_at_its_origin(store: AnyStore) -> None:
    assert store.audit_heads()[SERVICE_CHAIN] == ORIGIN
    assert store.audit_block(SERVICE_CHAIN, 0, 10) == []


def test_a_block_begins_behind_a_number_and_holds_so_many(store: AnyStore) -> None:
    for _ in range(5):
        store.record(VIEWED, "camp")

    assert [each.seq for each in store.audit_block("camp", 2, 3)] == [3, 4, 5]


def test_the_trail_can_be_read_by_event(store: AnyStore) -> None:
    store.record(VIEWED, "camp")
    store.record(NewEntry(AuditEvent.AUDIT_VIEWED), "camp")
    store.record(VIEWED, "camp")

    first = store.audit("camp", None, 1, AuditEvent.SUBJECT_VIEWED)
    second = store.audit("camp", first.next_after, 1, AuditEvent.SUBJECT_VIEWED)
    assert [each.seq for page in (first, second) for each in page.items] == [2, 4]
    assert second.next_after is None


def test_no_act_is_written_of_a_gallery_that_is_not_there(store: AnyStore) -> None:
    with pytest.raises(GalleryNotFound):
        store.record(VIEWED, "nowhere")


def test_a_person_is_found_by_whom_it_concerned(store: AnyStore) -> None:
    first = enrol(store, new_enrolment("a"))
    enrol(store, new_enrolment("b", candidates=[candidate_of(first)]))
    store.record(VIEWED, "camp")

    assert about(store, "s-a") == [
        ("enrolment.recorded", "subject"), ("enrolment.recorded", "candidate"), ("subject.viewed", "subject"),
    ]  # fmt: skip
    assert about(store, "s-b") == [("enrolment.recorded", "subject")]
    assert all(each.is_proven for each in store.audit_about("camp", "s-a"))


def test_an_entry_names_nobody_in_clear(store: AnyStore) -> None:
    first = enrol(store, new_enrolment("a"))
    enrol(store, new_enrolment("b", candidates=[candidate_of(first)], cases=[CaseKind.DUPLICATE]))
    store.record(VIEWED, "camp")

    for entry in store.audit_block("camp", 1, 100):
        assert entry.references
        written = entry.to_line().encode() + b"".join(entry.references)
        for name in (b"s-a", b"s-b", b"e-a", b"e-b"):
            assert name not in written


def test_after_an_erasure_nothing_leads_to_the_person_and_the_chain_is_whole(store: AnyStore) -> None:
    first = enrol(store, new_enrolment("a"))
    enrol(store, new_enrolment("b", candidates=[candidate_of(first)]))
    store.record(VIEWED, "camp")
    before = store.audit_block("camp", 0, 100)

    with store.writing("camp") as writing:
        writing.erase_subject("s-a")

    assert about(store, "s-a") == []
    assert about(store, "s-b") == [("enrolment.recorded", "subject")]
    entries = store.audit_block("camp", 0, 100)
    assert entries[:-1] == before
    assert check_chain(entries, end=store.audit_heads()["camp"]).fault is None
    assert (entries[-1].event, entries[-1].references) == ("subject.erased", ())
    counts = {name: entries[-1].details[name] for name in ("encounters", "templates", "samples")}
    assert counts == {"encounters": 1, "templates": 1, "samples": 0}


def test_whoever_comes_again_after_an_erasure_is_another(store: AnyStore) -> None:
    enrol(store, new_enrolment("a"))
    with store.writing("camp") as writing:
        writing.erase_subject("s-a")
    enrol(store, new_enrolment("a"))

    assert about(store, "s-a") == [("enrolment.recorded", "subject")]
    assert store.audit_about("camp", "s-a")[0].is_proven


def test_an_act_that_concerned_somebody_who_is_gone_is_written_without_them(store: AnyStore) -> None:
    store.record(VIEWED, "camp")

    assert store.audit("camp", None, 10).items[-1].references == ()
    assert about(store, "s-a") == []


def test_people_of_another_gallery_are_referred_to_there(store: AnyStore, clock: Clock) -> None:
    store.create_gallery(new_gallery("village"))
    enrol(store, new_enrolment("v"), "village")
    clock.pass_by(seconds=1)
    seen = SeenSubject("s-v", "candidate", "e-v", "village")
    store.record(NewEntry(AuditEvent.CASE_VIEWED, subjects=(seen,)), "camp")

    (_, found) = store.audit_about("village", "s-v")
    assert (found.entry.chain, found.role, found.encounter_id) == ("camp", "candidate", "e-v")
    assert about(store, "s-v") == []
    with store.writing("village") as writing:
        writing.erase_subject("s-v")
    assert store.audit_about("village", "s-v") == []


def test_a_change_that_fails_leaves_no_entry(store: AnyStore) -> None:
    def fail() -> None:
        with store.writing("camp") as writing:
            writing.insert_enrolment(new_enrolment("a"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert events(store) == ["gallery.created"]
    assert about(store, "s-a") == []


def test_the_settings_of_a_gallery_are_written_where_they_become_others(store: AnyStore) -> None:
    store.update_gallery("camp", lambda each: replace(each, review_fpir=0.25, keep_samples=False))
    store.update_gallery("camp", lambda each: each)

    made, changed = store.audit("camp", None, 10).items
    assert made.details["review_fpir"] == 0.01
    assert (changed.event, changed.details) == ("gallery.changed", {"review_fpir": 0.25, "keep_samples": False})


def test_a_status_and_a_decision_concern_whom_they_are_about(store: AnyStore) -> None:
    first = enrol(store, new_enrolment("a"))
    flagged: NewEnrolment = new_enrolment("b", candidates=[candidate_of(first)], cases=[CaseKind.DUPLICATE])
    (case_id,) = enrol(store, flagged).case_ids
    store.decide_case("camp", case_id, CaseDecision(CaseVerdict.SAME_PERSON, "analyst-7"))
    with store.writing("camp") as writing:
        writing.set_encounter_status("e-a", EncounterStatus.INACTIVE)
    with store.writing("camp") as writing:
        writing.set_encounter_status("e-a", EncounterStatus.INACTIVE)

    assert about(store, "s-a")[2:] == [("case.decided", "candidate"), ("encounter.changed", "subject")]
    assert about(store, "s-b")[1:] == [("case.decided", "subject")]
    outcomes = [each.outcome for each in store.audit("camp", None, 10).items]
    assert outcomes[-2:] == ["SAME_PERSON", "inactive"]


def test_a_sweep_is_in_the_chain_of_each_gallery_that_it_searches(store: AnyStore) -> None:
    store.create_gallery(new_gallery("village"))
    with store.sweeping("camp", "village") as sweeping:
        sweep = sweeping.begin_sweep(10, 0.4)
        sweeping.end_sweep(sweep.job_id, JobState.CANCELLED)
        sweeping.end_sweep(sweep.job_id, JobState.CANCELLED)

    for gallery_id, other in (("camp", "village"), ("village", "camp")):
        begun, ended = store.audit(gallery_id, None, 10).items[1:]
        assert (begun.event, begun.details["other_gallery_id"]) == ("sweep.begun", other)
        assert (ended.event, ended.outcome) == ("sweep.ended", "cancelled")


def test_many_who_act_at_once_make_one_chain(store: AnyStore) -> None:
    def work(number: int) -> None:
        enrol(store, new_enrolment(f"p{number}"))
        store.record(replace(VIEWED, subjects=(SeenSubject(f"s-p{number}"),)), "camp")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(24)))

    entries = store.audit_block("camp", 0, 100)
    assert len(entries) == 1 + 2 * 24
    assert check_chain(entries, end=store.audit_heads()["camp"]).fault is None
    assert all(len(store.audit_about("camp", f"s-p{number}")) == 2 for number in range(24))


def test_all_that_is_held_of_a_person_is_found(store: AnyStore) -> None:
    store.create_gallery(new_gallery("village"))
    sample = new_template("a", sample=b"image of a")
    first = enrol(store, new_enrolment("a", templates=[sample]))
    flagged = enrol(store, new_enrolment("b", candidates=[candidate_of(first)], cases=[CaseKind.DUPLICATE]))
    elsewhere = enrol(store, new_enrolment("v"), "village")
    with store.sweeping("village", "camp") as sweeping:
        sweep = sweeping.begin_sweep(10, 0.4)
        leased = sweeping.lease_sweep(sweep.job_id, MINE)
        assert leased is not None
        candidate = replace(candidate_of(first), gallery_id="camp")
        pair = FoundPair(elsewhere.subject_id, elsewhere.encounter_id, candidate)
        sweeping.advance_sweep(sweep.job_id, MINE, step(leased, pair, is_last=True))

    held = store.held_about("camp", "s-a")
    assert (held.subject.subject_id, [each.encounter_id for each in held.encounters]) == ("s-a", ["e-a"])
    assert (held.enrolments, held.samples, held.own_cases) == ((first,), (("e-a", 0),), ())
    assert [(each.gallery_id, each.kind) for each in held.other_cases] == [
        ("camp", CaseKind.DUPLICATE), ("village", CaseKind.SWEEP),
    ]  # fmt: skip
    assert [each.case_id for each in store.held_about("camp", "s-b").own_cases] == list(flagged.case_ids)
    with pytest.raises(SubjectNotFound):
        store.held_about("camp", "nobody")
    with pytest.raises(GalleryNotFound):
        store.held_about("nowhere", "s-a")


def test_a_kept_sample_is_given_back_with_whose_it_is(store: AnyStore) -> None:
    enrol(store, new_enrolment("a", templates=[new_template("a", sample=b"image of a")]))
    enrol(store, new_enrolment("b"))

    assert store.kept_sample("camp", "e-a", 0) == KeptSample("s-a", b"image of a")
    for encounter_id, position, missing in (
        ("e-a", 1, SampleNotFound), ("e-b", 0, SampleNotFound), ("e-c", 0, EncounterNotFound),
    ):  # fmt: skip
        with pytest.raises(missing):
            store.kept_sample("camp", encounter_id, position)
    with pytest.raises(GalleryNotFound):
        store.kept_sample("nowhere", "e-a", 0)
