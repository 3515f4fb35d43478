"""A sweep finds every duplicate of the past at or above its threshold, once, whatever interrupts it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from service.domain import CaseKind, CaseStatus, EncounterStatus, JobState, OutcomeKind
from service.errors import GalleryNotFound, SweepUnderway
from service.gallery.segmented_index import SegmentedIndex
from service.ports import Store
from service.store.sql_store import SqlStore
from tests import postgres
from tests.fake_sweeping import FakeSweeping
from tests.fakes import FakeStore
from tests.store.building import SQL_KINDS
from tests.sweeping import LEASE, Crowd, case_pairs, crowd_of, fill, runner_of, sweep_through, sweeps_of
from tests.synthetic import calibration
from tests.world import GALLERY, START, DeafMatcher, World


@pytest.fixture(params=SQL_KINDS)
def sql_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    url = f"sqlite:///{tmp_path}/record.sqlite" if request.param == "sqlite" else postgres.fresh_database()
    store = SqlStore(url, lambda: START)
    store.migrate()
    yield store
    store.close()


def world_with(crowd: Crowd, store: Store | None = None) -> World:
    world = World(store)
    fill(world.store, crowd)
    return world


def test_a_sweep_opens_a_case_for_exactly_the_pairs_of_a_comparison_of_all_with_all(sql_store: SqlStore) -> None:
    crowd = crowd_of(1200, planted=60)
    world = world_with(crowd, sql_store)

    sweep = sweep_through(world)

    wanted = crowd.pairs(sweep.threshold)
    assert 20 < len(wanted) < 60
    assert set(case_pairs(sql_store)) == wanted
    assert (sweep.state, sweep.done, sweep.total) == (JobState.DONE, 1200, 1200)
    assert (sweep.found_pairs, sweep.cases_opened) == (len(wanted), len(wanted))
    assert sweep.worked_s > 0


def test_sealed_segments_are_swept_too() -> None:
    crowd = crowd_of(1500, planted=60)
    world = World(index=lambda dimension: SegmentedIndex(dimension, seal_at=700))
    fill(world.store, crowd)

    sweep = sweep_through(world)

    assert set(case_pairs(world.store)) == crowd.pairs(sweep.threshold)


def test_a_sweep_goes_on_where_it_was_killed_and_repeats_nothing(sql_store: SqlStore) -> None:
    crowd = crowd_of(800, planted=60).turned()
    world = world_with(crowd, sql_store)
    sweeps = sweeps_of(world)
    sweep = sweeps.take(sweeps.start(GALLERY, 10), LEASE)
    for _ in range(5):
        assert sweep is not None
        sweep = sweeps.advance(sweep, LEASE)
    assert sweep is not None
    assert (sweep.state, sweep.done) == (JobState.RUNNING, 500)
    half = case_pairs(sql_store)

    later = World.beside(sql_store)
    again = sweeps_of(later)
    runner_of(again, later).work()

    swept = again.sweep(GALLERY, sweep.job_id)
    wanted = crowd.pairs(sweep.threshold)
    found = case_pairs(sql_store)
    assert (swept.state, swept.done, swept.found_pairs) == (JobState.DONE, 800, len(wanted))
    assert 0 < len(half) < len(found)
    assert found[: len(half)] == half
    assert (len(found), set(found)) == (len(wanted), wanted)


def test_two_sweeps_never_open_two_cases_for_one_pair(sql_store: SqlStore) -> None:
    crowd = crowd_of(300, planted=30)
    world = world_with(crowd, sql_store)
    first = sweep_through(world, 10)

    second = sweep_through(world, 1000)

    assert second.threshold < first.threshold
    found = case_pairs(sql_store)
    assert len(found) == len(set(found)) == first.cases_opened + second.cases_opened
    assert set(found) == crowd.pairs(second.threshold)


def test_a_pair_of_subjects_with_several_templates_is_one_case_with_its_best_score() -> None:
    crowd = crowd_of(8, planted=0)
    crowd.rows[5] = crowd.rows[6] = crowd.rows[7] = crowd.rows[0]
    crowd.rows[6] = crowd_of(8, planted=1).rows[7]
    crowd.subjects[5:] = ["twin", "twin", "twin"]
    world = world_with(crowd)

    swept = sweep_through(world)

    (case,) = world.store.cases(GALLERY, None, 10).items
    assert case.candidate is not None
    assert (case.kind, case.encounter_id, case.candidate.encounter_id) == (CaseKind.SWEEP, "e-5", "e-0")
    assert case.candidate.score == pytest.approx(1.0)
    assert case.candidate.false_match == calibration().false_match_rate(case.candidate.score)
    assert (swept.found_pairs, swept.cases_opened) == (3, 1)


def test_what_an_enrolment_found_is_found_but_gets_no_second_case() -> None:
    world = World()
    world.enrol(1, 0, subject_id="a")
    assert world.enrol(1, 1, subject_id="b").outcome is OutcomeKind.DUPLICATE

    swept = sweep_through(world)

    assert (swept.found_pairs, swept.cases_opened) == (1, 0)
    assert [case.kind for case in world.store.cases(GALLERY, None, 10).items] == [CaseKind.DUPLICATE]


def test_a_sweep_ends_with_who_was_there_when_it_began() -> None:
    crowd = crowd_of(250, planted=0)
    world = world_with(crowd)
    sweeps = sweeps_of(world)
    sweep = sweeps.start(GALLERY, 10)
    fill(world.store, replace(crowd, subjects=[f"late-{name}" for name in crowd.subjects]), prefix="late")

    runner_of(sweeps, world).work()

    swept = sweeps.sweep(GALLERY, sweep.job_id)
    assert (swept.state, swept.done, swept.cases_opened) == (JobState.DONE, 250, 0)


def test_a_sweep_brings_its_index_up_to_the_record_first() -> None:
    crowd = crowd_of(300, planted=30)
    world = World(matcher=DeafMatcher)
    world.enrol(1)  # the index is filled, and hears of nothing that follows
    fill(world.store, crowd)

    swept = sweep_through(world)

    assert set(case_pairs(world.store)) == crowd.pairs(swept.threshold)


def test_an_inactive_encounter_is_not_swept() -> None:
    crowd = crowd_of(100, planted=20)
    world = world_with(crowd)
    for number in range(20):
        with world.store.writing(GALLERY) as writing:
            writing.set_encounter_status(f"e-{number}", EncounterStatus.INACTIVE)

    swept = sweep_through(world)

    assert (swept.total, swept.cases_opened) == (80, 0)


class InterruptedSweeps(FakeStore):
    """A store in which something else happens just before the next block is recorded, once."""

    before_sweeping: Callable[[], object] | None = None

    @contextmanager
    def sweeping(self, gallery_id: str, other_gallery_id: str | None = None) -> Iterator[FakeSweeping]:
        happens, self.before_sweeping = self.before_sweeping, None
        if happens is not None:
            happens()
        with super().sweeping(gallery_id, other_gallery_id) as sweeping:
            yield sweeping


@pytest.mark.parametrize("number", [19, 99])
def test_who_is_erased_while_a_block_is_searched_is_in_no_case(number: int) -> None:
    crowd = crowd_of(100, planted=20)
    store = InterruptedSweeps(lambda: START)
    world = world_with(crowd, store)
    sweeps = sweeps_of(world)
    sweep = sweeps.take(sweeps.start(GALLERY, 10), LEASE)
    assert sweep is not None
    store.before_sweeping = lambda: world.erasure.erase_subject(GALLERY, f"s-{number}")

    moved = sweeps.advance(sweep, LEASE)

    assert moved is not None
    gone = {pair for pair in crowd.pairs(sweep.threshold) if f"s-{number}" in pair}
    assert len(gone) == 1
    assert set(case_pairs(store)) == crowd.pairs(sweep.threshold) - gone


def test_who_is_erased_after_a_sweep_is_in_no_case(sql_store: SqlStore) -> None:
    crowd = crowd_of(100, planted=20)
    world = world_with(crowd, sql_store)
    sweep_through(world)

    for number in (19, 95):  # the earlier of one pair, the later of another
        world.erasure.erase_subject(GALLERY, f"s-{number}")

    cases = sql_store.cases(GALLERY, None, 100).items
    assert len(cases) == len(crowd.pairs(sql_store.sweeps(GALLERY, None, 1).items[0].threshold)) - 1
    assert not {"s-19", "s-95"} & {case.subject_id for case in cases}
    assert not {"s-19", "s-95"} & {case.candidate.subject_id for case in cases if case.candidate}
    assert [case.subject_id for case in cases if case.status is CaseStatus.VOID] == ["s-99"]


def test_a_block_is_compared_again_when_the_record_was_restored_meanwhile() -> None:
    crowd = crowd_of(100, planted=20)
    store = InterruptedSweeps(lambda: START)
    world = world_with(crowd, store)
    sweeps = sweeps_of(world)
    sweep = sweeps.take(sweeps.start(GALLERY, 10), LEASE)
    assert sweep is not None
    store.before_sweeping = store.renew_timelines

    sweeps.advance(sweep, LEASE)

    assert len(world.indexes) == 2
    assert set(case_pairs(store)) == crowd.pairs(sweep.threshold)


def test_the_plan_names_comparisons_threshold_and_expected_misses() -> None:
    world = world_with(crowd_of(1000, planted=0))

    plan = sweeps_of(world).plan(GALLERY, 5)

    assert (plan.templates, plan.comparisons, plan.allowed_false_pairs) == (1000, 499_500, 5)
    assert plan.fmr == pytest.approx(5 / 499_500)
    assert calibration().false_match_rate(plan.threshold).fmr <= plan.fmr
    assert calibration().false_match_rate(plan.threshold - 1e-4).fmr > plan.fmr
    assert plan.expected_fnir == calibration().expected_fnir(plan.threshold) > 0
    assert plan.estimated_s > 0
    assert world.store.sweeps(GALLERY, None, 10).items == ()


def test_a_sweep_has_the_threshold_of_its_plan() -> None:
    world = world_with(crowd_of(300, planted=0))
    sweeps = sweeps_of(world)

    assert sweeps.start(GALLERY, 3).threshold == sweeps.plan(GALLERY, 3).threshold


def test_where_no_score_is_sure_enough_nothing_is_found() -> None:
    crowd = crowd_of(800, planted=0)
    crowd.rows[400:] = crowd.rows[:400]  # by rounding some of these score a hair above 1
    world = World(index=lambda dimension: SegmentedIndex(dimension, seal_at=700))
    fill(world.store, crowd)
    world.matcher.catch_up(GALLERY)
    (index,) = world.indexes
    assert isinstance(index, SegmentedIndex)
    index.settle()
    with world.store.sweeping(GALLERY) as sweeping:
        sweep = sweeping.begin_sweep(10, calibration().threshold(1e-30))
    sweeps = sweeps_of(world)

    runner_of(sweeps, world).work()

    swept = sweeps.sweep(GALLERY, sweep.job_id)
    assert swept.threshold > 1
    assert (swept.state, swept.done, swept.found_pairs) == (JobState.DONE, 800, 0)


def test_in_a_small_gallery_a_pair_must_at_least_pass_a_verification() -> None:
    world = world_with(crowd_of(5, planted=0))

    assert sweeps_of(world).plan(GALLERY, 10).fmr == world.gallery().verification_fmr


@pytest.mark.parametrize("size", [0, 1])
def test_a_gallery_without_a_pair_is_swept_at_once(size: int) -> None:
    world = world_with(crowd_of(size, planted=0))
    plan = sweeps_of(world).plan(GALLERY, 10)

    swept = sweep_through(world)

    assert (plan.comparisons, swept.state, swept.done) == (0, JobState.DONE, size)


def test_a_gallery_is_swept_once_at_a_time() -> None:
    world = world_with(crowd_of(10, planted=0))
    sweeps = sweeps_of(world)
    sweeps.start(GALLERY, 10)

    with pytest.raises(SweepUnderway):
        sweeps.start(GALLERY, 10)
    with pytest.raises(GalleryNotFound):
        sweeps.start("nowhere", 10)
    with pytest.raises(GalleryNotFound):
        sweeps.plan("nowhere", 10)


def test_pairs_and_cases_are_counted() -> None:
    crowd = crowd_of(300, planted=30)
    world = world_with(crowd)

    swept = sweep_through(world)

    value = world.metrics.registry.get_sample_value
    assert value("biodedup_sweep_pairs_total") == swept.found_pairs > 0
    assert value("biodedup_sweep_cases_total") == swept.cases_opened
    assert value("biodedup_sweep_progress", {"gallery": GALLERY}) == 1.0
    assert value("biodedup_sweeps_ended_total", {"state": "done"}) == 1.0
