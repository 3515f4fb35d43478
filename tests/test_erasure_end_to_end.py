"""Erasing many people while others are enrolled and searched: nothing gives back anything of them, anywhere.

`-m soak` erases 1,000 of 10,000 people; the same with fewer is part of every run.
"""

import io
import json
import logging
import shutil
import sqlite3
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service import erasure_upkeep
from service.domain import FacePolicy
from service.errors import ReceiptInvalid
from service.gallery.index_folders import folder_name
from service.gallery.manifest import MANIFEST_NAME, read_manifest
from service.gallery.segment_files import open_segment
from service.gallery.segmented_index import SegmentedIndex
from service.key_ring import KeyRing
from service.keys.sources import MasterKeySource
from service.logs import JsonFormatter
from service.receipts import verified
from service.signing import PublicKey
from service.store.key_store import SqlKeyStore
from service.store.rows import to_bytes
from tests import postgres
from tests.api.live import fake_app, fake_settings, running
from tests.fake_embedder import PACK_ID, FakeEmbedder
from tests.store.building import SQL_KINDS
from tests.test_encrypted_store import dump_of, files_of, tables_of

GALLERY = "/v1/galleries/default"
SEAL_AT = 256  # so that few people make sealed segments and files too
WAIT_S = 300
MARKS = 40  # of the erased, whose every value is looked for in every file


def subject(person: int) -> str:
    return f"P-planted-{person:06d}"


def sample(person: int, capture: int) -> bytes:
    return f"planted person {person}/{capture} {'x' * 40}".encode()


@dataclass
class Scene:
    """A service on a folder, what was erased from it, and the backup that was made before."""

    folder: Path
    url: str  # of the record
    gone: dict[str, bytes] = field(default_factory=dict)  # receipt by subject
    wrong: list[str] = field(default_factory=list)  # what a search named that was erased before it began

    @property
    def var(self) -> Path:
        return self.folder / "var"

    def settings(self) -> Any:
        values: dict[str, object] = {"keep_samples": True, "compact_within_hours": 0.001}
        if self.url:
            values["database_url"] = self.url
        for limit in ("requests", "searches", "mib"):
            values[f"limit_{limit}_per_minute"] = 0
        return fake_settings(self.var, **values)

    def enrol(self, client: httpx.Client, person: int) -> None:
        fields = {
            "subject_id": subject(person),
            "encounter_id": f"E-planted-{person:06d}",
            "site": f"planted site {person}",
            "operator_ref": f"planted operator {person}",
        }
        answer = client.post(f"{GALLERY}/enrolments", files={"sample": sample(person, 1)}, data=fields)
        assert answer.status_code == 201, answer.text

    def search(self, client: httpx.Client, person: int) -> list[str]:
        """Return who is found, and note whoever was erased before the question was asked."""
        before = set(self.gone)
        answer = client.post(f"{GALLERY}/identifications", files={"sample": sample(person, 2)})
        assert answer.status_code == 200, answer.text
        found = [each["subject_id"] for each in answer.json()["candidates"]]
        self.wrong += [each for each in found if each in before]
        return found

    def erase(self, client: httpx.Client, person: int) -> None:
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        answer = client.delete(f"{GALLERY}/subjects/{subject(person)}", headers=headers)
        assert answer.status_code == 200, answer.text
        self.gone[subject(person)] = answer.content


