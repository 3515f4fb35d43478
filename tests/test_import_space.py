"""The disk space that is stated is enough, and not a multiple of what is taken."""

from pathlib import Path

import pytest

from service.import_source import MadeNames
from service.import_space import LOG_BYTES, on_postgresql, space_needed
from service.store.sql_store import SqlStore
from tests.importing import import_of, saved, unit_rows
from tests.world import World

ROWS = 6000


@pytest.mark.parametrize("dimension", [128, 512])
@pytest.mark.parametrize("prefix", ["p", "a-long-prefix-of-forty-characters-in-all-"])
def test_the_record_takes_what_was_stated(tmp_path: Path, dimension: int, prefix: str) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/record.sqlite")
    store.migrate()
    World(store)
    path = saved(tmp_path / "t.npy", unit_rows(ROWS, dimension))
    import_of(store, path, MadeNames(prefix)).run()
    store.close()  # SQLite moves its log into the file
    chars = len(prefix) + 9

    stated = space_needed(ROWS, dimension, subject_id_chars=chars, encounter_id_chars=chars).record - LOG_BYTES

    taken = (tmp_path / "record.sqlite").stat().st_size
    assert taken <= stated <= 1.4 * taken


def test_an_index_takes_its_rows_and_codes() -> None:
    needed = space_needed(10**6, 512, subject_id_chars=20, encounter_id_chars=20)
    assert 10**6 * (4 * 512 + 24 + 48) <= needed.index <= 2.6e9
    assert needed.total == needed.record + needed.index
    assert on_postgresql(needed).index == 0
