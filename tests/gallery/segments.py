"""Made-up segments for the tests of the index files, and what becomes of them on the disk."""

from pathlib import Path

import numpy as np
import pytest

from service.domain import Embeddings
from service.gallery.damage import Damage, SnapshotDamaged
from service.gallery.segment_files import OpenedSegment, Segment, SegmentFile, open_segment, write_segment
from service.gallery.segment_layout import HEADER_BYTES, Layout

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))


def made_up_segment(seed: int, count: int = 7, dimension: int = 8, codes_bytes: int = 100) -> Segment:
    rng = np.random.default_rng(seed)
    return Segment(
        ids=rng.integers(1, 2**40, count),
        codes=rng.integers(0, 256, codes_bytes, np.uint8),
        rows=rng.standard_normal((count, dimension), np.float32),
        metadata={"seed": seed},
    )


def written(folder: Path, segment: Segment) -> tuple[Path, SegmentFile]:
    file = write_segment(folder, KEY, segment)
    return folder / file.name, file


def every_row(opened: OpenedSegment) -> Embeddings:
    return opened.rows(np.arange(len(opened)))


def layout_of(path: Path) -> Layout:
    return Layout.unpack(path.read_bytes()[:HEADER_BYTES])


def read_everything(path: Path, file: SegmentFile, key: bytes = KEY) -> OpenedSegment:
    opened = open_segment(path, key, file)
    every_row(opened)
    return opened


def damage_of(path: Path, file: SegmentFile, key: bytes = KEY) -> Damage:
    with pytest.raises(SnapshotDamaged) as caught:
        read_everything(path, file, key)
    return caught.value.reason
