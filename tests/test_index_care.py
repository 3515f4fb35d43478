"""Operators see, verify, rebuild and compact an index; one that differs from its record does not stay."""

from pathlib import Path

import numpy as np
import pytest

from service import index_care
from service.errors import GalleryNotFound
from service.gallery.exact_index import ExactIndex
from service.gallery.open_segment import OpenSegment
from service.gallery.rows import HeldRows
from service.gallery.sealed_segment import SealedSegment
from service.gallery.segmented_index import SegmentedIndex
from service.gallery.snapshots import SnapshotFolder
from service.index_care import IndexCare, IndexVerification
from tests.world import GALLERY, World

KEY = bytes(range(32))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Ten people, two of them erased, in an exact index that is verified in blocks of three."""
    monkeypatch.setattr(index_care, "_BLOCK", 3)
    world = World(index=ExactIndex)
    for person in range(10):
        world.enrol(person, subject_id=f"S{person}")
    world.erasure.erase_subject(GALLERY, "S3")
    world.erasure.erase_subject(GALLERY, "S4")
    return world


def care_of(world: World) -> IndexCare:
    return IndexCare(world.matcher, world.metrics)


def exact(world: World) -> ExactIndex:
    index = world.indexes[-1]
    assert isinstance(index, ExactIndex)
    return index


def verified(world: World, result: str) -> float | None:
    return world.metrics.registry.get_sample_value("biodedup_index_verifications_total", {"result": result})


def test_an_index_like_its_record_is_found_right_and_stays(world: World) -> None:
    assert care_of(world).verify(GALLERY) == IndexVerification(8, 0, 0, 0, in_step=True)
    assert (verified(world, "ok"), verified(world, "different")) == (1, 0)
    assert world.identify(1).decision.candidates[0].subject_id == "S1"
    assert len(world.indexes) == 1


def test_an_empty_gallery_is_verified() -> None:
    assert care_of(World(index=ExactIndex)).verify(GALLERY).is_same


def test_a_gallery_that_is_not_there_is_not_verified(world: World) -> None:
    with pytest.raises(GalleryNotFound):
        care_of(world).verify("none")


@pytest.mark.parametrize("row", [0, 1, 5, 9])
def test_a_template_that_was_altered_is_found(world: World, row: int, caplog: pytest.LogCaptureFixture) -> None:
    exact(world)._rows[row, 100] = np.nextafter(exact(world)._rows[row, 100], np.float32(1))
    assert care_of(world).verify(GALLERY) == IndexVerification(8, 0, 0, 1, in_step=True)
    assert (verified(world, "ok"), verified(world, "different")) == (0, 1)
    assert "index.differs_from_record" in caplog.text
    assert care_of(world).verify(GALLERY).is_same
    assert len(world.indexes) == 2


@pytest.mark.parametrize("row", [0, 5, 9])
def test_a_missing_and_a_surplus_template_are_found_though_their_number_is_right(world: World, row: int) -> None:
    exact(world)._ids[row] = 999
    assert world.matcher.state(GALLERY).in_step
    assert care_of(world).verify(GALLERY) == IndexVerification(8, 1, 1, 0, in_step=True)
    assert care_of(world).verify(GALLERY).is_same


def test_a_template_that_is_missing_alone_is_found(world: World) -> None:
    exact(world)._live[6] = False
    assert care_of(world).verify(GALLERY) == IndexVerification(8, 1, 0, 0, in_step=True)


@pytest.mark.parametrize("reference_id", [3, 500])
def test_a_surplus_template_is_found_also_when_it_is_there_twice(world: World, reference_id: int) -> None:
    index = exact(world)
    row = index.templates(2, 3)[1]
    assert len(row) == 1
    index.add(index.high_water_mark + 1, [reference_id], row)
    index._high_water_mark -= 1
    found = care_of(world).verify(GALLERY)
    assert (found.missing, found.surplus, found.different) == (0, 1, 0)


def test_what_was_enrolled_meanwhile_is_verified_too(world: World) -> None:
    world.enrol(20)
    assert care_of(world).verify(GALLERY).compared == 9


def test_a_rebuilt_index_is_another_with_the_same_answers(world: World) -> None:
    before = world.identify(1).decision
    exact(world)._live[1] = False  # whom it would no longer find
    assert care_of(world).rebuild(GALLERY)[0].state.in_step
    assert len(world.indexes) == 2
    assert world.identify(1).decision == before


@pytest.fixture(scope="module")
def sealed_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """720 people in a segmented index with files."""
    folder = tmp_path_factory.mktemp("index")

    def new_index(dimension: int) -> SegmentedIndex:
        snapshots = SnapshotFolder(
            folder,
            KEY,
            gallery_id=GALLERY,
            pack_id="pack",
            timeline_id=made.gallery().timeline_id,
            model_id="m1",
            dimension=dimension,
            on_damage=lambda _: None,
        )
        return SegmentedIndex(dimension, threads=1, seal_at=700, snapshots=snapshots, last_seq=10**6)

    made = World(index=new_index)
    for person in range(720):
        made.enrol(person, subject_id=f"S{person}")
    settled(made)
    return made


def settled(world: World) -> SegmentedIndex:
    index = world.indexes[-1]
    assert isinstance(index, SegmentedIndex)
    index.settle()
    return index


def test_the_status_tells_the_truth_after_sealing_removal_and_compaction(sealed_world: World) -> None:
    world, care = sealed_world, care_of(sealed_world)
    [before] = care.status(GALLERY)
    by_state = {part.state: part for part in before.parts}
    assert (by_state["sealed"].templates, by_state["open"].templates) == (700, 20)
    assert (by_state["sealed"].removed, before.state.record_templates) == (0, 720)
    world.erasure.erase_subject(GALLERY, "S7")
    world.erasure.erase_subject(GALLERY, "S710")
    by_state = {part.state: part for part in care.status(GALLERY)[0].parts}
    assert (by_state["sealed"].templates, by_state["sealed"].removed, by_state["open"].templates) == (699, 1, 19)
    [after] = care.compact(GALLERY)
    [sealed] = [part for part in after.parts if part.state == "sealed"]
    assert (sealed.templates, sealed.removed) == (699, 0)
    assert sealed.file_name not in {None, by_state["sealed"].file_name}
    assert care.verify(GALLERY).is_same


def test_an_altered_row_of_a_sealed_segment_is_found_and_its_files_are_not_used_again(sealed_world: World) -> None:
    care, index = care_of(sealed_world), settled(sealed_world)
    [segment] = [each for each in index._segments if isinstance(each, SealedSegment)]
    altered = segment.rows.take(np.arange(segment.used))
    altered[17, 5] += np.float32(1e-6)
    segment.rows = HeldRows(altered)
    assert care.verify(GALLERY).different == 1
    assert care.verify(GALLERY).is_same
    assert settled(sealed_world) is not index


def test_a_rebuild_throws_the_files_away(sealed_world: World) -> None:
    care = care_of(sealed_world)
    settled(sealed_world)
    care.compact(GALLERY)
    old = {part.file_name for part in care.status(GALLERY)[0].parts}
    folder: Path = settled(sealed_world)._snapshots._folder  # type: ignore[union-attr]  # it has snapshots
    care.rebuild(GALLERY)
    index = settled(sealed_world)
    assert any(isinstance(each, OpenSegment) for each in index._segments)
    assert not old & {path.name for path in folder.iterdir()}
    assert list(folder.glob("*.damaged-*")) == []
    assert care.verify(GALLERY).is_same
