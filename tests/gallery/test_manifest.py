"""The manifest: the old one or the new one, never a mixture, never somebody else's; and what crashes leave."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.gallery.damage import Damage, SnapshotDamaged
from service.gallery.file_cipher import seal_once
from service.gallery.manifest import (
    MANIFEST_NAME,
    Manifest,
    ManifestSegment,
    read_manifest,
    remove_orphans,
    write_manifest,
)
from service.gallery.segment_files import SegmentFile, open_segment
from tests.gallery.dying_writer import GALLERY, next_manifest
from tests.gallery.segments import KEY, OTHER_KEY, every_row, made_up_segment

FILE = SegmentFile(f"segment-{'ab' * 16}.sealed", "cd" * 32, 1000, 7)
MANIFEST = Manifest(GALLERY, "timeline-1", "model-1", 128, 42, (ManifestSegment(FILE, (0x1122334455667788, 2)),))


def damage_of(folder: Path, key: bytes = KEY, gallery_id: str = GALLERY) -> Damage:
    with pytest.raises(SnapshotDamaged) as caught:
        read_manifest(folder, key, gallery_id)
    return caught.value.reason


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_manifest(tmp_path / "new", KEY, MANIFEST)
    assert read_manifest(tmp_path / "new", KEY, GALLERY) == MANIFEST
    empty = dataclasses.replace(MANIFEST, segments=(), high_water_mark=0)
    write_manifest(tmp_path / "new", KEY, empty)
    assert read_manifest(tmp_path / "new", KEY, GALLERY) == empty
    assert [path.name for path in (tmp_path / "new").iterdir()] == [MANIFEST_NAME]


def test_where_there_is_none_there_is_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path, KEY, GALLERY) is None
    assert read_manifest(tmp_path / "nowhere", KEY, GALLERY) is None


def test_any_changed_bit_and_any_truncation_is_noticed(tmp_path: Path) -> None:
    write_manifest(tmp_path, KEY, MANIFEST)
    path = tmp_path / MANIFEST_NAME
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ (1 << position % 8)]) + good[position + 1 :])
        damage_of(tmp_path)
        path.write_bytes(good[:position])
        damage_of(tmp_path)
    path.write_bytes(good + b"\0")
    assert damage_of(tmp_path) is Damage.AUTHENTICATION


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_no_bytes_do_anything_but_damage(tmp_path: Path, data: bytes) -> None:
    write_manifest(tmp_path, KEY, MANIFEST)
    path = tmp_path / MANIFEST_NAME
    start = path.read_bytes()[:12]
    for bad in (data, start + data):
        path.write_bytes(bad)
        damage_of(tmp_path)


def test_another_key_another_gallery_another_version_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    write_manifest(tmp_path, KEY, MANIFEST)
    assert damage_of(tmp_path, OTHER_KEY) is Damage.AUTHENTICATION
    assert damage_of(tmp_path, gallery_id="another") is Damage.FOREIGN_GALLERY
    write_manifest(tmp_path, KEY, dataclasses.replace(MANIFEST, format_version=2))
    assert damage_of(tmp_path) is Damage.FOREIGN_FORMAT
    (tmp_path / MANIFEST_NAME).unlink()
    (tmp_path / MANIFEST_NAME).mkdir()
    assert damage_of(tmp_path) is Damage.UNREADABLE


GOOD_FIELDS = dataclasses.asdict(MANIFEST)


def with_file(**changes: object) -> dict[str, Any]:
    return {**GOOD_FIELDS, "segments": [{"file": {**dataclasses.asdict(FILE), **changes}, "erased": []}]}


@pytest.mark.parametrize(
    "contents",
    [
        [],
        {},
        {**GOOD_FIELDS, "more": 1},
        {**GOOD_FIELDS, "gallery_id": None},
        {**GOOD_FIELDS, "high_water_mark": -1},
        {**GOOD_FIELDS, "high_water_mark": True},
        {**GOOD_FIELDS, "dimension": "128"},
        {**GOOD_FIELDS, "format_version": 2},
        {**GOOD_FIELDS, "segments": 5},
        {**GOOD_FIELDS, "segments": [5]},
        {**GOOD_FIELDS, "segments": 2 * with_file()["segments"]},
        {**GOOD_FIELDS, "segments": [{"file": dataclasses.asdict(FILE), "erased": [1.5]}]},
        {**GOOD_FIELDS, "segments": [{"file": dataclasses.asdict(FILE), "erased": [2**63]}]},
        with_file(name="../../etc/passwd"),
        with_file(name=None),
        with_file(sha256="cd"),
        with_file(count=-1),
        with_file(more=1),
    ],
)
def test_what_our_own_key_sealed_is_still_checked(tmp_path: Path, contents: object) -> None:
    start = b"BIODEDUPMF\0\1"
    path = tmp_path / MANIFEST_NAME
    path.write_bytes(start + seal_once(KEY, json.dumps(GOOD_FIELDS).encode(), start))
    assert read_manifest(tmp_path, KEY, GALLERY) == MANIFEST
    path.write_bytes(start + seal_once(KEY, json.dumps(contents).encode(), start))
    assert damage_of(tmp_path) is Damage.CONTENTS


@pytest.mark.parametrize("contents", [b"", b"\xff", b"{", b"[" * 200_000])
def test_what_our_own_key_sealed_and_is_no_json_is_damage(tmp_path: Path, contents: bytes) -> None:
    start = b"BIODEDUPMF\0\1"
    (tmp_path / MANIFEST_NAME).write_bytes(start + seal_once(KEY, contents, start))
    assert damage_of(tmp_path) is Damage.CONTENTS


def test_nothing_in_the_manifest_is_readable(tmp_path: Path) -> None:
    write_manifest(tmp_path, KEY, MANIFEST)
    everything = (tmp_path / MANIFEST_NAME).read_bytes()
    erased = (0x1122334455667788).to_bytes(8, "big")
    needles = [erased, erased[::-1], str(0x1122334455667788).encode(), GALLERY.encode(), b"timeline", b"segment", KEY]
    assert [needle for needle in needles if needle in everything] == []


def test_orphans_are_removed_and_nothing_else(tmp_path: Path) -> None:
    assert remove_orphans(tmp_path / "nowhere", None) == []
    manifest = next_manifest(tmp_path)
    write_manifest(tmp_path, KEY, manifest)
    named = manifest.segments[0].file.name
    orphan = next_manifest(tmp_path).segments[1].file.name
    kept = [MANIFEST_NAME, "manifest.sealed.damaged-1", f"{FILE.name}.damaged-1", "notes.txt", named]
    for name in (*kept[1:4], "manifest.sealed.0123abcd.part"):
        (tmp_path / name).write_bytes(b"")
    assert remove_orphans(tmp_path, manifest) == sorted(["manifest.sealed.0123abcd.part", orphan])
    assert {path.name for path in tmp_path.iterdir()} == set(kept)
    assert remove_orphans(tmp_path, None) == [named]


def die_at(folders: dict[int, Path]) -> str:
    """Let a writer die in each folder at its moment; return what it printed."""
    arguments = [f"{moment}:{folder}" for moment, folder in folders.items()]
    command = [sys.executable, "-m", "tests.gallery.dying_writer", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def check_after_kills(tmp_path: Path, moments: int) -> None:
    """Kill a writer at so many moments, evenly spread (0: at every one), and look at what each start finds."""
    folders = {0: tmp_path / "0"}
    write_manifest(folders[0], KEY, next_manifest(folders[0]))
    total = int(die_at(folders))
    points = np.linspace(1, total, moments or total).astype(int).tolist()
    before = {}
    for moment in points:
        folder = folders[moment] = tmp_path / str(moment)
        before[moment] = next_manifest(folder)
        write_manifest(folder, KEY, before[moment])
    die_at({moment: folders[moment] for moment in points})
    found_new, found_orphans = [], []
    for moment in points:
        manifest = read_manifest(folders[moment], KEY, GALLERY)
        assert manifest is not None
        assert manifest.segments[:1] == before[moment].segments
        found_new.append(len(manifest.segments) == 2)
        found_orphans.append(bool(remove_orphans(folders[moment], manifest)))
        names = {segment.file.name for segment in manifest.segments}
        assert {path.name for path in folders[moment].iterdir()} == {MANIFEST_NAME, *names}
        for seed, segment in enumerate(manifest.segments):
            opened = open_segment(folders[moment] / segment.file.name, KEY, segment.file, verify=True)
            np.testing.assert_array_equal(every_row(opened), made_up_segment(seed, count=30).rows)
    # the kills were where it hurts: with the new files half there, and with the new manifest already in place
    assert (found_new[0], found_new[-1], any(found_orphans)) == (False, True, True)
    assert found_new == sorted(found_new)


def test_a_writer_killed_at_any_of_twelve_moments_leaves_one_manifest_or_the_other(tmp_path: Path) -> None:
    check_after_kills(tmp_path, 12)


@pytest.mark.soak
def test_a_writer_killed_at_every_moment_leaves_one_manifest_or_the_other(tmp_path: Path) -> None:
    check_after_kills(tmp_path, 0)