@pytest.fixture(params=SQL_KINDS)
def scene(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setitem(SegmentedIndex.__init__.__kwdefaults__ or {}, "seal_at", SEAL_AT)
    monkeypatch.setattr(erasure_upkeep, "LOOK_S", 0.5)
    url = "" if request.param == "sqlite" else postgres.fresh_database(is_migrated=False)
    return Scene(tmp_path, url)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that is logged meanwhile."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    loggers = [logging.getLogger(name) for name in ("service", "uvicorn")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel("DEBUG")
    yield stream
    for each, level in zip(loggers, levels, strict=True):
        each.removeHandler(handler)
        each.setLevel(level)


def test_nothing_gives_back_anything_of_the_erased(scene: Scene, log: io.StringIO) -> None:
    check_everything(scene, log, people=400, erased=40)


@pytest.mark.soak
def test_a_thousand_of_ten_thousand_leave_nothing(scene: Scene, log: io.StringIO) -> None:
    check_everything(scene, log, people=10_000, erased=1_000)


def check_everything(scene: Scene, log: io.StringIO, *, people: int, erased: int) -> None:
    chosen = [int(each) for each in np.random.default_rng(5).choice(people, erased, replace=False)]
    with running(fake_app(scene.settings())) as url, httpx.Client(base_url=url, timeout=60) as client:
        wait_until_ready(client)
        in_parallel(lambda person: scene.enrol(client, person), range(people))
        assert all(scene.search(client, person) == [subject(person)] for person in chosen[:20])
        assert subject(chosen[0]).encode() in record_bytes(scene)  # what is looked for below can be found
        back_up(scene)
        erase_under_load(scene, client, chosen, people)
        key = PublicKey.from_pem(client.get("/v1/receipts/public-key").json()["pem"])
        wait_until_compact(client, log)
        expect_gone(scene, client, chosen)
        expect_no_traces(scene, chosen, [])  # while it runs: nothing waits in a log of the database
        exported = [client.get(f"{GALLERY}/audit/export", params={"format": each}).text for each in ("jsonl", "csv")]
    check_receipts(scene, key)
    expect_no_traces(scene, chosen, [text.encode() for text in [*exported, log.getvalue()]])
    expect_clean_snapshots(scene, chosen)

    restore(scene)
    assert subject(chosen[0]).encode() in record_bytes(scene)
    with running(fake_app(scene.settings())) as url, httpx.Client(base_url=url, timeout=60) as client:
        wait_until_ready(client)
        expect_gone(scene, client, chosen)
        replayed = client.get("/metrics").text.split("biodedup_erasures_replayed_total ")[-1].split("\n")[0]
        assert float(replayed) == erased
        wait_until_compact(client, log)
    expect_no_traces(scene, chosen, [log.getvalue().encode()])
    expect_clean_snapshots(scene, chosen)


def wait_until_ready(client: httpx.Client) -> None:
    """Wait longer than for an empty service: many are erased again before anything is answered."""
    deadline = time.monotonic() + WAIT_S
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline, "the service did not become ready"
        time.sleep(0.1)


def in_parallel(act: Any, people: Any) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(act, people))


def erase_under_load(scene: Scene, client: httpx.Client, chosen: list[int], people: int) -> None:
    """Erase, while others are enrolled and everybody, also who is being erased, is searched."""
    stop = threading.Event()

    def enrol() -> None:
        newcomer = people
        while not stop.is_set():
            scene.enrol(client, newcomer)
            newcomer += 1

    def search() -> None:
        rng = np.random.default_rng(9)
        while not stop.is_set():
            scene.search(client, int(rng.choice(chosen)))

    with ThreadPoolExecutor(4) as pool:
        load = [pool.submit(enrol), pool.submit(search)]
        try:
            in_parallel(lambda person: scene.erase(client, person), chosen)
        finally:
            stop.set()
        for each in load:
            each.result(timeout=60)
    assert len(scene.gone) == len(chosen)


