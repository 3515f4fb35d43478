"""SQLite's write-ahead log does not grow for ever, and no commit waits while it is emptied."""

from pathlib import Path

import pytest
from sqlalchemy import text

from service.store import checkpoints
from service.store.sql_store import SqlStore
from tests.store.building import new_gallery

COMMITS = 120


def log_bytes_after_commits(path: Path) -> int:
    store = SqlStore(f"sqlite:///{path}")
    store.migrate()
    store.create_gallery(new_gallery())
    for _ in range(COMMITS):
        store.renew_timelines()
        store._checkpoints.close()  # type: ignore[union-attr]  # SQLite has them
    size = path.with_name(path.name + "-wal").stat().st_size
    store.close()
    return size


def test_the_log_begins_anew_every_so_many_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = log_bytes_after_commits(tmp_path / "never.sqlite")
    monkeypatch.setattr(checkpoints, "COMMITS_BETWEEN", 10)
    assert log_bytes_after_commits(tmp_path / "often.sqlite") < never / 2


def test_a_reader_of_an_older_state_only_delays_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "COMMITS_BETWEEN", 5)
    store = SqlStore(f"sqlite:///{tmp_path / 'held.sqlite'}")
    store.migrate()
    store.create_gallery(new_gallery())
    with store.reading() as reading:
        before = reading.gallery(new_gallery().gallery_id)
        for _ in range(COMMITS):
            store.renew_timelines()
        assert reading.gallery(before.gallery_id) == before
    assert store.galleries()[0].timeline_id != before.timeline_id
    store.close()


def test_the_record_is_whole_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "COMMITS_BETWEEN", 3)
    store = SqlStore(f"sqlite:///{tmp_path / 'whole.sqlite'}")
    store.migrate()
    for number in range(40):
        store.create_gallery(new_gallery(f"g{number}"))
    store.close()
    again = SqlStore(f"sqlite:///{tmp_path / 'whole.sqlite'}")
    assert len(again.galleries()) == 40
    with again._reading() as connection:
        assert connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
    again.close()
