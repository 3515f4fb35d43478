"""The files of a gallery's indexes while its model changes: of two packs side by side, then of one alone."""

from pathlib import Path

import numpy as np
import pytest

from service.gallery import segmented_index
from service.gallery.index_folders import adopt_folder, delete_other_folders, folder_name
from service.gallery.segmented_index import SegmentedIndex
from service.index_care import IndexCare
from service.indexes import files_forgetter, index_maker
from service.matching import Matcher, SearchAgain
from service.migration import MigrationService
from service.store.sql_store import SqlStore
from tests.migrating import NEW_DIMENSION, NEW_PACK, OLD_BLIND, make_all, migrations_of, two_packs, work, world_of
from tests.synthetic import PACK_ID
from tests.world import GALLERY, World

PEOPLE = 300


def with_files(world: World, folder: Path) -> World:
    """Give a world indexes that keep their files in the folder, as the service has."""
    maker = index_maker("segmented", folder, world.metrics, lambda _: bytes(32))
    matcher = Matcher(world.store, maker, world.packs, world.metrics, files_forgetter(folder))
    for service in (world.enrolment, world.identification):
        service._matcher = matcher
        service._standby._matcher = matcher
    world.erasure._keeper = world.matcher = matcher
    return world


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "index").iterdir()}


def settle(world: World) -> None:
    for slot in world.matcher._slots.values():
        assert isinstance(slot.index, SegmentedIndex)
        slot.index.settle()


def test_both_packs_have_files_until_one_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmented_index.SegmentedIndex.__init__, "__kwdefaults__", SMALL)
    store = SqlStore(f"sqlite:///{tmp_path}/record.sqlite")
    store.migrate()
    world = with_files(world_of(store), tmp_path)
    for person in range(PEOPLE):
        world.enrol(person, subject_id=f"S{person}")
    migrations = make_all(world)
    settle(world)
    old, new = folder_name(GALLERY, PACK_ID), folder_name(GALLERY, NEW_PACK)
    assert names(tmp_path) == {old, new}
    for name in (old, new):
        assert len(list((tmp_path / "index" / name).iterdir())) > 1, name  # a manifest and a segment
    care = IndexCare(world.matcher, world.metrics)
    world.erasure.erase_subject(GALLERY, "S3")
    statuses = care.compact(GALLERY)
    assert [(each.pack_id, sum(part.removed for part in each.parts)) for each in statuses] == [
        (PACK_ID, 0),
        (NEW_PACK, 0),
    ]
    assert care.verify(GALLERY).compared == 2 * (PEOPLE - 1)

    # another process begins with the files of both, and cuts over
    world.matcher.close()
    again = with_files(World.beside(store, two_packs()), tmp_path)
    again.matcher.catch_up(GALLERY)
    sealed = [part for part in again.matcher.parts(again.gallery()) if part.state == "sealed"]
    assert len(sealed) >= 2
    migrations = migrations_of(again)
    migrations.cut_over(GALLERY)
    assert [each.subject_id for each in again.identify(5, OLD_BLIND).decision.candidates] == ["S5"]
    assert again.identify(3, OLD_BLIND).decision.candidates == ()

    migrations.finish(GALLERY)
    work(again)
    assert names(tmp_path) == {new}
    assert care_of(again).verify(GALLERY).compared == PEOPLE - 1
    again.matcher.close()
    store.close()


def begin_again(world: World, migrations: MigrationService) -> None:
    migrations.cancel(GALLERY)
    work(world)
    migrations.begin(GALLERY, NEW_PACK)
    work(world)


def searched_by(world: World) -> tuple[int, float]:
    """Return the templates searched and the threshold that follows from their number."""
    found = world.identify(1)
    assert [each.subject_id for each in found.decision.candidates] == ["S1"]
    return found.searched.gallery_size, found.decision.thresholds.review


def test_a_pack_that_stood_by_before_is_not_searched_twice() -> None:
    """Another process holds its index, and looks at nothing while the change is cancelled and begun again."""
    here = world_of()
    there = World.beside(here.store, two_packs())
    for person in range(12):
        here.enrol(person, subject_id=f"S{person}")
    migrations = make_all(here)
    there.identify(1)
    there.matcher.catch_up(GALLERY)
    for _ in range(2):
        begin_again(here, migrations)
        there.matcher.catch_up(GALLERY)
    begin_again(here, migrations)
    migrations.cut_over(GALLERY)
    assert searched_by(there) == searched_by(here)
    assert searched_by(there)[0] == 12
    answer = there.enrol(50).searched
    assert answer is not None
    assert answer.gallery_size == 12
    assert care_of(there).verify(GALLERY).is_same


