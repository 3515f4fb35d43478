"""What every store keeps of sweeps: their progress, their leases, and one case a pair of subjects."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.domain import (
    Candidate,
    CaseKind,
    CaseStatus,
    EncounterStatus,
    JobState,
)
from service.errors import GalleryNotFound, SweepNotFound, SweepUnderway
from tests.store.building import (
    KINDS,
    START,
    AnyStore,
    Clock,
    candidate_of,
    enrol,
    new_enrolment,
    new_gallery,
    new_template,
    open_store,
)
from tests.store.sweep_steps import MINE, OTHERS, advance, begin, pair_of, step


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[AnyStore]:
    yield from open_store(request.param, tmp_path, clock)


def test_a_sweep_begins_before_the_first_reference_and_ends_with_the_last_that_is_searched(store: AnyStore) -> None:
    enrol(store, new_enrolment("a"))
    last = enrol(store, new_enrolment("b")).samples[0].reference_id
    enrol(store, new_enrolment("gone"))
    with store.writing("camp") as tx:
        tx.set_encounter_status("e-gone", EncounterStatus.INACTIVE)

    sweep = begin(store, is_leased=False)

    assert (sweep.state, sweep.cursor, sweep.done, sweep.total) == (JobState.QUEUED, 0, 0, 2)
    assert (sweep.last_reference_id, sweep.started_seq) == (last, 4)
    assert (sweep.allowed_false_pairs, sweep.threshold, sweep.created_at) == (10, 0.4, START)
    assert store.sweep("camp", sweep.job_id) == sweep


def test_a_sweep_takes_no_number_of_the_change_log(store: AnyStore) -> None:
    advance(store, begin(store))

    assert enrol(store, new_enrolment("a")).seq == 1


def test_a_pair_that_its_step_did_not_count_counts_where_it_opens_a_case(store: AnyStore) -> None:
    first, second, third = (enrol(store, new_enrolment(name)) for name in "abc")
    late, later = (replace(pair_of(other, first), is_counted=False) for other in (second, third))

    sweep = advance(store, begin(store), late)
    moved = advance(store, sweep, late, later)

    counted_by_steps = 1 + 2  # `step` counts each pair that it is given
    assert (moved.found_pairs, moved.cases_opened) == (counted_by_steps + 2, 2)


def test_a_gallery_has_one_unfinished_sweep_at_a_time(store: AnyStore) -> None:
    store.create_gallery(new_gallery("abroad"))
    first = begin(store)
    with pytest.raises(SweepUnderway):
        begin(store)
    with store.sweeping("abroad") as tx:
        elsewhere = tx.begin_sweep(1, 0.5)

    advance(store, first, is_last=True)
    second = begin(store, is_leased=False)

    assert [each.job_id for each in store.sweeps("camp", None, 10).items] == [first.job_id, second.job_id]
    assert store.sweeps("camp", str(first.job_id), 1).items == (second,)
    assert store.unfinished_sweeps() == [elsewhere, second]


def test_references_come_in_the_order_of_their_ids_without_those_not_searched(store: AnyStore) -> None:
    store.create_gallery(new_gallery("abroad"))
    ids = [enrol(store, new_enrolment(name)).samples[0].reference_id or 0 for name in "abcde"]
    enrol(store, new_enrolment("a"), "abroad")
    with store.writing("camp") as tx:
        tx.set_encounter_status("e-c", EncounterStatus.INACTIVE)

    with store.reading() as tx:
        found = tx.references_after("camp", ids[0], ids[4], 2)
        rest = tx.references_after("camp", ids[3], ids[3] + 10**6, 10)
        probes = tx.probes_after("camp", ids[0], ids[4], 2)
        nobody = tx.probes_after("camp", ids[4], ids[4] + 10**6, 10)

    assert probes.reference_ids == tuple(each.reference_id for each in found)
    assert np.array_equal(probes.embeddings, [each.embedding for each in found])
    assert (len(nobody), nobody.embeddings.shape) == (0, (0, 0))
    assert [each.reference_id for each in found] == [ids[1], ids[3]]
    assert [each.subject_id for each in rest] == ["s-e"]


def test_progress_adds_up_and_the_last_step_ends_the_sweep(store: AnyStore, clock: Clock) -> None:
    sweep = begin(store)
    clock.pass_by(seconds=9)

    first = advance(store, sweep)
    second = advance(store, first, is_last=True)

    assert (first.state, first.cursor, first.done, first.worked_s) == (JobState.RUNNING, 1, 5, 0.25)
    assert (second.state, second.cursor, second.done, second.worked_s) == (JobState.DONE, 2, 10, 0.5)
    assert second.updated_at == clock.now
    assert store.unfinished_sweeps() == []
    assert store.sweep("camp", sweep.job_id) == second


def test_a_pair_found_opens_a_case_on_the_later_encounter(store: AnyStore) -> None:
    earlier, later = (enrol(store, new_enrolment(name)) for name in ("earlier", "later"))

    sweep = advance(store, begin(store), pair_of(later, earlier))

    (case,) = store.cases("camp", None, 10).items
    assert (case.kind, case.status, case.job_id) == (CaseKind.SWEEP, CaseStatus.OPEN, sweep.job_id)
    assert (case.subject_id, case.encounter_id, case.enrolment_id) == ("s-later", "e-later", "n-later")
    assert case.candidate == candidate_of(earlier)
    assert store.case("camp", case.case_id) == case
    assert (sweep.found_pairs, sweep.cases_opened) == (1, 1)
    assert store.gallery_counts("camp").open_cases == 1


def test_a_case_of_a_sweep_leaves_the_answer_to_the_enrolment_as_it_was(store: AnyStore) -> None:
    earlier, later = (enrol(store, new_enrolment(name)) for name in ("earlier", "later"))

    advance(store, begin(store), pair_of(later, earlier))

    assert store.enrolment("camp", "n-later") == later


def test_a_pair_has_one_case_whoever_was_found_first_and_however_often_it_is_swept(store: AnyStore) -> None:
    a, b, c = (enrol(store, new_enrolment(name)) for name in "abc")
    b_again = enrol(store, new_enrolment("b2", "s-b"))

    sweep = advance(store, begin(store), pair_of(b, a), pair_of(c, a))
    sweep = advance(store, sweep, pair_of(b_again, a), pair_of(c, b), is_last=True)
    again = advance(store, begin(store), pair_of(b, a), pair_of(a, c), pair_of(c, b))

    assert (sweep.found_pairs, sweep.cases_opened) == (4, 3)
    assert (again.found_pairs, again.cases_opened) == (3, 0)
    assert len(store.cases("camp", None, 10).items) == 3


def test_a_pair_that_an_enrolment_has_a_case_for_gets_no_other(store: AnyStore) -> None:
    a, bystander = (enrol(store, new_enrolment(name)) for name in ("a", "bystander"))
    b = enrol(store, new_enrolment("b", candidates=[candidate_of(a)], cases=[CaseKind.DUPLICATE]))

    sweep = advance(store, begin(store), pair_of(b, a), pair_of(a, b), pair_of(b, bystander))

    assert sweep.cases_opened == 1
    assert [each.kind for each in store.cases("camp", None, 10).items] == [CaseKind.DUPLICATE, CaseKind.SWEEP]


def test_hundreds_of_pairs_in_one_step_get_a_case_each(store: AnyStore) -> None:
    first = enrol(store, new_enrolment("first"))
    others = [enrol(store, new_enrolment(f"o{number}")) for number in range(500)]

    sweep = advance(store, begin(store), *(pair_of(each, first) for each in others))
    again = advance(store, sweep, *(pair_of(each, first) for each in others))

    assert (sweep.cases_opened, again.cases_opened) == (500, 500)


def test_a_step_is_written_once_and_only_by_who_holds_the_lease(store: AnyStore) -> None:
    earlier, later = (enrol(store, new_enrolment(name)) for name in ("earlier", "later"))
    sweep = begin(store)
    found = step(sweep, pair_of(later, earlier))

    with store.sweeping("camp") as tx:
        assert tx.advance_sweep(sweep.job_id, OTHERS, found) is None
        assert tx.advance_sweep(sweep.job_id, MINE, found) is not None
        assert tx.advance_sweep(sweep.job_id, MINE, found) is None

    assert store.sweep("camp", sweep.job_id).found_pairs == 1


def test_a_lease_is_kept_by_its_owner_until_it_is_given_back_or_runs_out(store: AnyStore, clock: Clock) -> None:
    job_id = begin(store).job_id

    with store.sweeping("camp") as tx:
        assert tx.lease_sweep(job_id, OTHERS) is None
        assert tx.lease_sweep(job_id, MINE) is not None
        tx.release_sweep(job_id, OTHERS.owner)
        assert tx.lease_sweep(job_id, OTHERS) is None
        tx.release_sweep(job_id, MINE.owner)
        assert tx.lease_sweep(job_id, OTHERS) is not None
    clock.pass_by(seconds=61)
    with store.sweeping("camp") as tx:
        assert tx.lease_sweep(job_id, replace(MINE, until=clock.now)) is not None


@pytest.mark.parametrize(("state", "code"), [(JobState.CANCELLED, None), (JobState.FAILED, "index_unavailable")])
def test_a_sweep_that_ended_goes_no_further(store: AnyStore, state: JobState, code: str | None) -> None:
    sweep = begin(store)

    with store.sweeping("camp") as tx:
        ended = tx.end_sweep(sweep.job_id, state, code)
        assert tx.end_sweep(sweep.job_id, JobState.CANCELLED) == ended
        assert tx.lease_sweep(sweep.job_id, MINE) is None
        assert tx.advance_sweep(sweep.job_id, MINE, step(sweep)) is None

    assert (ended.state, ended.error_code) == (state, code)
    assert store.unfinished_sweeps() == []


def test_a_step_that_fails_leaves_nothing(store: AnyStore) -> None:
    earlier, later = (enrol(store, new_enrolment(name)) for name in ("earlier", "later"))
    sweep = begin(store)

    with pytest.raises(ZeroDivisionError), store.sweeping("camp") as tx:  # noqa: PT012
        tx.advance_sweep(sweep.job_id, MINE, step(sweep, pair_of(later, earlier)))
        raise ZeroDivisionError

    assert store.sweep("camp", sweep.job_id) == sweep
    assert store.cases("camp", None, 10).items == ()


def test_an_erased_subject_leaves_the_cases_of_sweeps(store: AnyStore) -> None:
    before, erased, after = (enrol(store, new_enrolment(name)) for name in ("before", "erased", "after"))
    advance(store, begin(store), pair_of(erased, before), pair_of(after, erased), pair_of(after, before))

    with store.writing("camp") as tx:
        tx.erase_subject("s-erased")

    nameless, kept = store.cases("camp", None, 10).items
    assert (nameless.subject_id, nameless.status) == ("s-after", CaseStatus.VOID)
    assert nameless.candidate == Candidate(
        1, None, None, None, candidate_of(erased).score, candidate_of(erased).false_match
    )
    assert (kept.status, kept.candidate) == (CaseStatus.OPEN, candidate_of(before))


def test_a_withdrawn_encounter_leaves_no_reference_in_the_case_of_a_sweep(store: AnyStore) -> None:
    earlier = enrol(store, new_enrolment("earlier"))
    enrol(store, new_enrolment("again", "s-earlier"))
    later = enrol(store, new_enrolment("later", templates=[new_template("later")]))
    advance(store, begin(store), pair_of(later, earlier))

    with store.writing("camp") as tx:
        tx.set_encounter_status("e-earlier", EncounterStatus.WITHDRAWN)

    (case,) = store.cases("camp", None, 10).items
    assert case.candidate == replace(candidate_of(earlier), reference_id=None)


def test_unknown_sweeps_and_galleries_are_not_found(store: AnyStore) -> None:
    store.create_gallery(new_gallery("abroad"))
    job_id = begin(store).job_id

    with pytest.raises(GalleryNotFound), store.sweeping("nowhere"):
        pass
    with pytest.raises(GalleryNotFound):
        store.sweeps("nowhere", None, 10)
    with pytest.raises(SweepNotFound):
        store.sweep("camp", job_id + 1000)
    for gallery_id, number in (("camp", job_id + 1000), ("abroad", job_id)):
        with pytest.raises(SweepNotFound), store.sweeping(gallery_id) as tx:
            tx.end_sweep(number, JobState.CANCELLED)
        with pytest.raises(SweepNotFound), store.sweeping(gallery_id) as tx:
            tx.lease_sweep(number, MINE)
