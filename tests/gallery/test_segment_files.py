"""The files of sealed segments: what was written comes back, and nobody else can read it."""

import dataclasses
import os
import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from service.durable_files import set_aside
from service.errors import VarUnusable
from service.gallery.segment_files import Segment, SegmentFile, open_segment, write_segment
from service.gallery.segment_layout import HEADER_BYTES, PIECE_BYTES, Layout
from tests.gallery.segments import (
    KEY,
    OTHER_KEY,
    damage_of,
    every_row,
    layout_of,
    made_up_segment,
    read_everything,
    written,
)

REPOSITORY = Path(__file__).resolve().parents[2]


def descriptors_of(path: Path) -> int:
    """How many descriptors of this process lead to the file."""
    return sum(os.path.realpath(descriptor) == str(path) for descriptor in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize(
    ("count", "dimension", "codes_bytes"),
    [
        (0, 1, 0),
        (1, 128, 1),
        (257, 128, PIECE_BYTES),
        (1030, 512, 2 * PIECE_BYTES + 5),
        (PIECE_BYTES // 8 + 1, 1, 3),
    ],
)
def test_a_segment_comes_back_as_it_was_written(tmp_path: Path, count: int, dimension: int, codes_bytes: int) -> None:
    segment = made_up_segment(1, count, dimension, codes_bytes)
    path, file = written(tmp_path, segment)
    opened = open_segment(path, KEY, file, verify=True)
    np.testing.assert_array_equal(opened.ids, segment.ids)
    np.testing.assert_array_equal(opened.take_codes(), segment.codes)
    np.testing.assert_array_equal(every_row(opened), segment.rows)
    assert (opened.metadata, opened.dimension, len(opened), opened.file) == ({"seed": 1}, dimension, count, file)
    assert (file.count, file.byte_length, file.name) == (count, path.stat().st_size, path.name)


def test_rows_come_in_the_order_asked_for_repeats_included(tmp_path: Path) -> None:
    segment = made_up_segment(2, count=600)
    opened = open_segment(*_with_key(written(tmp_path, segment)))
    indices = np.array([599, 0, 257, 0, 256, 255])
    np.testing.assert_array_equal(opened.rows(indices), segment.rows[indices])
    assert opened.rows(np.empty(0, np.int64)).shape == (0, 8)


@pytest.mark.parametrize("index", [-1, 7])
def test_a_row_that_is_not_there_is_an_index_error(tmp_path: Path, index: int) -> None:
    opened = open_segment(*_with_key(written(tmp_path, made_up_segment(2))))
    with pytest.raises(IndexError):
        opened.rows(np.array([0, index]))


def test_codes_are_handed_over_once(tmp_path: Path) -> None:
    opened = open_segment(*_with_key(written(tmp_path, made_up_segment(2))))
    opened.take_codes()
    with pytest.raises(RuntimeError):
        opened.take_codes()


def test_arrays_that_do_not_fit_together_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    good = made_up_segment(3)
    bad = [
        dataclasses.replace(good, ids=good.ids[:-1]),
        dataclasses.replace(good, ids=good.ids.astype(np.int32)),
        dataclasses.replace(good, codes=good.codes.astype(np.int16)),
        dataclasses.replace(good, rows=good.rows.astype(np.float64)),
        dataclasses.replace(good, rows=good.rows[:, :0]),
        dataclasses.replace(good, rows=good.rows.ravel()[:7]),
    ]
    for segment in bad:
        with pytest.raises(ValueError):
            write_segment(tmp_path, KEY, segment)
    assert list(tmp_path.iterdir()) == []


def test_strided_arrays_are_written_as_they_read(tmp_path: Path) -> None:
    wide = made_up_segment(4, count=20, dimension=16)
    segment = Segment(wide.ids[::2], wide.codes[::3], wide.rows[::2, 1::2], {})
    opened = open_segment(*_with_key(written(tmp_path, segment)))
    np.testing.assert_array_equal(opened.ids, segment.ids)
    np.testing.assert_array_equal(opened.take_codes(), segment.codes)
    np.testing.assert_array_equal(every_row(opened), segment.rows)


def test_the_places_of_the_parts_belong_to_the_format() -> None:
    layout = Layout(dimension=512, count=1_000_000, metadata_bytes=20, codes_bytes=64_000_000)
    starts = (HEADER_BYTES, layout.ids_start, layout.codes_start, layout.rows_start, layout.end)
    assert starts == (98, 134, 8_000_262, 72_001_254, 2_136_001_254)


def test_a_deleted_file_can_be_read_to_the_end_by_who_has_it_open(tmp_path: Path) -> None:
    segment = made_up_segment(18)
    path, file = written(tmp_path, segment)
    opened = open_segment(path, KEY, file)
    path.unlink()
    np.testing.assert_array_equal(every_row(opened), segment.rows)


def test_a_segment_that_nobody_holds_keeps_no_descriptor(tmp_path: Path) -> None:
    path, file = written(tmp_path, made_up_segment(19))
    opened = open_segment(path, KEY, file)
    assert descriptors_of(path) == 1
    del opened
    assert descriptors_of(path) == 0
    damage_of(path, dataclasses.replace(file, count=8))
    damage_of(path, file, OTHER_KEY)
    assert descriptors_of(path) == 0


def test_two_readers_at_once_each_get_their_rows(tmp_path: Path) -> None:
    segment = made_up_segment(20, count=1000, dimension=128)
    opened = open_segment(*_with_key(written(tmp_path, segment)))
    meeting, wrong = threading.Barrier(2), []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        meeting.wait(timeout=30)
        for _ in range(40):
            indices = rng.integers(0, 1000, 50)
            if not np.array_equal(opened.rows(indices), segment.rows[indices]):
                wrong.append(seed)
        if not np.array_equal(every_row(opened), segment.rows):
            wrong.append(seed)

    readers = [threading.Thread(target=read, args=[seed]) for seed in (1, 2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert meeting.n_waiting == 0


def test_the_file_and_its_folder_are_for_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path, _ = written(tmp_path / "index" / "gallery", made_up_segment(21))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_the_call_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, list[str], list[int]]] = []
    fsync = os.fsync

    def noting_fsync(descriptor: int) -> None:
        found = sorted(tmp_path.iterdir())
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        seen.append((is_folder, [path.suffix for path in found], [path.stat().st_size for path in found]))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    _, file = written(tmp_path, made_up_segment(22))
    assert seen == [(False, [".part"], [file.byte_length]), (True, [".sealed"], [file.byte_length])]


def test_a_full_disk_is_a_deliberate_error_and_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PIECE_BYTES, hard))
    try:
        with pytest.raises(VarUnusable):
            write_segment(tmp_path, KEY, made_up_segment(23, codes_bytes=4 * PIECE_BYTES))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_nothing_in_the_file_is_readable(tmp_path: Path) -> None:
    secret = np.arange(8, dtype=np.float32) + 0.12345
    segment = Segment(
        ids=np.full(5, 0x1122334455667788),
        codes=np.frombuffer(b"the codes of somebody" * 10, np.uint8),
        rows=np.tile(secret, (5, 1)),
        metadata={"note": "the metadata of somebody"},
    )
    path, file = written(tmp_path, segment)
    everything = path.read_bytes() + path.name.encode()
    row, reference_id = secret.tobytes(), (0x1122334455667788).to_bytes(8, "big")
    needles = [row[start : start + 4] for start in range(len(row) - 3)]
    needles += [reference_id, reference_id[::-1], reference_id[:4], reference_id[4:], b"somebody", b"note", KEY]
    assert [needle for needle in needles if needle in everything] == []
    # equal rows do not look equal, so nobody sees who is like whom
    layout = layout_of(path)
    sealed = everything[layout.rows_start :]
    assert len({sealed[row * layout.row_stride :][: layout.row_stride] for row in range(5)}) == 5
    read_everything(path, file)


