"""While a sweep records what it found, nobody can be erased in either of its galleries."""

from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from service.store.sql_store import SqlStore
from service.store.tables import galleries
from tests.store.building import Clock, new_gallery, open_store


@pytest.mark.postgres  # SQLite has one writer at a time
@pytest.mark.parametrize(("other", "is_locked"), [("abroad", True), (None, False)])
def test_a_sweep_holds_the_lock_of_the_gallery_it_is_against(
    tmp_path: Path, other: str | None, *, is_locked: bool
) -> None:
    for store in open_store("postgresql", tmp_path, Clock()):
        assert isinstance(store, SqlStore)
        store.create_gallery(new_gallery("abroad"))
        with store.sweeping("camp", other):
            assert _is_locked(store, "camp")
            assert _is_locked(store, "abroad") is is_locked


def _is_locked(store: SqlStore, gallery_id: str) -> bool:
    wanted = select(galleries.c.gallery_id).where(galleries.c.gallery_id == gallery_id)
    with store._engine.connect() as connection:
        try:
            connection.execute(wanted.with_for_update(nowait=True))
        except OperationalError:
            return True
        return False
