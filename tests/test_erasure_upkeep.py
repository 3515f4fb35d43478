"""What receipts promise of files is kept in time, and told where it is not."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from service.domain import EncounterStatus
from service.erasure_upkeep import ErasureUpkeep
from service.errors import IndexUnavailable, StoreUnavailable
from service.index_care import IndexCare
from service.store.sql_store import SqlStore
from tests.store.building import new_ring
from tests.world import GALLERY, Clock, World

WITHIN = timedelta(hours=24)


class SlowKeys:
    """A key store in whose files what was destroyed lies until `purge`."""

    def __init__(self) -> None:
        self.since: datetime | None = None
        self.purged = self.forgotten = 0

    def forget_destroyed(self) -> None:
        self.forgotten += 1

    def unpurged_since(self) -> datetime | None:
        return self.since

    def purge(self) -> None:
        self.purged += 1
        self.since = None


class NotedCare(IndexCare):
    """Counts the compactions of a gallery, and may fail."""

    compacted = 0
    fails = False

    def compact(self, gallery_id: str) -> list:  # type: ignore[type-arg]  # nobody reads it
        if self.fails:
            raise IndexUnavailable("the index could not be compacted")
        self.compacted += 1
        return super().compact(gallery_id)


class Scene:
    """A world on SQLite whose erasures are looked after."""

    def __init__(self, folder: Path) -> None:
        self.path, self.clock = folder / "record.sqlite", Clock()
        self.store = SqlStore(f"sqlite:///{self.path}", self.clock, cipher=new_ring())
        self.store.migrate()
        self.world, self.keys = World(self.store), SlowKeys()
        self.care = NotedCare(self.world.matcher, self.world.metrics)
        self.upkeep = self.begin()
        self.upkeep.look()

    def begin(self) -> ErasureUpkeep:
        """Return the upkeep as a start makes it."""
        times = {"compact_within": WITHIN, "purge_within": WITHIN}
        return ErasureUpkeep(self.store, self.keys, self.care, self.world.metrics, clock=self.clock, **times)

    def overdue(self) -> dict[str, float]:
        """Return the seconds of each part that is beyond its time."""
        samples = [each for metric in self.world.metrics.erasure_overdue.collect() for each in metric.samples]
        return {each.labels["part"]: each.value for each in samples if each.value}

    def after(self, **duration: float) -> None:
        self.clock.now += timedelta(**duration)
        self.upkeep.look()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.store.close()


def test_an_index_is_made_compact_after_half_of_its_time(scene: Scene) -> None:
    scene.world.enrol(1, subject_id="s")
    scene.after(hours=30)
    scene.world.erasure.erase_subject(GALLERY, "s")
    scene.after(hours=11.9)
    assert scene.care.compacted == 0

    scene.after(hours=0.2)
    assert scene.care.compacted == 1
    scene.after(hours=40)
    assert (scene.care.compacted, scene.overdue()) == (1, {})


def test_each_look_forgets_the_keys_that_another_process_destroyed(scene: Scene) -> None:
    before = scene.keys.forgotten
    scene.after(seconds=15)
    assert scene.keys.forgotten == before + 1


def test_many_erasures_cost_one_compaction_and_later_ones_another(scene: Scene) -> None:
    for person in range(4):
        scene.world.enrol(person, subject_id=f"s{person}")
    for person in range(3):
        scene.world.erasure.erase_subject(GALLERY, f"s{person}")
        scene.after(hours=1)
    scene.after(hours=9)
    assert scene.care.compacted == 1
    scene.after(hours=30)
    assert scene.care.compacted == 1

    scene.world.erasure.erase_subject(GALLERY, "s3")
    scene.after(hours=13)
    assert scene.care.compacted == 2


def test_a_withdrawn_encounter_goes_from_the_files_too(scene: Scene) -> None:
    encounter = scene.world.enrol(1, subject_id="s")
    scene.world.erasure.set_encounter_status(GALLERY, encounter.encounter_id, EncounterStatus.INACTIVE)
    scene.after(hours=13)
    assert scene.care.compacted == 0
    scene.world.erasure.set_encounter_status(GALLERY, encounter.encounter_id, EncounterStatus.WITHDRAWN)
    scene.after(hours=13)
    assert scene.care.compacted == 1


def test_a_compaction_that_fails_is_tried_again_and_told_when_it_is_too_late(scene: Scene) -> None:
    scene.world.enrol(1, subject_id="s")
    scene.world.erasure.erase_subject(GALLERY, "s")
    scene.care.fails = True
    scene.after(hours=23)
    assert scene.overdue() == {}
    scene.after(hours=2)
    assert scene.overdue() == {"index": 3600.0}

    scene.care.fails = False
    scene.after(hours=1)
    assert (scene.care.compacted, scene.overdue()) == (1, {})


def test_a_start_makes_compact_what_an_earlier_process_left(scene: Scene) -> None:
    scene.world.enrol(1, subject_id="s")
    scene.world.erasure.erase_subject(GALLERY, "s")
    scene.upkeep = scene.begin()
    scene.after(hours=100)
    assert (scene.care.compacted, scene.overdue()) == (1, {})


def test_keys_that_could_not_be_destroyed_are_destroyed_later(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StoreUnavailable("the key store does not answer")

    scene.world.enrol(1, subject_id="s")
    with monkeypatch.context() as down:
        down.setattr(scene.store._cipher, "destroy", refuse)
        with pytest.raises(StoreUnavailable):
            scene.world.erasure.erase_subject(GALLERY, "s")
        scene.after(seconds=50)
        assert scene.overdue() == {}
        scene.after(seconds=50)
        assert scene.overdue() == {"keys": 40.0}
    scene.after(seconds=15)
    assert (scene.store.oldest_undestroyed(), scene.overdue()) == (None, {})


def test_a_key_store_that_does_not_answer_hides_no_keys_that_wait_for_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreUnavailable("the key store does not answer")

    scene.world.enrol(1, subject_id="s")
    monkeypatch.setattr(scene.store._cipher, "destroy", refuse)
    monkeypatch.setattr(scene.keys, "unpurged_since", refuse)
    with pytest.raises(StoreUnavailable):
        scene.world.erasure.erase_subject(GALLERY, "s")
    scene.care.fails = True
    scene.after(hours=WITHIN.total_seconds() / 3600 + 1)
    assert set(scene.overdue()) == {"keys", "index"}


def test_a_log_that_a_reader_kept_is_emptied_later(scene: Scene) -> None:
    scene.world.enrol(1, subject_id="planted-s")
    with closing(sqlite3.connect(scene.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM subjects").fetchone()
        scene.world.erasure.erase_subject(GALLERY, "planted-s")
        scene.after(seconds=90)
        assert scene.overdue() == {"log": 30.0}
        assert _is_anywhere(scene, b"planted-s")
    scene.after(seconds=15)
    assert (scene.store.log_due_since, scene.overdue()) == (None, {})
    assert not _is_anywhere(scene, b"planted-s")


def _is_anywhere(scene: Scene, trace: bytes) -> bool:
    return any(trace in path.read_bytes() for path in scene.path.parent.iterdir())


def test_files_of_a_key_store_are_purged_after_half_of_their_time(scene: Scene) -> None:
    scene.keys.since = scene.clock.now
    scene.after(hours=11)
    assert scene.keys.purged == 0
    scene.after(hours=2)
    assert scene.keys.purged == 1
