"""The index beside the record: filled, followed, thrown away when it is wrong."""

import threading
from dataclasses import replace
from typing import NoReturn

import pytest

from service.domain import OutcomeKind
from service.errors import IndexUnavailable, PackMismatch, PackNotLoaded
from service.gallery.exact_index import ExactIndex
from service.index_keeping import IndexKeeper
from service.packs import Packs
from tests.fakes import FakeStore
from tests.synthetic import PACK_ID, PersonEmbedder
from tests.world import GALLERY, DeafMatcher, World


def test_an_index_is_filled_from_the_record_on_first_use() -> None:
    store = FakeStore()
    before = World(store)
    before.enrol(1, subject_id="first")
    before.enrol(2, subject_id="second")
    before.erasure.erase_subject(GALLERY, "second")
    restarted = World.beside(store)
    assert [c.subject_id for c in restarted.identify(1).decision.candidates] == ["first"]
    assert restarted.identify(2).decision.outcome is OutcomeKind.UNIQUE
    assert (len(restarted.indexes[0]), restarted.indexes[0].high_water_mark) == (1, 3)


def test_the_state_tells_an_index_in_step() -> None:
    world = World()
    world.enrol(1)
    state = world.matcher.state(GALLERY)
    assert state.in_step
    assert (state.high_water_mark, state.last_seq, state.index_templates, state.record_templates) == (1, 1, 1, 1)


def test_an_index_that_lags_is_counted_and_caught_up_by_the_check() -> None:
    world = World(matcher=DeafMatcher)
    world.enrol(1)
    world.enrol(2)
    assert world.matcher.lag(world.gallery()) == 2
    assert world.matcher.state(GALLERY).in_step
    assert world.matcher.lag(world.gallery()) == 0


def test_an_index_that_disagrees_with_the_record_is_thrown_away() -> None:
    world = World()
    first = world.enrol(1, subject_id="first")
    [finding] = first.samples
    assert finding.reference_id is not None
    world.indexes[0].remove(2, [finding.reference_id])
    assert not world.matcher.state(GALLERY).in_step
    assert [c.subject_id for c in world.identify(1).decision.candidates] == ["first"]
    assert world.matcher.state(GALLERY).in_step
    assert len(world.indexes) == 2


def test_an_index_of_another_timeline_is_thrown_away() -> None:
    store = FakeStore()
    world = World(store)
    world.enrol(1)
    store.renew_timelines()
    world.identify(1)
    assert len(world.indexes) == 2


class LaterEmbedder(PersonEmbedder):
    """The same pack after a change of its pipeline."""

    model_id = "synthetic-2"


class FailingIndex(ExactIndex):
    """Refuses the third change, as after a fault of memory or disk."""

    def add(self, seq: int, *rest: object) -> None:
        if seq == 3:
            raise IndexUnavailable("planted fault")
        super().add(seq, *rest)  # type: ignore[arg-type]  # passed through


def test_an_index_that_fails_loses_no_enrolment_and_is_filled_again() -> None:
    world = World(index=FailingIndex)
    for person in range(3):
        world.enrol(person, subject_id=f"s{person}")
    assert world.metrics.registry.get_sample_value("biodedup_index_failures_total") == 1
    world.new_index = ExactIndex
    assert [c.subject_id for c in world.identify(2).decision.candidates] == ["s2"]
    assert world.matcher.state(GALLERY).in_step


def test_a_pack_that_is_not_loaded_is_named_with_what_to_do() -> None:
    with pytest.raises(PackNotLoaded, match="biodedup models fetch other"):
        World().packs.of("other")


def test_templates_of_another_model_are_never_compared() -> None:
    store = FakeStore()
    World(store).enrol(1)
    later = World.beside(store)
    pack = later.packs.of(PACK_ID)
    later.packs = Packs({PACK_ID: replace(pack, embedder=LaterEmbedder())})
    keeper = IndexKeeper(store, later._new_index, later.packs, later.metrics)
    with pytest.raises(PackMismatch, match="synthetic-1"):
        keeper.catch_up(GALLERY)


class UnsearchableIndex(ExactIndex):
    def search(self, *_: object) -> NoReturn:
        raise IndexUnavailable("planted fault")


def test_an_index_that_cannot_be_searched_is_filled_again() -> None:
    world = World(index=UnsearchableIndex)
    with pytest.raises(IndexUnavailable):
        world.enrol(1)
    world.new_index = ExactIndex
    assert world.enrol(1).outcome is OutcomeKind.UNIQUE


class LeavingIndex(ExactIndex):
    """Remembers how it was left; leaving may take its time, as while a file is being written."""

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self.left: list[str] = []
        self.leaving, self.may_leave = threading.Event(), threading.Event()
        self.may_leave.set()

    def search(self, *_arguments: object) -> NoReturn:
        raise IndexUnavailable("planted fault")

    def discard(self, reason: str = "differs_from_record") -> None:
        self.leaving.set()
        assert self.may_leave.wait(30)
        self.left.append(reason)

    def close(self) -> None:
        self.left.append("closed")


def leaving_world() -> tuple[World, LeavingIndex]:
    world = World(index=LeavingIndex)
    world.matcher.catch_up(GALLERY)
    [index] = world.indexes
    assert isinstance(index, LeavingIndex)
    world.new_index = ExactIndex
    return world, index


def test_a_search_that_fails_leaves_the_files_for_the_next() -> None:
    world, index = leaving_world()
    with pytest.raises(IndexUnavailable):
        world.identify(1)
    assert index.left == ["closed"]
    world.identify(1)


def test_the_next_index_is_made_only_when_the_last_one_has_left_its_files() -> None:
    world, index = leaving_world()
    index.may_leave.clear()
    throwing = threading.Thread(target=world.matcher.throw_away, args=(GALLERY, "differs_from_record"))
    throwing.start()
    assert index.leaving.wait(30)
    searching = threading.Thread(target=world.matcher.catch_up, args=(GALLERY,))
    searching.start()
    searching.join(0.3)
    assert len(world.indexes) == 1
    index.may_leave.set()
    for each in (throwing, searching):
        each.join(30)
    assert index.left == ["differs_from_record"]
    assert len(world.indexes) == 2


def test_a_closed_keeper_lets_no_index_write() -> None:
    world, index = leaving_world()
    world.matcher.close()
    assert index.left == ["closed"]