def expect_gone(scene: Scene, client: httpx.Client, chosen: list[int]) -> None:
    for person in chosen[:: max(1, len(chosen) // 100)]:
        assert subject(person) not in scene.search(client, person)
        assert client.get(f"{GALLERY}/subjects/{subject(person)}").status_code == 404
        assert client.get(f"{GALLERY}/encounters/E-planted-{person:06d}").status_code == 404
    assert scene.wrong == []
    for kind in ("subjects", "encounters", "enrolments", "cases"):
        after: dict[str, str] = {}
        while True:
            page = client.get(f"{GALLERY}/{kind}", params={"limit": 200, **after})
            assert not [each for each in scene.gone if each in page.text]
            if page.json()["next_after"] is None:
                break
            after = {"after": page.json()["next_after"]}


def wait_until_compact(client: httpx.Client, log: io.StringIO) -> None:
    """Wait until the upkeep has made the index compact up to the last change."""
    last_seq = client.get("/readyz").json()["galleries"][0]["last_seq"]
    deadline = time.monotonic() + WAIT_S
    while not any(
        each.get("event") == "erasure.compacted" and each["seq"] == last_seq
        for each in map(json.loads, log.getvalue().splitlines())
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def check_receipts(scene: Scene, key: PublicKey) -> None:
    for subject_id, receipt in scene.gone.items():
        assert verified(receipt, key)["subject_id"] == subject_id
    receipt = next(iter(scene.gone.values()))
    for place in range(len(receipt)):
        changed = bytearray(receipt)
        changed[place] ^= 1
        with pytest.raises(ReceiptInvalid):
            verified(bytes(changed), key)


def traces(chosen: list[int]) -> list[bytes]:
    """What must be found nowhere: ids, templates, photographs and texts."""
    found: list[bytes] = []
    for person in chosen[:MARKS]:
        embedding = to_bytes(FakeEmbedder().extract(sample(person, 1), FacePolicy.REFUSE).embedding)
        found += [subject(person).encode(), f"E-planted-{person:06d}".encode(), embedding[:24], embedding[-24:]]
        found += sealed_traces(person)
    return found


def sealed_traces(person: int) -> list[bytes]:
    """What is in no file at any time."""
    return [sample(person, 1), f"planted site {person}".encode(), f"planted operator {person}".encode()]


def record_bytes(scene: Scene) -> bytes:
    """Return the record: the files in the folder, or a dump and a copy of the tables of the server."""
    parts = [path.read_bytes() for path in scene.var.rglob("*") if path.is_file()]
    return b"".join([*parts, *([dump_of(scene.url), tables_of(scene.url)] if scene.url else [])])


def expect_no_traces(scene: Scene, chosen: list[int], others: list[bytes]) -> None:
    haystack = b"".join([record_bytes(scene), *others])
    # pg_dump writes bytes in hexadecimal digits
    assert [each for each in traces(chosen) if each in haystack or each.hex().encode() in haystack] == []
    raw = files_of(scene.url) if scene.url else []  # where dead rows lie: ids are plain in them, docs/erasure.md
    backup = [path.read_bytes() for path in (scene.folder / "backup").rglob("*") if path.is_file()]
    for person in chosen[:MARKS]:
        embedding = to_bytes(FakeEmbedder().extract(sample(person, 1), FacePolicy.REFUSE).embedding)
        for trace in (embedding[:24], embedding[-24:], *sealed_traces(person)):
            assert not any(trace in data or trace.hex().encode() in data for data in [*raw, *backup])


def expect_clean_snapshots(scene: Scene, chosen: list[int]) -> None:
    """Open every file of the index with the gallery's key, as nobody without it could."""
    with ExitStack() as held:
        keys = SqlKeyStore(f"sqlite:///{scene.var}/keys/keys.sqlite", may_create=False)
        held.callback(keys.close)
        ring = KeyRing(keys, MasterKeySource().opener(scene.var)(False))
        held.callback(ring.close)
        key = ring.gallery_key("default")
    folder = scene.var / "index" / folder_name("default", PACK_ID)
    manifest = read_manifest(folder, key, "default")
    assert manifest is not None
    assert manifest.segments
    assert {path.name for path in folder.iterdir()} == {MANIFEST_NAME, *(each.file.name for each in manifest.segments)}
    kept: set[bytes] = set()
    for segment in manifest.segments:
        assert segment.erased == ()
        opened = open_segment(folder / segment.file.name, key, segment.file)
        rows = opened.rows(np.arange(len(opened), dtype=np.int64))
        kept |= {row.tobytes() for row in np.asarray(rows, "<f4")}
    gone = [to_bytes(FakeEmbedder().extract(sample(each, 1), FacePolicy.REFUSE).embedding) for each in chosen]
    assert len(kept) >= SEAL_AT // 2
    assert [each for each in gone if each in kept] == []


def back_up(scene: Scene) -> None:
    """Copy the record as it is, and the index beside it, as a careless backup would."""
    folder = scene.folder / "backup"
    folder.mkdir()
    if scene.url:
        (folder / "dump.sql").write_bytes(dump_of(scene.url))
        return
    record, copy = scene.var / "biodedup.sqlite", folder / "biodedup.sqlite"
    with closing(sqlite3.connect(record)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def restore(scene: Scene) -> None:
    if not scene.url:
        for path in scene.var.glob("biodedup.sqlite-*"):
            path.unlink()
        shutil.copy(scene.folder / "backup" / "biodedup.sqlite", scene.var)
        return
    psql = [str(postgres.programs() / "psql"), "-q", "-v", "ON_ERROR_STOP=1", "-d", scene.url]
    empty = [*psql, "-c", "DROP SCHEMA public CASCADE; CREATE SCHEMA public"]
    for command in (empty, [*psql, "-f", str(scene.folder / "backup" / "dump.sql")]):
        subprocess.run(command, check=True, timeout=300, capture_output=True)
