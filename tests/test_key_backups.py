"""Backups of the key store: whole, consistent, deleted in time, and fit to be restored."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from service.errors import KeysMissing, VarUnusable
from service.key_backups import delete_old, write_backup
from service.ports import GalleryKey, SubjectKey
from service.store.key_copies import copy_keys, sqlite_url
from service.store.key_store import SqlKeyStore
from tests import postgres
from tests.store.building import SQL_KINDS
from tests.test_encrypted_store import files_of as files_of_database

NOW = datetime(2026, 3, 1, 8, 0, 5, tzinfo=UTC)
MANY = 12_000


def new_url(kind: str, folder: Path) -> str:
    return f"sqlite:///{folder}/keys.sqlite" if kind == "sqlite" else postgres.fresh_database(is_migrated=False)


@pytest.fixture(params=SQL_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, tmp_path: Path) -> str:
    return new_url(kind, tmp_path / "store")


@pytest.fixture
def store(url: str) -> Iterator[SqlKeyStore]:
    store = SqlKeyStore(url)
    store.add_gallery_key(GalleryKey("camp", 1, b"wrapped", "master"))
    store.add_subject_keys(keys(0, MANY))
    store.destroy([f"{7:032x}"])
    yield store
    store.close()


def keys(first: int, count: int) -> list[SubjectKey]:
    return [SubjectKey(f"{each:032x}", "camp", 1, b"wrapped %d" % each) for each in range(first, first + count)]


def test_a_backup_holds_what_the_store_holds_and_is_one_file(store: SqlKeyStore, url: str, tmp_path: Path) -> None:
    path, count = write_backup(url, tmp_path / "backups", NOW)

    assert (path.name, count) == ("biodedup-keys-20260301T080005Z.sqlite", MANY - 1)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o600
    with closing(SqlKeyStore(sqlite_url(path))) as copy:
        assert copy.store_id == store.store_id
        assert copy.gallery_keys() == store.gallery_keys()
        ids = [f"{each:032x}" for each in range(MANY)]
        assert copy.subject_keys(ids) == store.subject_keys(ids)
        assert copy.all_destroyed() == store.all_destroyed()


def test_a_backup_is_of_one_moment_though_a_key_is_destroyed_in_the_middle(
    store: SqlKeyStore, url: str, tmp_path: Path
) -> None:
    secret = f"{5:032x}"
    destroyed: list[str] = []

    def destroy(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        # what is known to be destroyed was read; the keys are about to be
        if statement.startswith("SELECT subject_keys") and not destroyed:
            destroyed.append(secret)
            store.destroy([secret])

    event.listen(Engine, "before_cursor_execute", destroy)
    try:
        path, count = write_backup(url, tmp_path / "backups", NOW)
    finally:
        event.remove(Engine, "before_cursor_execute", destroy)

    assert (destroyed, count) == ([secret], MANY - 1)
    with closing(SqlKeyStore(sqlite_url(path))) as copy:
        assert list(copy.subject_keys([secret])) == [secret]
        assert secret not in copy.all_destroyed()
    assert store.subject_keys([secret]) == {}


def test_a_restored_backup_is_the_store_again(store: SqlKeyStore, url: str, kind: str, tmp_path: Path) -> None:
    path, _ = write_backup(url, tmp_path / "backups", NOW)
    target = new_url(kind, tmp_path / "other")

    assert copy_keys(sqlite_url(path), target) == MANY - 1
    with closing(SqlKeyStore(target, may_create=False)) as restored:
        assert restored.store_id == store.store_id
        assert len(restored.subject_keys([f"{each:032x}" for each in range(MANY)])) == MANY - 1
    with pytest.raises(KeysMissing, match="nothing was overwritten"):
        copy_keys(sqlite_url(path), target)


def test_what_is_no_key_store_is_not_copied(tmp_path: Path, kind: str) -> None:
    with pytest.raises(KeysMissing):
        write_backup(new_url(kind, tmp_path / "none"), tmp_path / "backups", NOW)
    assert list((tmp_path / "backups").iterdir()) == []


def test_two_backups_of_one_second_do_not_overwrite_each_other(store: SqlKeyStore, url: str, tmp_path: Path) -> None:
    assert store.store_id
    path, _ = write_backup(url, tmp_path / "backups", NOW)
    before = path.read_bytes()
    with pytest.raises(VarUnusable, match="this second"):
        write_backup(url, tmp_path / "backups", NOW)
    assert path.read_bytes() == before


def test_backups_go_two_days_before_they_are_too_old_and_nothing_else_does(tmp_path: Path) -> None:
    ages = (0, 1, 27, 27.9, 28.1, 30, 400)
    for age in ages:
        stamp = (NOW - timedelta(days=age)).strftime("%Y%m%dT%H%M%SZ")
        (tmp_path / f"biodedup-keys-{stamp}.sqlite").write_text("")
    others = ("biodedup-keys-2020.sqlite", "keys.sqlite", "biodedup-keys-20200101T000000Z.sqlite.gz", "notes")
    for name in others:
        (tmp_path / name).write_text("")

    gone = delete_old(tmp_path, NOW, timedelta(days=30))

    assert len(gone) == 3
    assert len(list(tmp_path.iterdir())) == len(ages) + len(others) - 3
    assert all((tmp_path / name).exists() for name in others)
    assert delete_old(tmp_path, NOW + timedelta(days=26.99), timedelta(days=30)) != []
    assert (tmp_path / f"biodedup-keys-{NOW:%Y%m%dT%H%M%SZ}.sqlite").exists()


def test_the_newest_backup_stays_whatever_its_age(tmp_path: Path) -> None:
    for age in (500, 400):
        (tmp_path / f"biodedup-keys-{NOW - timedelta(days=age):%Y%m%dT%H%M%SZ}.sqlite").write_text("")
    assert [path.name[14:18] for path in delete_old(tmp_path, NOW, timedelta(days=2))] == ["2024"]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_wrapped_key_of_who_was_erased_is_not_in_the_next_backup(
    store: SqlKeyStore, url: str, tmp_path: Path
) -> None:
    secret = SubjectKey("f" * 32, "camp", 1, b"planted wrapped key")
    store.add_subject_keys([secret])
    before, _ = write_backup(url, tmp_path / "backups", NOW)
    store.destroy([secret.key_id])
    after, _ = write_backup(url, tmp_path / "backups", NOW + timedelta(days=1))
    assert secret.wrapped in before.read_bytes()
    assert secret.wrapped not in after.read_bytes()


def test_after_a_purge_no_file_of_the_store_holds_a_destroyed_key(
    store: SqlKeyStore, url: str, kind: str, tmp_path: Path
) -> None:
    secret = SubjectKey("f" * 32, "camp", 1, b"planted wrapped key")
    store.add_subject_keys([secret])
    with closing(sqlite3.connect(tmp_path / "store" / "keys.sqlite" if kind == "sqlite" else ":memory:")) as reader:
        if kind == "sqlite":  # who reads keeps the log from being emptied
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM subject_keys").fetchone()
        store.destroy([secret.key_id])
        assert store.unpurged_since() is not None
        assert any(secret.wrapped in data for data in files_of(url, tmp_path))

    store.purge()

    assert store.unpurged_since() is None
    assert not any(secret.wrapped in data for data in files_of(url, tmp_path))


def files_of(url: str, folder: Path) -> list[bytes]:
    if url.startswith("postgresql"):
        return files_of_database(url)
    return [path.read_bytes() for path in (folder / "store").iterdir()]
