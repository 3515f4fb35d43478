"""SQLite is written through one connection that is kept, and given up as soon as anything fails."""

import sqlite3
from pathlib import Path

import pytest

from service.errors import GalleryExists, GalleryNotFound
from service.store.sql_store import SqlStore
from tests.store.building import new_gallery


@pytest.fixture
def store(tmp_path: Path) -> SqlStore:
    made = SqlStore(f"sqlite:///{tmp_path / 'record.sqlite'}")
    made.migrate()
    return made


def test_writes_follow_one_another_on_one_connection(store: SqlStore) -> None:
    store.create_gallery(new_gallery("one"))
    kept = store._kept
    assert kept is not None
    store.create_gallery(new_gallery("two"))
    assert store._kept is kept
    with store.writing("one"):
        pass  # nothing was changed: rolled back, and of further use
    store.create_gallery(new_gallery("three"))
    assert store._kept is kept
    store.close()


@pytest.mark.parametrize("error", [GalleryExists, KeyboardInterrupt, sqlite3.OperationalError])
def test_after_a_failure_the_next_write_has_another(store: SqlStore, error: type[BaseException]) -> None:
    store.create_gallery(new_gallery("one"))
    kept = store._kept
    with pytest.raises(error), store.writing("one"):
        raise error("stop")
    assert store._kept is None
    assert kept is not None
    assert kept.closed
    store.create_gallery(new_gallery("two"))
    assert [gallery.gallery_id for gallery in store.galleries()] == ["one", "two"]
    store.close()


def test_between_writes_nobody_is_kept_from_the_file(store: SqlStore, tmp_path: Path) -> None:
    store.create_gallery(new_gallery("one"))
    with pytest.raises(GalleryNotFound), store.writing("nowhere"):
        pass
    with sqlite3.connect(tmp_path / "record.sqlite", timeout=0, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        other.execute("ROLLBACK")
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    other.close()
    store.close()


def test_closing_gives_it_back(store: SqlStore, tmp_path: Path) -> None:
    store.create_gallery(new_gallery("one"))
    kept = store._kept
    store.close()
    assert kept is not None
    assert kept.closed
    # the last connection of all empties the log and takes it away
    assert not (tmp_path / "record.sqlite-wal").exists()
