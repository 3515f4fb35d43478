"""A sweep against another gallery finds who is in both, once, whatever their ids are and whatever interrupts it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.domain import CaseStatus, JobState, Sweep
from service.errors import GalleriesNotComparable, GalleryNotFound
from service.ports import Store
from service.store.sql_store import SqlStore
from service.sweep import SweepService
from tests import postgres
from tests.fakes import FakeStore
from tests.store.building import SQL_KINDS
from tests.sweeping import LEASE, Crowd, crowd_of, fill, runner_of, sweeps_of
from tests.synthetic import PACK_ID, calibration
from tests.test_sweep import InterruptedSweeps
from tests.world import GALLERY, START, DeafMatcher, World

OTHER = "village"
HERE, THERE = 120, 180

Pairs = set[tuple[str, str | None]]


@pytest.fixture(params=SQL_KINDS)
def sql_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    url = f"sqlite:///{tmp_path}/record.sqlite" if request.param == "sqlite" else postgres.fresh_database()
    store = SqlStore(url, lambda: START)
    store.migrate()
    yield store
    store.close()


def two_crowds(planted: int = 60) -> tuple[Crowd, Crowd]:
    """A crowd for each gallery; `planted` people are in both. The subjects are numbered from 0 in both."""
    both = crowd_of(HERE + THERE, planted)
    return (
        Crowd(both.rows[:HERE], [f"s-{number}" for number in range(HERE)]),
        Crowd(both.rows[HERE:], [f"s-{number}" for number in range(THERE)]),
    )


def world_with(
    here: Crowd, there: Crowd, store: Store | None = None, matcher: type[DeafMatcher] | None = None
) -> World:
    world = World(store, matcher=matcher) if matcher else World(store)
    create_other(world.store)
    fill(world.store, here)
    fill(world.store, there, OTHER)
    return world


def create_other(store: Store, pack_id: str = PACK_ID) -> None:
    with store.reading() as reading:
        gallery = reading.gallery(GALLERY)
    store.create_gallery(
        type(gallery)(OTHER, pack_id, 0.01, 0.001, 0.001, keep_samples=False, created_at=gallery.created_at)
    )


def pairs_of(here: Crowd, there: Crowd, threshold: float) -> Pairs:
    """By brute force: the subject here, and the subject there."""
    scores = here.rows @ there.rows.T
    return {
        (here.subjects[row], there.subjects[column])
        for row in range(len(here.rows))
        for column in range(len(there.rows))
        if scores[row, column] >= threshold
    }


def cases_of(store: Store, gallery_id: str = GALLERY) -> list[tuple[str, str | None]]:
    found = store.cases(gallery_id, None, 1000).items
    assert all(case.candidate and case.candidate.gallery_id == OTHER for case in found)
    return [(case.subject_id, case.candidate.subject_id) for case in found if case.candidate]


def begin(sweeps: SweepService) -> Sweep:
    sweep = sweeps.take(sweeps.start(GALLERY, 10, OTHER), LEASE)
    assert sweep is not None
    return sweep


def sweep_through(world: World, gallery_id: str = GALLERY, other_gallery_id: str = OTHER) -> Sweep:
    sweeps = sweeps_of(world, block_size=50)
    sweep = sweeps.start(gallery_id, 10, other_gallery_id)
    runner_of(sweeps, world).work()
    return sweeps.sweep(gallery_id, sweep.job_id)


def test_a_case_is_opened_for_exactly_the_pairs_of_a_comparison_of_all_with_all(sql_store: SqlStore) -> None:
    here, there = two_crowds()
    world = world_with(here, there, sql_store)

    sweep = sweep_through(world)

    wanted, found = pairs_of(here, there, sweep.threshold), cases_of(sql_store)
    assert 10 < len(wanted) < 60
    assert (len(found), set(found)) == (len(wanted), wanted)
    assert (sweep.state, sweep.done, sweep.total, sweep.other_gallery_id) == (JobState.DONE, HERE, HERE, OTHER)
    assert (sweep.found_pairs, sweep.cases_opened) == (len(wanted), len(wanted))
    assert sql_store.cases(OTHER, None, 10).items == ()


def test_namesakes_in_two_galleries_are_compared_like_any_others() -> None:
    crowd = crowd_of(1, planted=0)
    world = world_with(crowd, crowd)

    assert sweep_through(world).cases_opened == 1
    assert cases_of(world.store) == [("s-0", "s-0")]


def test_a_pair_has_one_case_also_when_the_galleries_are_swept_the_other_way_round(sql_store: SqlStore) -> None:
    here, there = two_crowds()
    world = world_with(here, there, sql_store)
    first = sweep_through(world)

    again = sweep_through(world)
    back = sweep_through(world, OTHER, GALLERY)

    assert (again.found_pairs, again.cases_opened) == (first.found_pairs, 0)
    assert (back.found_pairs, back.cases_opened) == (first.found_pairs, 0)


def test_a_case_between_namesakes_of_other_galleries_is_another_case() -> None:
    """s-0 and s-1 here have a case; that says nothing of this s-0 and the other gallery's s-1."""
    crowd = crowd_of(2, planted=0)
    crowd.rows[1] = crowd.rows[0]
    world = world_with(crowd, crowd)
    sweeps = sweeps_of(world)
    sweeps.start(GALLERY, 10)
    runner_of(sweeps, world).work()
    assert len(world.store.cases(GALLERY, None, 10).items) == 1

    assert sweep_through(world).cases_opened == 4


