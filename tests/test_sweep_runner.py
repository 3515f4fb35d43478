"""The thread in the background: takes sweeps up, goes on, gives them back, and lets requests go first."""

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import pytest

from service.domain import Embeddings, Hit, JobState, Lease, Sweep
from service.errors import IndexUnavailable
from service.gallery.exact_index import ExactIndex
from service.job_runner import JobRunner
from service.sweep import SweepService
from tests.sweeping import LEASE, case_pairs, crowd_of, fill, runner_of, sweeps_of
from tests.world import GALLERY, World


class FailingIndex(ExactIndex):
    """An index that fails as often as it was told to."""

    failures: Iterator[Exception] = iter(())

    def search(self, probes: Embeddings, threshold: float) -> list[list[Hit]]:
        for failure in FailingIndex.failures:
            raise failure
        return super().search(probes, threshold)


class WatchedSweeps(SweepService):
    """Says after each block what it did."""

    def __init__(self, world: World, after_block: Callable[[Sweep], object]) -> None:
        super().__init__(world.store, world.matcher, world.packs, world.metrics, block_size=50)
        self._after_block = after_block

    def advance(self, sweep: Sweep, lease: Lease) -> Sweep | None:
        moved = super().advance(sweep, lease)
        if moved is not None:
            self._after_block(moved)
        return moved


def world_of(failures: Sequence[Exception] = ()) -> World:
    FailingIndex.failures = iter(failures)
    world = World(index=FailingIndex)
    fill(world.store, crowd_of(200, planted=20))
    return world


def test_a_failure_that_passes_is_waited_for() -> None:
    world = world_of([IndexUnavailable("not now")] * 5)
    sweeps = sweeps_of(world)
    sweep = sweeps.start(GALLERY, 10)

    runner_of(sweeps, world).work()

    assert sweeps.sweep(GALLERY, sweep.job_id).state is JobState.DONE


@pytest.mark.parametrize(
    ("failures", "code"),
    [([IndexUnavailable("never")] * 30, "index_unavailable"), ([ZeroDivisionError()], "internal_error")],
)
def test_a_failure_that_stays_ends_the_sweep_with_its_code(failures: list[Exception], code: str) -> None:
    world = world_of(failures)
    sweeps = sweeps_of(world)
    sweep = sweeps.start(GALLERY, 10)

    runner_of(sweeps, world).work()

    failed = sweeps.sweep(GALLERY, sweep.job_id)
    assert (failed.state, failed.error_code) == (JobState.FAILED, code)
    assert world.metrics.registry.get_sample_value("biodedup_sweeps_ended_total", {"state": "failed"}) == 1.0
    assert sweeps.start(GALLERY, 10).state is JobState.QUEUED


def test_a_cancelled_sweep_stops_after_its_block_and_keeps_what_it_found() -> None:
    world = world_of()
    sweeps = WatchedSweeps(world, lambda sweep: sweeps.end(sweep, JobState.CANCELLED))
    sweep = sweeps.start(GALLERY, 10)

    runner_of(sweeps, world).work()

    cancelled = sweeps.sweep(GALLERY, sweep.job_id)
    assert (cancelled.state, cancelled.done) == (JobState.CANCELLED, 50)
    assert len(case_pairs(world.store)) == cancelled.cases_opened
    assert world.metrics.registry.get_sample_value("biodedup_sweeps_ended_total", {"state": "cancelled"}) == 1.0


def test_a_runner_that_is_closed_gives_its_sweep_back() -> None:
    world = world_of()
    sweeps = WatchedSweeps(world, lambda _: runner.close())
    sweep = sweeps.start(GALLERY, 10)
    runner = runner_of(sweeps, world)

    runner.work()

    stopped = sweeps.sweep(GALLERY, sweep.job_id)
    assert (stopped.state, stopped.done) == (JobState.RUNNING, 50)
    assert sweeps.take(stopped, Lease("another process", world.clock.now)) is not None


def test_what_another_process_works_on_is_left_alone_until_its_lease_runs_out() -> None:
    world = world_of()
    sweeps = sweeps_of(world)
    sweep = sweeps.start(GALLERY, 10)
    sweeps.take(sweep, Lease("another process", LEASE.until))

    runner_of(sweeps, world).work()
    left_alone = sweeps.sweep(GALLERY, sweep.job_id)
    world.clock.now = LEASE.until + timedelta(seconds=1)
    runner_of(sweeps, world).work()

    assert (left_alone.state, left_alone.done) == (JobState.RUNNING, 0)
    assert sweeps.sweep(GALLERY, sweep.job_id).state is JobState.DONE


def test_a_sweep_waits_while_requests_wait() -> None:
    world = world_of()
    waiting = iter([True, True, False, False])
    asked: list[bool] = []

    def is_busy() -> bool:
        asked.append(next(waiting, False))
        return asked[-1]

    sweeps = sweeps_of(world)
    sweep = sweeps.start(GALLERY, 10)
    JobRunner(sweeps, is_alone=False, clock=world.clock, is_busy=is_busy).work()

    assert asked[:3] == [True, True, False]
    assert sweeps.sweep(GALLERY, sweep.job_id).state is JobState.DONE


def test_a_running_runner_hears_of_a_new_sweep_and_stops_when_closed() -> None:
    world = world_of()
    ended: list[Sweep] = []
    sweeps = WatchedSweeps(world, ended.append)
    runner = runner_of(sweeps, world)
    runner.start()

    sweeps.start(GALLERY, 10)
    while not ended or not ended[-1].state.has_ended:
        runner._thread.join(0.01)
    runner.close()

    assert not runner._thread.is_alive()
    assert ended[-1].state is JobState.DONE


def test_a_runner_that_never_started_can_be_closed() -> None:
    world = world_of()

    runner_of(sweeps_of(world), world).close()