def test_an_old_pack_that_stands_by_again_is_not_searched_twice() -> None:
    here = world_of()
    there = World.beside(here.store, two_packs())
    for person in range(12):
        here.enrol(person, subject_id=f"S{person}")
    there.identify(1)
    migrations = make_all(here)
    migrations.cut_over(GALLERY)
    migrations.finish(GALLERY)
    work(here)
    migrations.begin(GALLERY, PACK_ID)
    work(here)
    migrations.cut_over(GALLERY)
    assert searched_by(there) == searched_by(here)
    assert searched_by(there)[0] == 12


def test_nothing_is_kept_of_a_pack_that_stood_by_before() -> None:
    here = world_of()
    there = World.beside(here.store, two_packs())
    here.enrol(1, subject_id="S1")
    migrations = make_all(here)
    there.matcher.catch_up(GALLERY)
    begin_again(here, migrations)
    there.matcher.forget_other_packs()
    assert list(there.matcher._slots) == [(GALLERY, PACK_ID)]


def test_the_index_of_a_pack_serves_on_when_the_pack_begins_to_rule_and_when_it_ends() -> None:
    world = world_of()
    world.enrol(1, subject_id="S1")
    migrations = make_all(world)
    world.identify(1)
    slots = dict(world.matcher._slots)
    migrations.cut_over(GALLERY)
    world.identify(1)
    assert world.matcher._slots == slots
    migrations.back(GALLERY)
    world.identify(1)
    assert world.matcher._slots == slots


def test_a_search_that_a_new_beginning_overtakes_is_made_again() -> None:
    here = world_of()
    there = World.beside(here.store, two_packs())
    here.enrol(1, subject_id="S1")
    migrations = make_all(here)
    side = there.gallery().swapped()
    probes = np.eye(1, NEW_DIMENSION, dtype=np.float32)
    found = there.matcher.search(side, probes, 0.5)
    begin_again(here, migrations)
    with pytest.raises(SearchAgain):
        there.matcher.check(there.gallery().swapped(), found)
    assert (GALLERY, NEW_PACK) not in there.matcher._slots


def test_files_of_a_pack_that_stood_by_before_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their process was down while the change was cancelled and begun again."""
    monkeypatch.setattr(segmented_index.SegmentedIndex.__init__, "__kwdefaults__", SMALL)
    here = world_of()
    there = with_files(World.beside(here.store, two_packs()), tmp_path)
    for person in range(PEOPLE):
        here.enrol(person, subject_id=f"S{person}")
    migrations = make_all(here)
    there.matcher.catch_up(GALLERY)
    settle(there)
    there.matcher.close()
    begin_again(here, migrations)
    migrations.cut_over(GALLERY)

    again = with_files(World.beside(here.store, two_packs()), tmp_path)
    assert again.identify(1).searched.gallery_size == PEOPLE
    assert care_of(again).verify(GALLERY).is_same
    set_aside = again.metrics.index_files_set_aside.labels(reason="other_timeline")
    assert set_aside._value.get() == 1  # of one pack: those of the other are as they were
    settle(again)
    again.matcher.close()


def care_of(world: World) -> IndexCare:
    return IndexCare(world.matcher, world.metrics)


SMALL = {**(segmented_index.SegmentedIndex.__init__.__kwdefaults__ or {}), "seal_at": 200, "threads": 1}


def test_the_files_of_an_earlier_version_are_taken_over(tmp_path: Path) -> None:
    name = folder_name(GALLERY, PACK_ID)
    before = tmp_path / name.partition("-")[0]
    before.mkdir()
    (before / "file").write_text("kept")
    adopt_folder(tmp_path, GALLERY, PACK_ID)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "file").read_text() == "kept"
    adopt_folder(tmp_path, GALLERY, NEW_PACK)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_only_folders_of_this_gallery_and_other_packs_are_deleted(tmp_path: Path) -> None:
    for gallery in (GALLERY, "other"):
        for pack in (PACK_ID, NEW_PACK):
            (tmp_path / folder_name(gallery, pack)).mkdir()
            (tmp_path / folder_name(gallery, pack) / "file").write_text("x")
    delete_other_folders(tmp_path, GALLERY, [NEW_PACK])
    left = {folder_name(GALLERY, NEW_PACK), folder_name("other", PACK_ID), folder_name("other", NEW_PACK)}
    assert {path.name for path in tmp_path.iterdir()} == left