def test_the_same_segment_written_twice_shares_no_piece(tmp_path: Path) -> None:
    first, second = (written(tmp_path, made_up_segment(24))[0].read_bytes() for _ in range(2))
    assert not {first[i : i + 8] for i in range(38, len(first) - 8)} & {
        second[i : i + 8] for i in range(38, len(second))
    }


def test_damaged_files_are_set_aside_under_numbers(tmp_path: Path) -> None:
    path = tmp_path / "manifest.sealed"
    for number in (1, 2, 3):
        path.write_bytes(bytes([number]))
        assert set_aside(path) == tmp_path / f"manifest.sealed.damaged-{number}"
    assert set_aside(path) is None
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        f"manifest.sealed.damaged-{number}": bytes([number]) for number in (1, 2, 3)
    }


def _with_key(place: tuple[Path, SegmentFile]) -> tuple[Path, bytes, SegmentFile]:
    return place[0], KEY, place[1]


def test_a_file_can_be_read_until_the_process_ends(tmp_path: Path) -> None:
    path, file = written(tmp_path, made_up_segment(40))
    arguments = f"Path({str(path)!r}), bytes.fromhex({KEY.hex()!r}), {file!r}"
    program = f"""
import atexit
from pathlib import Path
import numpy as np
from service.gallery.segment_files import SegmentFile, open_segment
atexit.register(lambda: print(opened.rows(np.array([1])).shape))
opened = open_segment({arguments})
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert ended.stdout.startswith("(1, ")
