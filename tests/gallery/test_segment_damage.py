"""Damaged, moved and foreign segment files: each is noticed, none does anything worse than raise."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.gallery.damage import Damage, SnapshotDamaged
from service.gallery.file_cipher import FileCipher
from service.gallery.segment_files import open_segment
from service.gallery.segment_layout import HEADER_BYTES, PIECE_BYTES
from tests.gallery.segments import KEY, OTHER_KEY, damage_of, layout_of, made_up_segment, read_everything, written


def swap(path: Path, first: int, second: int, length: int) -> None:
    data = bytearray(path.read_bytes())
    data[first : first + length], data[second : second + length] = (
        data[second : second + length],
        data[first : first + length],
    )
    path.write_bytes(data)


def test_any_changed_bit_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    path, file = written(tmp_path, made_up_segment(5))
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ (1 << position % 8)]) + good[position + 1 :])
        damage_of(path, file)
        with pytest.raises(SnapshotDamaged):
            open_segment(path, KEY, file, verify=True)
    path.write_bytes(good)
    read_everything(path, file)


def test_any_truncation_and_anything_appended_is_noticed(tmp_path: Path) -> None:
    path, file = written(tmp_path, made_up_segment(6))
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        assert damage_of(path, file) is Damage.LENGTH
    path.write_bytes(good + b"\0")
    assert damage_of(path, file) is Damage.LENGTH


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 120), replacement=st.binary(min_size=1, max_size=300), whole=st.booleans())
def test_no_bytes_do_anything_but_damage(tmp_path: Path, start: int, replacement: bytes, *, whole: bool) -> None:
    path, file = written(tmp_path, made_up_segment(7))
    good = path.read_bytes()
    data = replacement if whole else good[:start] + replacement + good[start + len(replacement) :]
    path.write_bytes(data)
    if data != good:
        # the length that the manifest knows may be that of the bad file too
        damage_of(path, dataclasses.replace(file, byte_length=len(data)))


def test_swapped_pieces_of_the_codes_are_noticed(tmp_path: Path) -> None:
    path, file = written(tmp_path, made_up_segment(8, codes_bytes=3 * PIECE_BYTES))
    start = layout_of(path).codes_start
    swap(path, start, start + PIECE_BYTES + 16, PIECE_BYTES + 16)
    assert damage_of(path, file) is Damage.AUTHENTICATION


def test_swapped_rows_are_noticed_and_the_others_can_still_be_read(tmp_path: Path) -> None:
    segment = made_up_segment(9)
    path, file = written(tmp_path, segment)
    layout = layout_of(path)
    swap(path, layout.rows_start, layout.rows_start + layout.row_stride, layout.row_stride)
    assert damage_of(path, file) is Damage.AUTHENTICATION
    opened = open_segment(path, KEY, file)
    np.testing.assert_array_equal(opened.rows(np.array([2, 6])), segment.rows[[2, 6]])
    for row in (0, 1):
        with pytest.raises(SnapshotDamaged):
            opened.rows(np.array([5, row]))


def test_parts_of_equal_length_cannot_stand_in_for_each_other(tmp_path: Path) -> None:
    path, file = written(tmp_path, made_up_segment(10, count=4, dimension=8, codes_bytes=32))
    layout = layout_of(path)
    swap(path, layout.ids_start, layout.codes_start, 48)
    assert damage_of(path, file) is Damage.AUTHENTICATION


def test_swapped_files_of_one_shape_are_noticed(tmp_path: Path) -> None:
    (path, file), (other_path, other_file) = (written(tmp_path, made_up_segment(seed)) for seed in (11, 12))
    data, other_data = path.read_bytes(), other_path.read_bytes()
    path.write_bytes(other_data)
    other_path.write_bytes(data)
    assert damage_of(path, file) is damage_of(other_path, other_file) is Damage.AUTHENTICATION
    # nor does the body of one fit under the header of the other
    path.write_bytes(data[:HEADER_BYTES] + other_data[HEADER_BYTES:])
    assert damage_of(path, file) is Damage.AUTHENTICATION


def test_a_file_opens_under_its_own_master_key_only(tmp_path: Path) -> None:
    assert damage_of(*written(tmp_path, made_up_segment(13)), key=OTHER_KEY) is Damage.AUTHENTICATION


def test_a_key_unwraps_under_its_own_header_and_name_only() -> None:
    cipher, wrapped = FileCipher.draw(KEY, "name", b"header")
    sealed = cipher.seal(b"PART", 3, b"secret")
    assert FileCipher.unwrap(KEY, "name", b"header", wrapped).unseal(b"PART", [(3, sealed)]) == b"secret"
    for key, name, header in ((OTHER_KEY, "name", b"header"), (KEY, "nam", b"header"), (KEY, "name", b"heade")):
        with pytest.raises(SnapshotDamaged):
            FileCipher.unwrap(key, name, header, wrapped)


def test_metadata_that_is_no_object_is_damage(tmp_path: Path) -> None:
    strange = dataclasses.replace(made_up_segment(25), metadata=[1])  # type: ignore[arg-type]
    assert damage_of(*written(tmp_path, strange)) is Damage.CONTENTS


def test_a_file_of_another_format_is_called_so(tmp_path: Path) -> None:
    path, file = written(tmp_path, made_up_segment(14))
    good = path.read_bytes()
    for foreign in (b"PK" + good[2:], good[:10] + b"\0\1" + good[12:]):
        path.write_bytes(foreign)
        assert damage_of(path, file) is Damage.FOREIGN_FORMAT


def test_a_file_that_is_missing_or_a_folder_is_damaged(tmp_path: Path) -> None:
    path, file = written(tmp_path, made_up_segment(15))
    path.unlink()
    assert damage_of(path, file) is Damage.MISSING
    path.mkdir()
    assert damage_of(path, file) is Damage.UNREADABLE


def test_what_the_manifest_expects_is_compared(tmp_path: Path) -> None:
    path, file = written(tmp_path, made_up_segment(16))
    assert damage_of(path, dataclasses.replace(file, count=8)) is Damage.HEADER
    assert damage_of(path, dataclasses.replace(file, byte_length=1)) is Damage.LENGTH
    assert damage_of(path, dataclasses.replace(file, name="segment-" + 32 * "0" + ".sealed")) is Damage.AUTHENTICATION
    with pytest.raises(SnapshotDamaged) as caught:
        open_segment(path, KEY, dataclasses.replace(file, sha256=64 * "0"), verify=True)
    assert caught.value.reason is Damage.CHECKSUM


def test_a_file_truncated_while_open_is_damaged_and_does_not_end_the_process(tmp_path: Path) -> None:
    path, file = written(tmp_path, made_up_segment(17, count=2000))
    opened = open_segment(path, KEY, file)
    os.truncate(path, HEADER_BYTES)
    for wanted in (np.arange(2000), np.array([1999])):
        with pytest.raises(SnapshotDamaged):
            opened.rows(wanted)
