"""What every store keeps of sweeps against another gallery, and of the cases of each sweep."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.domain import CaseKind, CaseStatus, EncounterStatus, FoundPair
from service.errors import GalleryNotFound
from tests.store.building import KINDS, AnyStore, Clock, candidate_of, enrol, new_enrolment, new_gallery, open_store
from tests.store.sweep_steps import MINE, advance, begin, pair_of, step


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyStore]:
    yield from open_store(request.param, tmp_path, Clock())


def test_the_cases_of_one_sweep_are_listed_by_themselves(store: AnyStore) -> None:
    a, b, c = (enrol(store, new_enrolment(name)) for name in "abc")
    enrol(store, new_enrolment("d", candidates=[candidate_of(a)], cases=[CaseKind.DUPLICATE]))
    first = advance(store, begin(store), pair_of(b, a), is_last=True)
    second = advance(store, begin(store), pair_of(c, a), pair_of(c, b))

    pages = [store.cases("camp", None, 1, second.job_id)]
    pages.append(store.cases("camp", pages[0].next_after, 1, second.job_id))

    assert [case.subject_id for case in store.cases("camp", None, 9, first.job_id).items] == ["s-b"]
    assert [page.items[0].candidate for page in pages] == [candidate_of(a), candidate_of(b)]
    assert pages[1].next_after is None
    assert store.cases("camp", None, 9, second.job_id + 1000).items == ()


def test_a_sweep_against_another_gallery_ends_with_the_last_reference_of_both(store: AnyStore) -> None:
    store.create_gallery(new_gallery("abroad"))
    enrol(store, new_enrolment("a"))
    for name in ("b", "c"):
        last = enrol(store, new_enrolment(name), "abroad").samples[0].reference_id

    with store.sweeping("camp", "abroad") as tx:
        sweep = tx.begin_sweep(10, 0.4)

    assert (sweep.gallery_id, sweep.other_gallery_id, sweep.searched_gallery_id) == ("camp", "abroad", "abroad")
    assert (sweep.total, sweep.last_reference_id, sweep.started_seq) == (1, last, 2)
    assert store.sweep("camp", sweep.job_id) == sweep
    assert store.sweeps("abroad", None, 10).items == ()


def test_a_pair_across_galleries_has_one_case_that_forgets_who_is_erased_or_withdrawn(store: AnyStore) -> None:
    store.create_gallery(new_gallery("abroad"))
    here = enrol(store, new_enrolment("a"))
    erased, withdrawn = (enrol(store, new_enrolment(name), "abroad") for name in "ab")
    enrol(store, new_enrolment("again", "s-b"), "abroad")
    there = [replace(candidate_of(each), gallery_id="abroad") for each in (erased, withdrawn)]
    pairs = [FoundPair(here.subject_id, here.encounter_id, each) for each in there]
    back = FoundPair(erased.subject_id, erased.encounter_id, replace(candidate_of(here), gallery_id="camp"))
    with store.sweeping("camp", "abroad") as tx:
        sweep = tx.lease_sweep(tx.begin_sweep(10, 0.4).job_id, MINE)
        assert sweep is not None
        tx.advance_sweep(sweep.job_id, MINE, step(sweep, *pairs))
    with store.sweeping("abroad", "camp") as tx:
        again = tx.lease_sweep(tx.begin_sweep(10, 0.4).job_id, MINE)
        assert again is not None
        moved = tx.advance_sweep(again.job_id, MINE, step(again, back))
    assert moved is not None
    assert moved.cases_opened == 0
    assert [case.candidate for case in store.cases("camp", None, 10).items] == there

    with store.writing("abroad") as tx:
        tx.erase_subject("s-a")
    with store.writing("abroad") as tx:
        tx.set_encounter_status("e-b", EncounterStatus.WITHDRAWN)

    void, kept = store.cases("camp", None, 10).items
    assert void.status is CaseStatus.VOID
    assert void.candidate == replace(there[0], subject_id=None, encounter_id=None, reference_id=None)
    assert (kept.status, kept.candidate) == (CaseStatus.OPEN, replace(there[1], reference_id=None))
    assert store.subject("camp", "s-a").encounter_ids == ("e-a",)


def test_a_sweep_against_no_gallery_is_not_begun(store: AnyStore) -> None:
    with pytest.raises(GalleryNotFound), store.sweeping("camp", "nowhere"):
        pass
