"""How a matrix product and faiss search a gallery, each with its best documented settings."""

import itertools
import os
import resource
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.search_gallery import FloatArray, GalleryFile
from benchmarks.search_truth import Found

Blocks = Iterable[tuple[int, FloatArray]]
NOTHING = Found(np.empty(0, np.int64), np.empty(0, np.float32))

MILLION = 1_000_000
GRAPH_LIMIT = 100_000
CANDIDATES = 100  # asked of what only knows a number of candidates: 20 times what the lower threshold lets through
DEFAULT_BLAS_THRESHOLD = faiss.cvar.distance_compute_blas_threshold


class Method(ABC):
    """One way to search: built from blocks, then asked one probe at a time and in batches.

    `settings` are the values to measure on one and the same index; `use` chooses one before each measurement.
    """

    name = ""
    max_size: int | None = MILLION  # larger galleries are skipped
    settings: tuple[int | None, ...] = (None,)
    is_core = False  # measured in turn with the other core methods, and always with every probe

    def __init__(self, size: int, dimension: int, threads: int, folder: Path) -> None:
        self.size, self.dimension, self.threads, self.folder = size, dimension, threads, folder

    def row_name(self, setting: int | None) -> str:
        return self.name if setting is None else f"{self.name}_{setting}"

    @abstractmethod
    def build(self, blocks: Blocks) -> None: ...

    def use(self, setting: int | None) -> None:  # noqa: ARG002  (only some methods have settings)
        """Prepare for searches with this setting, and for this number of threads."""
        return

    def search_one(self, probe: FloatArray, threshold: float) -> Found:
        return self.search_batch(probe[None], threshold)[0]

    @abstractmethod
    def search_batch(self, probes: FloatArray, threshold: float) -> list[Found]: ...

    def ram_bytes(self) -> int:
        """Return the anonymous memory of the process that holds the gallery."""
        return rss_anon(os.getpid())

    def disk_bytes(self) -> int | None:
        """Return what the gallery takes on disk; None where it is not kept there."""
        return None

    def start_again(self, gallery: GalleryFile) -> None:
        """Make the built method once more from what it keeps on disk."""
        raise NotImplementedError  # only asked of methods that keep files

    @property
    def miss_bound(self) -> float | None:
        """What the method itself states about the share it may have missed."""
        return None

    def close(self) -> None:
        return