def test_it_goes_on_where_it_was_killed_and_repeats_nothing(sql_store: SqlStore) -> None:
    here, there = two_crowds()
    world = world_with(here, there, sql_store)
    sweeps = sweeps_of(world, block_size=20)
    sweep = begin(sweeps)
    moved = sweeps.advance(sweep, LEASE)
    assert moved is not None
    assert moved.done == 20
    half = cases_of(sql_store)

    later = World.beside(sql_store)
    runner_of(sweeps_of(later, block_size=20), later).work()

    wanted, found = pairs_of(here, there, sweep.threshold), cases_of(sql_store)
    assert 0 < len(half) < len(found)
    assert (len(found), set(found)) == (len(wanted), wanted)
    assert sql_store.sweep(GALLERY, sweep.job_id).done == HERE


def test_it_ends_with_who_was_there_when_it_began_on_both_sides() -> None:
    here, there = two_crowds()
    world = world_with(here, there)
    sweeps = sweeps_of(world)
    sweep = sweeps.start(GALLERY, 10, OTHER)
    fill(world.store, Crowd(here.rows, [f"late-{each}" for each in here.subjects]), OTHER, prefix="late")
    fill(world.store, Crowd(there.rows, [f"late-{each}" for each in there.subjects]), GALLERY, prefix="late")

    runner_of(sweeps, world).work()

    assert set(cases_of(world.store)) == pairs_of(here, there, sweep.threshold)
    assert sweeps.sweep(GALLERY, sweep.job_id).done == HERE


def test_the_index_of_the_other_gallery_is_brought_up_to_its_record_first() -> None:
    here, there = two_crowds()
    world = world_with(here, Crowd(there.rows[:1], there.subjects[:1]), matcher=DeafMatcher)
    world.matcher.catch_up(OTHER)  # the index is filled, and hears of nothing that follows
    fill(world.store, Crowd(there.rows[1:], there.subjects[1:]), OTHER, prefix="more")

    sweep = sweep_through(world)

    assert set(cases_of(world.store)) == pairs_of(here, there, sweep.threshold)


def test_who_is_erased_in_the_other_gallery_is_in_no_case(sql_store: SqlStore) -> None:
    here, there = two_crowds()
    world = world_with(here, there, sql_store)
    sweep = sweep_through(world)
    subject_id, erased = max(pairs_of(here, there, sweep.threshold))
    kept = cases_of(sql_store)

    world.erasure.erase_subject(OTHER, str(erased))

    (void,) = [case for case in sql_store.cases(GALLERY, None, 1000).items if case.status is CaseStatus.VOID]
    assert void.subject_id == subject_id
    assert void.candidate is not None
    assert (void.candidate.gallery_id, void.candidate.subject_id, void.candidate.reference_id) == (OTHER, None, None)
    assert [pair for pair in cases_of(sql_store) if pair in kept] == [pair for pair in kept if pair[1] != erased]
    world.erasure.erase_subject(GALLERY, subject_id)
    assert all(case.status is CaseStatus.OPEN for case in sql_store.cases(GALLERY, None, 1000).items)


