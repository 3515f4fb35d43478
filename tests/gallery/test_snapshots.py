"""An index that was saved comes back as it was, with the changes since replayed; one that was damaged is not used."""

import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from service.domain import Embeddings
from service.errors import IndexUnavailable
from service.gallery.basis import Basis
from service.gallery.fine_codes import FineCodes
from service.gallery.manifest import MANIFEST_NAME
from service.gallery.rows import Ids
from service.gallery.sealed_segment import SealedSegment
from service.gallery.segmented_index import SegmentedIndex
from service.gallery.snapshots import SnapshotFolder
from service.gallery.upkeep import sealed_of

DIMENSION, SEAL_AT = 32, 1000
KEY = bytes(range(32))
Change = tuple[list[int], Embeddings | None]
"""Reference ids with their rows, or to be removed."""


class Record:
    """A change log, and indexes that follow it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rng = np.random.default_rng(5)
        self.changes: list[Change] = []
        self.damages: list[str] = []
        self.rows: dict[int, Embeddings] = {}

    def add(self, count: int) -> None:
        rows = self.rng.standard_normal((count, DIMENSION), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        first = max(self.rows, default=-1) + 1
        ids = list(range(first, first + count))
        self.rows |= dict(zip(ids, rows, strict=True))
        self.changes.append((ids, rows))

    def remove(self, ids: list[int]) -> None:
        self.changes.append((ids, None))
        for each in ids:
            self.rows[each] = np.zeros(DIMENSION, np.float32)

    def open(self, key: bytes = KEY, timeline_id: str = "t1", model_id: str = "m1") -> SegmentedIndex:
        snapshots = SnapshotFolder(
            self.folder,
            key,
            gallery_id="camp",
            pack_id="pack",
            timeline_id=timeline_id,
            model_id=model_id,
            dimension=DIMENSION,
            on_damage=self.damages.append,
        )
        return SegmentedIndex(
            DIMENSION, threads=1, seal_at=SEAL_AT, max_segment=4000, snapshots=snapshots, last_seq=len(self.changes)
        )

    def follow(self, index: SegmentedIndex) -> SegmentedIndex:
        while index.high_water_mark < len(self.changes):
            seq = index.high_water_mark + 1
            ids, rows = self.changes[seq - 1]
            if rows is None:
                index.remove(seq, ids)
            else:
                index.add(seq, ids, rows)
        index.settle()
        return index

    def check(self, index: SegmentedIndex) -> None:
        live = {each: row for each, row in self.rows.items() if row.any()}
        assert len(index) == len(live)
        for each in self.rng.choice(list(live), 30):
            assert int(each) in {hit.reference_id for hit in index.search(live[int(each)][np.newaxis], 0.999)[0]}
        gone = [each for each in self.rows if each not in live]
        for each in gone[:30]:
            assert each not in {hit.reference_id for hit in index.search(self.original(each)[np.newaxis], 0.5)[0]}

    def original(self, reference_id: int) -> Embeddings:
        return next(
            rows[ids.index(reference_id)] for ids, rows in self.changes if rows is not None and reference_id in ids
        )

    @property
    def gallery_folder(self) -> Path:
        return next(path for path in self.folder.iterdir() if path.is_dir())

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.gallery_folder.glob(pattern))


@pytest.fixture
def record(tmp_path: Path) -> Record:
    record = Record(tmp_path / "index")
    for _ in range(9):
        record.add(500)
    record.remove(list(range(40, 60)))
    record.follow(record.open())
    return record


def test_a_start_loads_the_segments_and_replays_only_what_came_since(record: Record) -> None:
    index = record.open()
    assert 0 < index.high_water_mark < len(record.changes)
    assert sum(len(each) for each in index._segments if isinstance(each, SealedSegment)) >= 3980
    record.check(record.follow(index))
    assert record.damages == []


def test_all_segments_are_coded_alike_after_a_start_too(record: Record) -> None:
    index = record.open()
    for _ in range(8):
        record.add(SEAL_AT)
        record.follow(index)
        index.settle()
    index.close()
    again = record.open()
    before, after = ([each.codes.basis for each in sealed_of(one._segments)] for one in (index, again))
    assert len(set(before)) == len(set(after)) < len(before) == len(after)
    record.check(again)


def test_what_was_removed_after_the_snapshot_does_not_come_back(record: Record) -> None:
    folder = record.gallery_folder
    old = shutil.copytree(folder, record.folder.parent / "old")
    record.remove(list(range(100, 130)))
    for _ in range(4):
        record.add(500)
    record.follow(record.open())
    shutil.rmtree(folder)
    old.rename(folder)
    record.check(record.follow(record.open()))


def test_a_template_that_came_back_is_found_once(record: Record) -> None:
    row = record.original(45)
    record.changes.append(([45], row[np.newaxis]))
    record.rows[45] = row
    record.follow(record.open())
    index = record.follow(record.open())
    assert [hit.reference_id for hit in index.search(row[np.newaxis], 0.999)[0]] == [45]
    record.check(index)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda record: flip(record.files("segment-*.sealed")[0]), "authentication"),
        (lambda record: flip(record.gallery_folder / MANIFEST_NAME), "authentication"),
        (lambda record: record.files("segment-*.sealed")[0].unlink(), "missing"),
        (lambda record: (record.gallery_folder / MANIFEST_NAME).write_bytes(b"none"), "foreign_format"),
    ],
)
def test_damaged_files_are_set_aside_and_the_index_is_filled_from_the_record(
    record: Record, harm: Callable[[Record], None], reason: str
) -> None:
    harm(record)
    index = record.open()
    assert (index.high_water_mark, len(index), record.damages) == (0, 0, [reason])
    assert record.files("*.damaged-1")
    record.check(record.follow(index))
    assert record.open().high_water_mark > 0


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"timeline_id": "t2"}, "other_timeline"),
        ({"model_id": "m2"}, "other_model"),
        ({"key": bytes(32)}, "authentication"),
    ],
)
def test_files_of_another_history_model_or_key_are_not_used(record: Record, other: dict[str, str], reason: str) -> None:
    index = record.open(**other)  # type: ignore[arg-type]  # by name
    assert (index.high_water_mark, record.damages) == (0, [reason])


def test_files_ahead_of_the_record_are_not_used(record: Record) -> None:
    del record.changes[2:]
    assert record.open().high_water_mark == 0
    assert record.damages == ["ahead_of_record"]


def test_a_file_that_was_written_wrong_is_set_aside(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(record.gallery_folder)
    whole = FineCodes.stored
    monkeypatch.setattr(FineCodes, "stored", lambda codes: whole(codes)[: -DIMENSION // 2])  # one template has none
    index = record.follow(record.open())
    index.settle()
    index.close()
    monkeypatch.undo()
    record.check(record.follow(record.open()))
    assert record.damages == ["contents"]


def test_a_discarded_index_leaves_nothing_to_load_and_writes_no_more(record: Record) -> None:
    index = record.follow(record.open())
    index.discard()
    for _ in range(4):
        record.add(500)
    record.follow(index)
    record.check(index)
    assert record.open().high_water_mark == 0
    assert record.damages == ["differs_from_record"]


def test_a_closed_index_writes_no_more_and_its_files_are_used_again(record: Record) -> None:
    index = record.follow(record.open())
    before = record.files("*")
    sealed = len([each for each in index.parts() if each.state == "sealed"])
    index.close()
    for _ in range(4):
        record.add(500)
    record.follow(index)
    record.check(index)
    assert len([each for each in index.parts() if each.state == "sealed"]) == sealed
    assert record.files("*") == before
    del index
    again = record.open()
    assert again.high_water_mark > 0
    assert record.damages == []
    record.check(record.follow(again))


def test_what_is_being_sealed_when_an_index_is_closed_is_not_written(record: Record) -> None:
    index = record.follow(record.open())
    make, sealing, go_on = index._make_sealed, threading.Event(), threading.Event()

    def slow(ids: Ids, rows: Embeddings, basis: Basis | None) -> SealedSegment:
        made = make(ids, rows, basis)
        sealing.set()
        assert go_on.wait(30)
        return made

    def compact() -> None:
        with suppress(IndexUnavailable):
            index.compact()

    index._make_sealed = slow
    before = record.files("*")
    record.remove([90])
    index.remove(len(record.changes), [90])
    compacting = threading.Thread(target=compact)
    compacting.start()
    assert sealing.wait(30)
    index.close()
    go_on.set()
    compacting.join(30)
    index.settle()
    assert record.files("*") == before


def test_files_that_are_made_anew_on_demand_are_no_damage(record: Record, caplog: pytest.LogCaptureFixture) -> None:
    record.follow(record.open()).discard("rebuild")
    assert record.open().high_water_mark == 0
    assert record.damages == []
    assert "index.files_set_aside" not in caplog.text


def test_nothing_on_disk_is_plain(record: Record) -> None:
    written = b"".join(path.read_bytes() for path in record.gallery_folder.iterdir())
    assert len(written) > 4000 * DIMENSION * 4
    ids, rows = record.changes[0]
    assert rows is not None
    assert rows[100].tobytes() not in written
    assert np.array(ids[100:104], np.int64).tobytes() not in written
    assert b"camp" not in written


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)


def holds(index: SegmentedIndex, reference_id: int, row: Embeddings) -> bool:
    """Whether the row or the code of a template is still in memory."""
    sealed = [each for each in index._segments if isinstance(each, SealedSegment)]
    return any(
        reference_id in each.ids
        or float((each.rows.take(np.arange(each.used)) @ row).max()) > 0.999
        or len(each.codes) != len(each.ids)
        for each in sealed
    )


def test_compaction_leaves_nothing_of_what_was_erased_in_memory_or_on_disk(record: Record) -> None:
    index = record.follow(record.open())
    index.compact()
    index.settle()  # a merge may go on
    before = {path.name for path in record.files("segment-*.sealed")}
    record.remove([77])
    record.follow(index)
    [part] = [each for each in index.parts() if each.state == "sealed" and each.removed]
    assert holds(index, 77, record.original(77))
    assert part.removed == 1
    assert {path.name for path in record.files("segment-*.sealed")} == before
    index.compact()
    index.settle()
    assert not holds(index, 77, record.original(77))
    files = {path.name for path in record.files("*")}
    assert part.file_name in before
    assert part.file_name not in files
    assert files == {MANIFEST_NAME} | {each.file_name for each in index.parts() if each.state == "sealed"}
    record.check(record.follow(record.open()))


def test_compaction_deletes_what_was_set_aside(record: Record) -> None:
    flip(record.files("segment-*.sealed")[0])
    index = record.follow(record.open())
    assert len(record.files("*.damaged-*")) == 2
    index.compact()
    assert record.files("*.damaged-*") == []


def test_a_template_erased_before_the_start_is_compacted_away(record: Record) -> None:
    index = record.follow(record.open())
    record.remove([78])
    record.follow(index)
    index._write_snapshot()
    index = record.follow(record.open())
    assert holds(index, 78, record.original(78))
    index.compact()
    assert not holds(index, 78, record.original(78))


def test_a_template_erased_while_its_segment_is_made_anew_is_compacted_away(record: Record) -> None:
    index = record.follow(record.open())
    record.remove([79])
    record.follow(index)
    make = index._make_sealed

    def slow(ids: Ids, rows: Embeddings, basis: Basis | None) -> SealedSegment:
        made = make(ids, rows, basis)
        if 80 in ids:
            record.remove([80])
            index.remove(len(record.changes), [80])
        return made

    index._make_sealed = slow
    index.compact()
    index.settle()
    index._make_sealed = make
    assert holds(index, 80, record.original(80))
    index.compact()
    assert not holds(index, 80, record.original(80))
    record.check(index)


def test_a_compaction_that_fails_says_so_and_leaves_every_answer_right(record: Record) -> None:
    index = record.follow(record.open())
    record.remove([81])
    record.follow(index)

    def broken(ids: Ids, rows: Embeddings, basis: Basis | None) -> SealedSegment:
        raise MemoryError

    index._make_sealed = broken
    with pytest.raises(IndexUnavailable):
        index.compact()
    record.check(index)


def test_the_parts_tell_what_is_in_memory_and_on_disk(record: Record) -> None:
    index = record.follow(record.open())
    sealed = [part for part in index.parts() if part.state == "sealed"]
    assert sum(part.templates for part in index.parts()) == len(index)
    for part in sealed:
        assert part.file_name is not None
        assert part.disk_bytes == (record.gallery_folder / part.file_name).stat().st_size
        # its codes, but not its templates, which take four bytes a dimension
        assert DIMENSION // 2 < part.ram_bytes / (part.templates + part.removed) < 3 * DIMENSION
    [filling] = [part for part in index.parts() if part.state == "open"]
    assert (filling.disk_bytes, filling.file_name) == (0, None)


def damage_rows(path: Path, count: int) -> None:
    """Change the first byte of each row."""
    stride = DIMENSION * 4 + 16
    data = bytearray(path.read_bytes())
    data[-count * stride :: stride] = bytes(count)
    path.write_bytes(data)


def damaged_index(folder: Path) -> tuple[Record, SegmentedIndex]:
    """Return an open index of one segment whose rows on disk were changed."""
    record = Record(folder / "index")
    for _ in range(2):
        record.add(500)
    index = record.follow(record.open())
    [path] = record.files("segment-*.sealed")
    damage_rows(path, 1000)
    return record, index


def test_a_file_that_is_damaged_while_it_is_searched_is_not_used_again(tmp_path: Path) -> None:
    record, index = damaged_index(tmp_path)
    with pytest.raises(IndexUnavailable):
        index.search(record.original(17)[np.newaxis], 0.9)
    assert record.damages == ["authentication"]
    record.check(record.follow(record.open()))


@pytest.mark.parametrize("noticed_by", ["compaction", "verification", "audit"])
def test_damage_that_no_search_meets_ends_the_index_too(tmp_path: Path, noticed_by: str) -> None:
    record, index = damaged_index(tmp_path)
    nobody = -record.original(3)[np.newaxis]
    index._auditor._next_s = np.inf
    assert index.search(nobody, 0.95) == [[]]  # which reads no row
    if noticed_by == "compaction":
        record.remove([7])
        index.remove(len(record.changes), [7])
        with pytest.raises(IndexUnavailable):
            index.compact()
    elif noticed_by == "verification":
        with pytest.raises(IndexUnavailable):
            index.templates(-1, 10**6)
    else:
        index._auditor._next_s = 0.0
        with suppress(IndexUnavailable):
            index.search(nobody, 0.95)
        for thread in threading.enumerate():
            if thread.name == "audit":
                thread.join()
    index.settle()
    assert record.damages == ["authentication"]
    with pytest.raises(IndexUnavailable):  # so that whoever keeps it has it filled anew
        index.search(nobody, 0.95)
    index.add(index.high_water_mark + 1, range(10_000, 11_500), np.repeat(nobody, 1500, axis=0))
    assert index._caretaker is None  # nothing is sealed any more
    record.check(record.follow(record.open()))