def rss_anon(pid: int) -> int:
    """Return the bytes of a process that are no files' pages."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def at_least(ids: Any, scores: Any, threshold: float) -> list[Found]:
    """Return the rows of a search for the best k without what is below the threshold or missing (-1)."""
    kept = (np.asarray(scores) >= threshold) & (np.asarray(ids) >= 0)
    return [
        Found(np.asarray(row_ids)[row].astype(np.int64), np.asarray(row_scores)[row].astype(np.float32))
        for row_ids, row_scores, row in zip(ids, scores, kept, strict=True)
    ]


class Gemm(Method):
    """Plain float32 matrix multiplication; the threshold is applied to the product."""

    name, is_core = "gemm", True
    _rows = 16_384  # a product of 256 probes then stays small: measured faster than 2,048 or 65,536

    def build(self, blocks: Blocks) -> None:
        self._gallery = np.empty((self.size, self.dimension), np.float32)
        for start, block in blocks:
            self._gallery[start : start + len(block)] = block

    def search_one(self, probe: FloatArray, threshold: float) -> Found:
        scores = self._gallery @ probe
        ids = np.flatnonzero(scores >= threshold)
        return Found(ids, scores[ids])

    def search_batch(self, probes: FloatArray, threshold: float) -> list[Found]:
        ids, numbers, values = [], [], []
        for start in range(0, self.size, self._rows):
            scores = self._gallery[start : start + self._rows] @ probes.T
            rows, columns = np.divmod(np.flatnonzero(scores.ravel() >= threshold), len(probes))
            ids.append(rows + start)
            numbers.append(columns)
            values.append(scores[rows, columns])
        all_ids, all_numbers, all_values = (np.concatenate(parts) for parts in (ids, numbers, values))
        return [Found(all_ids[kept], all_values[kept]) for kept in (all_numbers == row for row in range(len(probes)))]


class _Faiss(Method):
    """What every index of faiss shares: the threads, and its size when written to a file."""

    _index: Any

    def use(self, setting: int | None) -> None:  # noqa: ARG002  (the others need it)
        faiss.omp_set_num_threads(self.threads)

    def build(self, blocks: Blocks) -> None:
        faiss.omp_set_num_threads(self.threads)
        for _, block in blocks:
            self._index.add(block)

    def search_batch(self, probes: FloatArray, threshold: float) -> list[Found]:
        scores, ids = self._index.search(probes, CANDIDATES)
        return at_least(ids, scores, threshold)

    def _in_range(self, probes: FloatArray, threshold: float) -> list[Found]:
        limits, scores, ids = self._index.range_search(probes, threshold)  # strictly above; thresholds lie between
        return [Found(ids[start:end], scores[start:end]) for start, end in itertools.pairwise(limits)]

    def disk_bytes(self) -> int | None:
        return written(self.folder, lambda path: faiss.write_index(self._index, path))


class Flat(_Faiss):
    """`IndexFlatIP` by threshold. Its settings are those of faiss.cvar.distance_compute_blas_threshold."""

    name, is_core = "flat", True
    settings: tuple[int | None, ...] = (1, DEFAULT_BLAS_THRESHOLD)

    def row_name(self, setting: int | None) -> str:
        return self.name if setting == 1 else f"{self.name}_default"

    def build(self, blocks: Blocks) -> None:
        self._index = faiss.IndexFlatIP(self.dimension)
        super().build(blocks)

    def use(self, setting: int | None) -> None:
        super().use(setting)
        faiss.cvar.distance_compute_blas_threshold = setting or 1

    def search_batch(self, probes: FloatArray, threshold: float) -> list[Found]:
        return self._in_range(probes, threshold)

    def disk_bytes(self) -> int | None:
        return self.size * self.dimension * 4  # as written, without writing gigabytes


class FaissHnsw(_Faiss):
    """M 32; the settings are efSearch."""

    name, max_size, settings = "faiss_hnsw", GRAPH_LIMIT, (100, 400)

    def build(self, blocks: Blocks) -> None:
        self._index = faiss.IndexHNSWFlat(self.dimension, 32, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = 200
        super().build(blocks)

    def use(self, setting: int | None) -> None:
        super().use(setting)
        self._index.hnsw.efSearch = setting


class FaissIvf(_Faiss):
    """4 * sqrt(n) lists as faiss's guidelines say; the settings are nprobe."""

    name, settings = "faiss_ivf", (64, 256)

    def build(self, blocks: Blocks) -> None:
        lists = max(1, int(4 * self.size**0.5))
        self._index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(self.dimension), self.dimension, lists, faiss.METRIC_INNER_PRODUCT
        )
        self._index.cp.max_points_per_centroid = 50  # faiss wants 39 at least
        faiss.omp_set_num_threads(self.threads)
        first = list(_take(blocks := iter(blocks), 50 * lists))
        self._index.train(np.concatenate([block for _, block in first]))
        super().build(first)
        super().build(blocks)

    def use(self, setting: int | None) -> None:
        super().use(setting)
        faiss.cvar.distance_compute_blas_threshold = 1
        self._index.nprobe = setting

    def search_batch(self, probes: FloatArray, threshold: float) -> list[Found]:
        return self._in_range(probes, threshold)


def _take(blocks: Iterator[tuple[int, FloatArray]], rows: int) -> Iterator[tuple[int, FloatArray]]:
    """Yield whole blocks until there are so many rows; the iterator keeps the rest."""
    for start, block in blocks:
        yield start, block
        if start + len(block) >= rows:
            return


def written(folder: Path, write: Callable[[str], object]) -> int:
    """Return the size of what `write` writes to the path it is given."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "index"
        write(str(path))
        return path.stat().st_size
