"""The files of a gallery's indexes while its model changes: of two packs side by side, then of one alone."""

from pathlib import Path

import pytest

from service.gallery import segmented_index
from service.gallery.index_folders import adopt_folder, delete_other_folders, folder_name
from service.gallery.segmented_index import SegmentedIndex
from service.index_care import IndexCare
from service.indexes import files_forgetter, index_maker
from service.matching import Matcher
from service.store.sql_store import SqlStore
from tests.migrating import NEW_PACK, OLD_BLIND, make_all, migrations_of, two_packs, work, world_of
from tests.synthetic import PACK_ID
from tests.world import GALLERY, World

PEOPLE = 300


def with_files(world: World, folder: Path) -> World:
    """Give a world indexes that keep their files in the folder, as the service has."""
    maker = index_maker("segmented", folder, world.metrics)
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
