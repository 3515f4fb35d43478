"""The manifest of a gallery's index: which segments belong to it, and up to which change; one encrypted file."""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from service.durable_files import PART_SUFFIX, durable_file, sync_folder, writing_errors
from service.gallery.damage import Damage, SnapshotDamaged, reading_errors
from service.gallery.file_cipher import seal_once, unseal_once
from service.gallery.segment_files import SEGMENT_NAME, SegmentFile

MANIFEST_NAME = "manifest.sealed"
_MAGIC = b"BIODEDUPMF"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class ManifestSegment:
    """A sealed segment and its tombstones: the references erased from it since it was sealed."""

    file: SegmentFile
    erased: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the index of one gallery consists of, after change `high_water_mark` of the record's timeline."""

    FORMAT_VERSION: ClassVar[int] = 1

    gallery_id: str
    timeline_id: str
    model_id: str
    dimension: int
    high_water_mark: int
    segments: tuple[ManifestSegment, ...]
    format_version: int = FORMAT_VERSION


def write_manifest(folder: Path, key: bytes, manifest: Manifest) -> None:
    """Replace the manifest in `folder`; a crash leaves the old one or the new one.

    Write it after every segment it names: until then the old manifest and the old segments are what counts.

    Raises:
        VarUnusable: the folder cannot be written, or is full.
    """
    start = _start(manifest.format_version)
    sealed = seal_once(key, json.dumps(dataclasses.asdict(manifest)).encode(), start)
    with durable_file(folder / MANIFEST_NAME) as file:
        file.write(start + sealed)


def read_manifest(folder: Path, key: bytes, gallery_id: str) -> Manifest | None:
    """Return the manifest in `folder`, None when there is none.

    Whether its timeline, model and high-water mark are still those of the record is for the caller to compare.

    Raises:
        SnapshotDamaged: it is not, byte for byte, what was written for this gallery under this key.
    """
    with reading_errors("the manifest"):
        try:
            data = (folder / MANIFEST_NAME).read_bytes()
        except FileNotFoundError:
            return None
    start = _start(Manifest.FORMAT_VERSION)
    if not data.startswith(start):
        raise SnapshotDamaged(Damage.FOREIGN_FORMAT, "the manifest is of another version, or is none")
    manifest = _parse(unseal_once(key, data[len(start) :], start))
    if manifest.gallery_id != gallery_id:
        raise SnapshotDamaged(Damage.FOREIGN_GALLERY, "the manifest is that of another gallery")
    return manifest


def remove_orphans(folder: Path, manifest: Manifest | None) -> list[str]:
    """Delete the segments that no manifest names and every temporary file; return their names, sorted.

    A crash leaves them. Set-aside files stay. Not while a segment or a manifest is being written: it looks like one.

    Raises:
        VarUnusable: the folder cannot be written.
    """
    named = {segment.file.name for segment in manifest.segments} if manifest else set()
    if not folder.is_dir():
        return []
    with writing_errors():
        orphans = sorted(
            path.name
            for path in folder.iterdir()
            if path.suffix == PART_SUFFIX or (SEGMENT_NAME.fullmatch(path.name) and path.name not in named)
        )
        for name in orphans:
            (folder / name).unlink()
        if orphans:
            sync_folder(folder)
    return orphans


def _start(version: int) -> bytes:
    return _MAGIC + version.to_bytes(2, "big")


def _parse(data: bytes) -> Manifest:
    try:
        fields = json.loads(data)
        manifest = Manifest(**{**fields, "segments": tuple(_parse_segment(entry) for entry in fields["segments"])})
        _check(manifest)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise SnapshotDamaged(Damage.CONTENTS, "the manifest does not have the form of one") from error
    return manifest


def _parse_segment(entry: Mapping[str, Any]) -> ManifestSegment:
    return ManifestSegment(SegmentFile(**entry["file"]), tuple(entry["erased"]))


def _check(manifest: Manifest) -> None:
    """Raise ValueError for a value that is no manifest's: it is all trusted from here on, the names as paths too."""
    numbers = [manifest.dimension, manifest.high_water_mark]
    files = [segment.file for segment in manifest.segments]
    numbers += [number for file in files for number in (file.byte_length, file.count)]
    erased = [number for segment in manifest.segments for number in segment.erased]
    texts = [manifest.gallery_id, manifest.timeline_id, manifest.model_id]
    good = (
        manifest.format_version == Manifest.FORMAT_VERSION
        and all(type(text) is str for text in texts)
        and all(type(number) is int and number >= 0 for number in numbers)
        and all(type(number) is int and number in _INT64 for number in erased)
        and all(SEGMENT_NAME.fullmatch(file.name) and _SHA256.fullmatch(file.sha256) for file in files)
        and len({file.name for file in files}) == len(files)
    )
    if not good:
        raise ValueError("a value is out of range")
