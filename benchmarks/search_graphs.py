"""hnswlib and usearch, for the benchmark of 1:N search."""

from typing import Any

import numpy as np

from benchmarks.search_gallery import FloatArray
from benchmarks.search_methods import CANDIDATES, GRAPH_LIMIT, Blocks, Method, at_least, written
from benchmarks.search_truth import Found


class Hnswlib(Method):
    """M 32, ef_construction 200; the settings are ef."""

    name, max_size, settings = "hnswlib", GRAPH_LIMIT, (100, 400)

    def build(self, blocks: Blocks) -> None:
        import hnswlib  # noqa: PLC0415  (not everyone who measures has it)

        self._index = hnswlib.Index(space="ip", dim=self.dimension)
        self._index.init_index(self.size, ef_construction=200, M=32)
        self._index.set_num_threads(self.threads)
        for start, block in blocks:
            self._index.add_items(block, np.arange(start, start + len(block)))

    def use(self, setting: int | None) -> None:
        self._index.set_ef(setting)
        self._index.set_num_threads(self.threads)

    def search_batch(self, probes: FloatArray, threshold: float) -> list[Found]:
        ids, distances = self._index.knn_query(probes, min(CANDIDATES, self.size))
        return at_least(ids.astype(np.int64), 1 - distances, threshold)

    def disk_bytes(self) -> int | None:
        return written(self.folder, self._index.save_index)


class UsearchExact(Method):
    """usearch's exact search over one array."""

    name = "usearch_exact"

    def build(self, blocks: Blocks) -> None:
        import usearch.index  # noqa: F401, PLC0415  (not everyone who measures has it)

        self._gallery = np.empty((self.size, self.dimension), np.float32)
        for start, block in blocks:
            self._gallery[start : start + len(block)] = block

    def search_batch(self, probes: FloatArray, threshold: float) -> list[Found]:
        from usearch.compiled import MetricKind  # noqa: PLC0415  (not everyone who measures has it)
        from usearch.index import search  # noqa: PLC0415  (not everyone who measures has it)

        count = min(CANDIDATES, self.size)
        found: Any = search(self._gallery, probes, count, MetricKind.IP, exact=True, threads=self.threads)
        return _of_usearch(found, len(probes), threshold)


class UsearchGraph(Method):
    """Connectivity 32, expansion 200 when adding; the settings are the expansion when searching."""

    name, max_size, settings = "usearch", GRAPH_LIMIT, (100, 400)

    def build(self, blocks: Blocks) -> None:
        from usearch.index import Index  # noqa: PLC0415  (not everyone who measures has it)

        self._index: Any = Index(ndim=self.dimension, metric="ip", dtype="f32", connectivity=32, expansion_add=200)
        for start, block in blocks:
            self._index.add(np.arange(start, start + len(block)), block, threads=self.threads)

    def use(self, setting: int | None) -> None:
        self._index.expansion_search = setting

    def search_batch(self, probes: FloatArray, threshold: float) -> list[Found]:
        found: Any = self._index.search(probes, CANDIDATES, threads=self.threads)
        return _of_usearch(found, len(probes), threshold)

    def disk_bytes(self) -> int | None:
        return written(self.folder, self._index.save)


def _of_usearch(found: Any, count: int, threshold: float) -> list[Found]:
    """One probe comes back as one row, several as many; its distance is 1 - score."""
    keys = np.asarray(found.keys).astype(np.int64).reshape(count, -1)
    return at_least(keys, 1 - np.asarray(found.distances).reshape(count, -1), threshold)
