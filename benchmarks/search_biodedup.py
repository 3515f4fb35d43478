"""biodedup's index as the service runs it: sealed segments encrypted on disk, its threads with one of BLAS each."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.search_gallery import FloatArray, GalleryFile
from benchmarks.search_methods import NOTHING, Blocks, Method
from benchmarks.search_truth import Found
from service.domain import Hit
from service.gallery.segmented_index import SegmentedIndex
from service.gallery.snapshots import SnapshotFolder

DEFAULT_BLAS_THRESHOLD = faiss.cvar.distance_compute_blas_threshold
CODE_BYTES = {128: 32, 512: 48}
"""By dimension: what the scan of the codes reads of each template (service/gallery/coarse_codes.py)."""
_NAME = "benchmark"  # of the gallery, the timeline and the model


class IndexFolder:
    """Where an index keeps its segments, and what opens it: the same arguments as in service/app.py."""

    def __init__(self, folder: Path, dimension: int, threads: int) -> None:
        self._folder, self._dimension, self._threads = folder / "biodedup", dimension, threads
        self._key = secrets.token_bytes(32)

    def open(self, last_seq: int = 0) -> SegmentedIndex:
        """Return the index of the files, an empty one at first; `last_seq` is the last change made to it."""
        snapshots = SnapshotFolder(
            self._folder,
            self._key,
            gallery_id=_NAME,
            pack_id="pack",
            timeline_id=_NAME,
            model_id=_NAME,
            dimension=self._dimension,
            on_damage=_stop,
        )
        return SegmentedIndex(self._dimension, threads=self._threads, snapshots=snapshots, last_seq=last_seq)

    def disk_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())


def _stop(reason: str) -> None:
    raise RuntimeError(f"the benchmark's own files were set aside: {reason}")


@contextmanager
def as_served() -> Iterator[None]:
    """Leave BLAS one thread, as the service does: the index shares the work out itself."""
    faiss.cvar.distance_compute_blas_threshold = DEFAULT_BLAS_THRESHOLD
    with threadpool_limits(limits=1):
        yield


def fill(index: SegmentedIndex, blocks: Blocks) -> None:
    """Add blocks and wait until all is sealed, merged and written."""
    for start, block in blocks:
        index.add(index.high_water_mark + 1, range(start, start + len(block)), block)
    index.settle()


class Biodedup(Method):
    """The service's own index, through its port, with its files. Building ends when they are written."""

    name, max_size, is_core = "biodedup", None, True

    def __init__(self, size: int, dimension: int, threads: int, folder: Path) -> None:
        super().__init__(size, dimension, threads, folder)
        self._files = IndexFolder(folder, dimension, threads)
        self._index = self._files.open()

    def use(self, setting: int | None) -> None:  # noqa: ARG002  (the others need it)
        # not as the others left it
        faiss.cvar.distance_compute_blas_threshold = DEFAULT_BLAS_THRESHOLD
        threadpool_limits(limits=1)

    def build(self, blocks: Blocks) -> None:
        with as_served():
            fill(self._index, blocks)

    def start_again(self, gallery: GalleryFile) -> None:
        """Make a second index of the files, and add what is in none of them, as a start does from the record."""
        with as_served():
            index = self._files.open(last_seq=self._index.high_water_mark)
            sealed = len(index)
            for seq, (start, block) in enumerate(gallery.blocks(first=sealed), start=index.high_water_mark + 1):
                index.add(seq, range(start, start + len(block)), block)
        if len(index) != len(self._index):
            raise RuntimeError(f"{len(index)} templates after the start, {len(self._index)} before")

    def search_batch(self, probes: FloatArray, threshold: float) -> list[Found]:
        return [_found(hits) for hits in self._index.search(probes, threshold)]

    def disk_bytes(self) -> int | None:
        return self._files.disk_bytes()

    @property
    def miss_bound(self) -> float | None:
        return self._index.miss_bound


def _found(hits: list[Hit]) -> Found:
    if not hits:
        return NOTHING
    return Found(
        np.array([hit.reference_id for hit in hits], np.int64), np.array([hit.score for hit in hits], np.float32)
    )
