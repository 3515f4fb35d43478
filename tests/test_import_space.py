"""The disk space that is stated is enough, and not a multiple of what is taken."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from service.import_source import MadeNames
from service.import_space import LOG_BYTES, on_postgresql, space_needed
from service.store.sql_store import SqlStore
from tests.importing import import_of, saved, unit_rows
from tests.world import World

ROWS = 6000


@pytest.mark.parametrize(
    ("dimension", "prefix", "page_bytes"),
    [
        (128, "p", 8192),
        (512, "p", 8192),
        (128, "a-long-prefix-of-forty-characters-in-all-", 8192),
        (512, "a-long-prefix-of-forty-characters-in-all-", 8192),
        (128, "p", 4096),  # of a record that was made before the pages of 8 KB
        (512, "p", 4096),
    ],
)
def test_the_record_takes_what_was_stated(tmp_path: Path, dimension: int, prefix: str, page_bytes: int) -> None:
    with closing(sqlite3.connect(tmp_path / "record.sqlite")) as connection:
        connection.execute(f"PRAGMA page_size={page_bytes}")
        connection.execute("VACUUM")
    store = SqlStore(f"sqlite:///{tmp_path}/record.sqlite")
    store.migrate()
    World(store)
    path = saved(tmp_path / "t.npy", unit_rows(ROWS, dimension))
    import_of(store, path, MadeNames(prefix)).run()
    assert store.page_bytes() == page_bytes
    store.close()  # SQLite moves its log into the file
    chars = len(prefix) + 9

    needed = space_needed(ROWS, dimension, subject_id_chars=chars, encounter_id_chars=chars, page_bytes=page_bytes)
    stated = needed.record - LOG_BYTES

    taken = (tmp_path / "record.sqlite").stat().st_size
    assert taken <= stated <= 1.4 * taken


def test_an_index_takes_its_rows_and_codes() -> None:
    needed = space_needed(10**6, 512, subject_id_chars=20, encounter_id_chars=20)
    assert 10**6 * 2387 <= needed.index <= 2.9e9  # what a million of them took on disk, and room to spare
    assert needed.total == needed.record + needed.index
    beside_server = on_postgresql(needed)
    assert beside_server.record > needed.record
    assert beside_server.index == needed.index
