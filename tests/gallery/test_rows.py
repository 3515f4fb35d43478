"""Rows read from a file are those that were held in memory."""

from pathlib import Path

import numpy as np
import pytest

from service.domain import Embeddings
from service.gallery.damage import SnapshotDamaged
from service.gallery.rows import FiledRows, HeldRows, Pairs, Rows
from service.gallery.segment_files import Segment, open_segment, write_segment
from tests.gallery.segments import KEY

COUNT, DIMENSION = 17_000, 16


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


@pytest.mark.parametrize("runs", [[(0, COUNT)], [(5, 9), (9, 10), (11, 300)], [(300, 310), (0, 2), (0, 2)]])
def test_rows_that_lie_side_by_side_come_as_if_alone(
    rows: Rows, array: Embeddings, runs: list[tuple[int, int]]
) -> None:
    places = np.concatenate([np.arange(start, end) for start, end in runs])
    assert np.array_equal(rows.take(places), array[places])


@pytest.mark.parametrize("wanted", [0, 3, 700, 20_000])
def test_each_pair_is_compared(rows: Rows, array: Embeddings, wanted: int) -> None:
    rng = np.random.default_rng(3)
    probes, pairs = array[:20], Pairs(rng.integers(0, 20, wanted), rng.integers(0, COUNT, wanted))
    true = np.sum(probes[pairs.probes] * array[pairs.places], axis=1)
    assert np.allclose(rows.scores(probes, pairs), true, atol=1e-6)


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
