"""What `service.ports.KeyStore` promises, on the fake, SQLite and PostgreSQL alike."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import pytest

from service.ports import GalleryKey, KeyStore, SubjectKey
from service.store.key_store import SqlKeyStore
from tests import postgres
from tests.fake_keys import FakeKeyStore
from tests.store.building import KINDS

GALLERY_KEY = GalleryKey("camp", 1, b"wrapped", "master")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeyStore]:
    if request.param == "fake":
        yield FakeKeyStore()
        return
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/keys/keys.sqlite" if is_sqlite else postgres.fresh_database(is_migrated=False)
    store = SqlKeyStore(url)
    yield store
    store.close()


def keys_of(count: int) -> list[SubjectKey]:
    return [SubjectKey(f"{number:032x}", "camp", 1, b"wrapped %d" % number) for number in range(count)]


def test_subject_keys_are_found_by_their_ids_however_many(store: KeyStore) -> None:
    keys = keys_of(2000)
    store.add_subject_keys(keys)

    found = store.subject_keys([key.key_id for key in keys] + ["f" * 32])

    assert found == {key.key_id: key for key in keys}
    assert store.subject_keys([]) == {}


def test_a_destroyed_key_is_gone_and_known_to_be_destroyed(store: KeyStore) -> None:
    gone, kept = keys_of(2)
    store.add_subject_keys([gone, kept])

    store.destroy([gone.key_id])
    store.destroy([gone.key_id])
    store.destroy([])

    assert store.subject_keys([gone.key_id, kept.key_id]) == {kept.key_id: kept}
    assert store.destroyed([gone.key_id, kept.key_id, "f" * 32]) == {gone.key_id}


def test_a_discarded_key_is_gone_and_was_not_destroyed(store: KeyStore) -> None:
    (key,) = keys_of(1)
    store.add_subject_keys([key])

    store.discard([key.key_id])

    assert (store.subject_keys([key.key_id]), store.destroyed([key.key_id])) == ({}, set())


class WrongClock(datetime):
    """The clock of a machine that is a day behind, or ahead."""

    off = timedelta(days=-1)

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + cls.off


@pytest.mark.parametrize("off", [-1, 1], ids=["behind", "ahead"])
def test_what_a_process_of_a_wrong_clock_destroyed_or_purged_is_purged_all_the_same(
    monkeypatch: pytest.MonkeyPatch, off: int
) -> None:
    url = postgres.fresh_database(is_migrated=False)
    with closing(SqlKeyStore(url)) as store, closing(SqlKeyStore(url)) as other:
        keys = keys_of(2)
        store.add_subject_keys(keys)
        with monkeypatch.context() as wrong:
            wrong.setattr("service.store.key_store.datetime", WrongClock)
            wrong.setattr(WrongClock, "off", timedelta(days=off))
            store.destroy([keys[0].key_id])
            (at,) = store.all_destroyed().values()
            assert abs(datetime.now(UTC) - at) < timedelta(hours=1)
            store.purge()
        assert other.unpurged_since() is None
        other.destroy([keys[1].key_id])
        assert other.unpurged_since() is not None


def test_of_gallery_keys_that_are_added_at_once_one_stays(store: KeyStore) -> None:
    keys = [replace(GALLERY_KEY, wrapped=b"%d" % number) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(store.add_gallery_key, keys))

    assert sorted(added) == [False, False, False, True]
    assert store.gallery_keys("camp") == [keys[added.index(True)]]


def test_gallery_keys_are_listed_by_gallery_and_version(store: KeyStore) -> None:
    keys = [replace(GALLERY_KEY, gallery_id=name, version=version) for name in "ab" for version in (1, 2)]
    for key in reversed(keys):
        assert store.add_gallery_key(key)

    assert store.gallery_keys() == keys
    assert store.gallery_keys("b") == keys[2:]
    assert store.gallery_keys("c") == []


def test_a_gallery_key_under_a_master_key_that_wraps_no_more_is_not_taken(store: KeyStore) -> None:
    store.add_gallery_key(GALLERY_KEY)

    store.set_master_key("next")

    assert not store.add_gallery_key(replace(GALLERY_KEY, gallery_id="village"))
    assert store.add_gallery_key(replace(GALLERY_KEY, gallery_id="village", master_key_id="next"))


def test_a_gallery_key_is_wrapped_anew_only_if_it_is_as_it_was(store: KeyStore) -> None:
    store.add_gallery_key(GALLERY_KEY)
    after = replace(GALLERY_KEY, wrapped=b"anew", master_key_id="next")

    assert store.rewrap(GALLERY_KEY, after)
    assert not store.rewrap(GALLERY_KEY, replace(after, wrapped=b"late"))

    assert store.gallery_keys() == [after]
