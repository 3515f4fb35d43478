"""A legal hold and an erasure of the same person at the same moment: one of them comes first, and both know which."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWaiting
from pathlib import Path

import pytest

from service.errors import LegalHold, SubjectNotFound
from service.key_ring import KeyRing
from service.store.sql_store import SqlStore
from tests.retaining import database_url, encrypted_store, hold, people_in, see
from tests.store.building import SQL_KINDS, Clock
from tests.world import GALLERY, World

MEETING_S = 0.2  # the other one is inside, or waits


@pytest.fixture(params=SQL_KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    store = encrypted_store(database_url(request.param, tmp_path), Clock())
    yield store
    store.close()


@pytest.fixture
def world(store: SqlStore) -> World:
    return World(store, keep_samples=True)


class Meeting:
    """Starts something on another thread and gives it time to get as far as it can."""

    def __init__(self, threads: ThreadPoolExecutor, act: Callable[[], object]) -> None:
        self._threads = threads
        self._act = act
        self.future: Future[object] | None = None

    def begin(self) -> None:
        self.future = self._threads.submit(self._act)
        with pytest.raises(StillWaiting):
            self.future.result(timeout=MEETING_S)

    def result(self) -> object:
        assert self.future is not None
        return self.future.result(timeout=30)


class SlowRing:
    """A key ring in whose `seal` something else happens first: a hold is about to be written."""

    def __init__(self, ring: KeyRing, before: Callable[[], None]) -> None:
        self._ring = ring
        self._before = before

    def __getattr__(self, name: str) -> object:
        return getattr(self._ring, name)

    def seal(self, gallery_id: str, key_id: str | None, plain: bytes, context: bytes) -> bytes:
        self._before()
        return self._ring.seal(gallery_id, key_id, plain, context)


def test_a_hold_waits_for_an_erasure_that_began_and_then_finds_nobody(store: SqlStore, world: World) -> None:
    see(store, "a")
    with ThreadPoolExecutor(1) as threads:
        meeting = Meeting(threads, lambda: hold(store, "s-a"))
        world.erasure.erase_subject(GALLERY, "s-a", before=lambda _: meeting.begin())
        with pytest.raises(SubjectNotFound):
            meeting.result()
    assert people_in(store) == set()
    assert store.holds.held(GALLERY) == []


@pytest.mark.parametrize("subject_id", ["s-a", None], ids=["subject", "gallery"])
def test_an_erasure_waits_for_a_hold_that_began_and_is_then_refused(
    store: SqlStore, world: World, subject_id: str | None
) -> None:
    see(store, "a")
    with ThreadPoolExecutor(1) as threads:
        meeting = Meeting(threads, lambda: world.erasure.erase_subject(GALLERY, "s-a"))
        store.holds._cipher = SlowRing(store.holds._cipher, meeting.begin)  # type: ignore[assignment,arg-type]  # it is one
        hold(store, subject_id)
        with pytest.raises(LegalHold):
            meeting.result()
    assert people_in(store) == {"s-a"}
