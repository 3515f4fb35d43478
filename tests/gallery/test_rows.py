"""Rows read from a file are those that were held in memory, and what is held is counted."""

import gc
from pathlib import Path

import numpy as np
import pytest

from service.domain import Embeddings
from service.gallery.damage import SnapshotDamaged
from service.gallery.rows import BLOCK, FiledRows, HeldRows, RowMemory, Rows
from service.gallery.segment_files import Segment, open_segment, write_segment
from tests.gallery.segments import KEY

COUNT, DIMENSION = BLOCK + 500, 16


@pytest.fixture(scope="module")
def array() -> Embeddings:
    rows = np.random.default_rng(1).standard_normal((COUNT, DIMENSION), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def filed(array: Embeddings, folder: Path) -> tuple[FiledRows, Path]:
    file = write_segment(folder, KEY, Segment(np.arange(len(array)), np.zeros(8, np.uint8), array, {}))
    return FiledRows(open_segment(folder / file.name, KEY, file)), folder / file.name


@pytest.fixture(params=["held", "filed"])
def rows(request: pytest.FixtureRequest, array: Embeddings, tmp_path: Path) -> Rows:
    return HeldRows(array.copy()) if request.param == "held" else filed(array, tmp_path)[0]


def test_rows_come_in_the_order_asked_for(rows: Rows, array: Embeddings) -> None:
    places = np.random.default_rng(2).integers(0, COUNT, 5000)
    assert np.array_equal(rows.take(places), array[places])
    assert rows.take(places[:0]).shape == (0, DIMENSION)


def test_blocks_are_all_of_them_in_order(rows: Rows, array: Embeddings) -> None:
    blocks = list(rows.blocks())
    assert max(len(block) for block in blocks) <= BLOCK
    assert np.array_equal(np.concatenate(blocks), array)


@pytest.mark.parametrize("wanted", [0, 3, 700, 5000])
def test_each_probe_is_compared_with_its_own_places(rows: Rows, array: Embeddings, wanted: int) -> None:
    rng = np.random.default_rng(3)
    probes, places = array[:20], rng.integers(-1, COUNT, (20, wanted))
    true = np.where(places >= 0, np.einsum("pd,pkd->pk", probes, array[places]), -np.inf)
    assert np.allclose(rows.scores(probes, places), true, atol=1e-6)


def test_rows_in_memory_are_overwritten_and_a_file_is_left(array: Embeddings, tmp_path: Path) -> None:
    held, (read, path) = HeldRows(array.copy()), filed(array, tmp_path)
    before = path.read_bytes()
    for each in (held, read):
        each.erase(np.array([5]))
    assert not held.take(np.array([5])).any()
    assert path.read_bytes() == before
    assert (held.ram_bytes, read.ram_bytes) == (array.nbytes, 0)


def test_a_row_that_was_changed_on_disk_is_not_read(array: Embeddings, tmp_path: Path) -> None:
    read, path = filed(array, tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert len(read.take(np.arange(COUNT - 1))) == COUNT - 1
    with pytest.raises(SnapshotDamaged):
        read.take(np.array([COUNT - 1]))


def test_rows_count_while_somebody_holds_them(array: Embeddings) -> None:
    memory = RowMemory(3 * array.nbytes)
    held = [HeldRows(array.copy()) for _ in range(4)]
    assert [memory.hold(each) for each in held] == [True, True, True, False]
    assert not memory.has_room(1)
    del held[0]
    gc.collect()
    assert memory.has_room(array.nbytes)
    assert memory.hold(held[2])


def test_without_a_limit_there_is_always_room(array: Embeddings) -> None:
    assert RowMemory().hold(HeldRows(array))
    assert RowMemory().has_room(2**60)


def test_a_finaliser_that_runs_while_the_count_is_held_waits_for_nobody(array: Embeddings) -> None:
    memory = RowMemory(array.nbytes)
    held = HeldRows(array)
    assert memory.hold(held)
    with memory._lock:
        del held
    assert memory.has_room(array.nbytes)