def test_the_erasure_of_a_namesake_leaves_a_case_as_it_is(sql_store: SqlStore) -> None:
    crowd = crowd_of(1, planted=0)
    world = world_with(crowd, Crowd(crowd.rows, ["t-0"]), sql_store)
    fill(sql_store, Crowd(crowd_of(1, planted=0, seed=8).rows, ["t-0"]), prefix="namesake")
    sweep_through(world)

    world.erasure.erase_subject(GALLERY, "t-0")

    assert cases_of(sql_store) == [("s-0", "t-0")]


@pytest.mark.parametrize("gallery_id", [GALLERY, OTHER])
def test_who_is_erased_while_a_block_is_searched_is_in_no_case(gallery_id: str) -> None:
    here, there = two_crowds()
    store = InterruptedSweeps(lambda: START)
    world = world_with(here, there, store)
    sweeps = sweeps_of(world, block_size=1000)
    sweep = begin(sweeps)
    pair = max(pairs_of(here, there, sweep.threshold))
    erased = str(pair[gallery_id == OTHER])
    store.before_sweeping = lambda: world.erasure.erase_subject(gallery_id, erased)

    sweeps.advance(sweep, LEASE)

    assert set(cases_of(store)) == pairs_of(here, there, sweep.threshold) - {pair}


def test_a_block_is_compared_again_when_the_record_was_restored_meanwhile() -> None:
    here, there = two_crowds()
    store = InterruptedSweeps(lambda: START)
    world = world_with(here, there, store)
    sweeps = sweeps_of(world, block_size=1000)
    sweep = begin(sweeps)
    store.before_sweeping = store.renew_timelines

    sweeps.advance(sweep, LEASE)

    assert len(world.indexes) == 2
    assert set(cases_of(store)) == pairs_of(here, there, sweep.threshold)


def test_the_plan_counts_each_template_here_with_each_there() -> None:
    here, there = two_crowds()
    world = world_with(here, there)
    sweeps = sweeps_of(world)

    plan = sweeps.plan(GALLERY, 5, OTHER)

    assert (plan.other_gallery_id, plan.templates, plan.comparisons) == (OTHER, HERE, HERE * THERE)
    assert plan.fmr == pytest.approx(5 / (HERE * THERE))
    assert plan.threshold == sweeps.start(GALLERY, 5, OTHER).threshold == calibration().threshold(plan.fmr)
    assert plan.estimated_s > 0


def test_a_gallery_against_itself_is_a_sweep_like_any_other() -> None:
    world = World()
    fill(world.store, crowd_of(50, planted=5))
    sweeps = sweeps_of(world)

    assert sweeps.plan(GALLERY, 10, GALLERY).comparisons == 50 * 49 // 2
    assert sweeps.start(GALLERY, 10, GALLERY).other_gallery_id is None


def test_galleries_of_different_packs_or_models_are_not_compared() -> None:
    crowd = crowd_of(5, planted=0)
    other_pack, other_model = World(), World()
    for world in (other_pack, other_model):
        fill(world.store, crowd)
    create_other(other_pack.store, "another-pack")
    create_other(other_model.store)
    fill(other_model.store, crowd, OTHER, model_id="synthetic-2")

    for world, words in ((other_pack, "model packs"), (other_model, "models")):
        with pytest.raises(GalleriesNotComparable, match=words):
            sweeps_of(world).plan(GALLERY, 10, OTHER)
        with pytest.raises(GalleriesNotComparable, match=words):
            sweeps_of(world).start(GALLERY, 10, OTHER)


@pytest.mark.parametrize("is_empty_here", [True, False])
def test_an_empty_gallery_is_swept_at_once(*, is_empty_here: bool) -> None:
    nobody, crowd = crowd_of(0, planted=0), crowd_of(5, planted=0)
    world = world_with(nobody, crowd) if is_empty_here else world_with(crowd, nobody)

    swept = sweep_through(world)

    assert (swept.state, swept.cases_opened) == (JobState.DONE, 0)
    assert sweeps_of(world).plan(GALLERY, 10, OTHER).comparisons == 0


def test_an_unknown_other_gallery_is_not_found() -> None:
    world = World(FakeStore(lambda: START))

    with pytest.raises(GalleryNotFound):
        sweeps_of(world).plan(GALLERY, 10, "nowhere")
    with pytest.raises(GalleryNotFound):
        sweeps_of(world).start(GALLERY, 10, "nowhere")
