"""The hierarchy of keys: what opens what, what is never without its key, what nobody opens again."""

import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.errors import KeyDestroyed, KeyRotationUnderway, KeysMissing, MasterKeyUnusable, Undecipherable
from service.key_ring import POOL_KEYS, SEALED_BYTES, KeyRing
from service.ports import SubjectKey
from tests.fake_keys import FakeKeyStore, FakeMasterKey

PLAIN, CONTEXT = b"what is known of a face", b"template e-1 0"


class CountingStore(FakeKeyStore):
    """Counts what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = self.reads = 0

    def add_subject_keys(self, keys: Sequence[SubjectKey]) -> None:
        self.writes += 1
        super().add_subject_keys(keys)

    def subject_keys(self, key_ids: Sequence[str]) -> dict[str, SubjectKey]:
        self.reads += 1
        return super().subject_keys(key_ids)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def master() -> FakeMasterKey:
    return FakeMasterKey()


@pytest.fixture
def ring(store: CountingStore, master: FakeMasterKey) -> KeyRing:
    return KeyRing(store, master)


def taken(ring: KeyRing, gallery_id: str = "camp") -> str:
    (key_id,) = ring.take_keys(gallery_id, 1)
    assert key_id is not None
    return key_id


def test_what_is_sealed_opens_also_after_a_restart(ring: KeyRing, store: CountingStore, master: FakeMasterKey) -> None:
    sealed = ring.seal("camp", taken(ring), PLAIN, CONTEXT)

    assert ring.open("camp", sealed, CONTEXT) == PLAIN
    assert KeyRing(store, master).open("camp", sealed, CONTEXT) == PLAIN
    assert (PLAIN in sealed, len(sealed)) == (False, len(PLAIN) + SEALED_BYTES)


def test_a_value_opens_in_its_own_place_and_gallery_only(ring: KeyRing) -> None:
    key_id = taken(ring)
    sealed = ring.seal("camp", key_id, PLAIN, CONTEXT)
    taken(ring, "village")

    with pytest.raises(Undecipherable):
        ring.open("camp", sealed, b"template e-2 0")
    with pytest.raises(Undecipherable):
        KeyRing(ring._store, ring._master).open("village", sealed, CONTEXT)


def test_what_is_of_no_subject_is_sealed_under_the_key_of_its_gallery(
    ring: KeyRing, store: CountingStore, master: FakeMasterKey
) -> None:
    sealed = ring.seal_of_gallery("camp", PLAIN, CONTEXT)
    ring.rotate_master_key()

    for each in (ring, KeyRing(store, master)):
        assert each.open_of_gallery("camp", sealed, CONTEXT) == PLAIN
    assert PLAIN not in sealed
    ring.gallery_key("village")
    for gallery_id, value, context in (
        ("village", sealed, CONTEXT),
        ("camp", sealed, b"another place"),
        ("camp", sealed[:-1] + bytes([sealed[-1] ^ 1]), CONTEXT),
        ("camp", PLAIN, CONTEXT),
        ("camp", b"", CONTEXT),
    ):
        with pytest.raises(Undecipherable):
            ring.open_of_gallery(gallery_id, value, context)
    with pytest.raises(KeysMissing):
        ring.open_of_gallery("nowhere", sealed, CONTEXT)


@pytest.mark.parametrize("place", [0, 4, 30, -1])
def test_a_changed_value_does_not_open(ring: KeyRing, place: int) -> None:
    sealed = bytearray(ring.seal("camp", taken(ring), PLAIN, CONTEXT))
    sealed[place] ^= 1

    with pytest.raises(Undecipherable):
        ring.open("camp", bytes(sealed), CONTEXT)


def test_a_value_under_another_subject_s_id_does_not_open(ring: KeyRing) -> None:
    first, second = (ring.seal("camp", taken(ring), PLAIN, CONTEXT) for _ in range(2))

    with pytest.raises(Undecipherable):
        ring.open("camp", second[:21] + first[21:], CONTEXT)


def test_keys_are_in_the_store_before_they_are_given_and_drawn_ahead(ring: KeyRing, store: CountingStore) -> None:
    given = [taken(ring) for _ in range(POOL_KEYS)]

    assert len(set(given)) == POOL_KEYS
    assert store.subject_keys(given).keys() == set(given)
    assert store.writes == 1
    taken(ring)
    assert store.writes == 2


def test_threads_never_get_the_same_key(ring: KeyRing) -> None:
    with ThreadPoolExecutor(8) as pool:
        given = list(itertools.chain(*pool.map(lambda _: ring.take_keys("camp", 7), range(200))))

    assert len(set(given)) == 1400


def test_a_key_that_was_given_back_is_given_again(ring: KeyRing, store: CountingStore) -> None:
    key_id = taken(ring)
    ring.give_back("camp", [key_id])

    assert key_id in ring.take_keys("camp", POOL_KEYS)
    assert store.writes == 1


def test_every_key_that_was_drawn_is_given_or_gone_in_the_end(ring: KeyRing, store: CountingStore) -> None:
    given = [*ring.take_keys("camp", POOL_KEYS - 1), *ring.take_keys("camp", 2), *ring.take_keys("camp", 3 * POOL_KEYS)]
    assert len(given) == len(set(given)) == 4 * POOL_KEYS + 1

    ring.close()

    assert set(store._subject_keys) == set(given)


def test_what_lay_ready_is_gone_after_the_ring_was_closed(ring: KeyRing, store: CountingStore) -> None:
    key_id = taken(ring)

    ring.close()

    assert set(store._subject_keys) == {key_id}


def test_after_a_destruction_nobody_opens_a_value_again(
    ring: KeyRing, store: CountingStore, master: FakeMasterKey
) -> None:
    gone, kept = (ring.seal("camp", taken(ring), PLAIN, CONTEXT) for _ in range(2))

    ring.destroy([gone[5:21].hex()])

    for each in (ring, KeyRing(store, master)):
        with pytest.raises(KeyDestroyed):
            each.open("camp", gone, CONTEXT)
        assert each.open_all("camp", [(gone, CONTEXT), (kept, CONTEXT)]) == [None, PLAIN]
        with pytest.raises(KeyDestroyed):
            each.seal("camp", gone[5:21].hex(), PLAIN, CONTEXT)


def test_a_key_that_another_process_destroyed_is_forgotten_too(ring: KeyRing, master: FakeMasterKey) -> None:
    gone, kept = (ring.seal("camp", taken(ring), PLAIN, CONTEXT) for _ in range(2))
    KeyRing(ring._store, master).destroy([gone[5:21].hex()])
    assert ring.open("camp", gone, CONTEXT) == PLAIN  # it is in memory

    ring.forget_destroyed()

    assert ring.open_all("camp", [(gone, CONTEXT), (kept, CONTEXT)]) == [None, PLAIN]
    assert kept[5:21].hex() in ring._keys


def test_a_lost_key_is_not_taken_for_a_destroyed_one(
    ring: KeyRing, store: CountingStore, master: FakeMasterKey
) -> None:
    lost = ring.seal("camp", taken(ring), PLAIN, CONTEXT)
    del store._subject_keys[lost[5:21].hex()]

    with pytest.raises(KeysMissing):
        KeyRing(store, master).open_all("camp", [(lost, CONTEXT)])


def test_many_values_are_opened_with_one_question(ring: KeyRing, store: CountingStore, master: FakeMasterKey) -> None:
    values = [(ring.seal("camp", taken(ring), b"%d" % each, CONTEXT), CONTEXT) for each in range(500)]
    store.reads = 0

    assert KeyRing(store, master).open_all("camp", values) == [b"%d" % each for each in range(500)]
    assert store.reads == 1


def test_a_subject_without_a_key_is_not_written(ring: KeyRing) -> None:
    with pytest.raises(Undecipherable):
        ring.seal("camp", None, PLAIN, CONTEXT)
    with pytest.raises(Undecipherable):
        ring.open("camp", PLAIN, CONTEXT)


def test_a_wrong_master_key_is_found_before_anything_is_opened(ring: KeyRing, store: CountingStore) -> None:
    taken(ring)
    before = (store.gallery_keys(), dict(store._subject_keys))

    with pytest.raises(MasterKeyUnusable):
        KeyRing(store, FakeMasterKey()).check()

    assert (store.gallery_keys(), store._subject_keys) == before


def test_after_a_rotation_no_gallery_key_is_under_the_old_master_key(
    ring: KeyRing, store: CountingStore, master: FakeMasterKey
) -> None:
    sealed = {name: ring.seal(name, taken(ring, name), PLAIN, CONTEXT) for name in ("camp", "village")}
    old = ring.master_keys()

    assert ring.rotate_master_key() == 2

    new = ring.master_keys()
    assert (old.gallery_keys, new.gallery_keys) == ({old.key_id: 2}, {new.key_id: 2})
    assert old.key_id not in master._keys
    for each in (ring, KeyRing(store, master)):
        each.check()
        assert all(each.open(name, value, CONTEXT) == PLAIN for name, value in sealed.items())


class StoppingStore(FakeKeyStore):
    """Stops once in the middle of a rotation."""

    has_stopped = False

    def rewrap(self, before: object, after: object) -> bool:
        if not self.has_stopped and len({each.master_key_id for each in self.gallery_keys()}) == 2:
            self.has_stopped = True
            raise KeyboardInterrupt
        return super().rewrap(before, after)  # type: ignore[arg-type]  # as given


def test_an_interrupted_rotation_is_finished_under_the_same_new_key() -> None:
    store, master = StoppingStore(), FakeMasterKey()
    ring = KeyRing(store, master)
    values = {name: ring.seal(name, taken(ring, name), PLAIN, CONTEXT) for name in "abc"}
    with pytest.raises(KeyboardInterrupt):
        ring.rotate_master_key()
    begun = master.key_id
    again = KeyRing(store, master)
    again.check()
    assert all(again.open(name, value, CONTEXT) == PLAIN for name, value in values.items())
    taken(again, "d")

    again.rotate_master_key()

    assert again.master_keys() == (begun, {begun: 4})


def test_galleries_that_begin_during_a_rotation_are_under_the_new_key_in_the_end(
    ring: KeyRing, store: CountingStore, master: FakeMasterKey
) -> None:
    stop = threading.Event()
    values: list[tuple[str, bytes]] = []

    def begin_galleries() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            name = f"g-{number}"
            values.append((name, ring.seal(name, taken(ring, name), PLAIN, CONTEXT)))

    with ThreadPoolExecutor(1) as pool:
        beginning = pool.submit(begin_galleries)
        for _ in range(20):
            ring.rotate_master_key()
        stop.set()
        beginning.result(timeout=30)
    ring.rotate_master_key()

    assert ring.master_keys().gallery_keys == {master.key_id: len(values)}
    assert all(KeyRing(store, master).open(name, value, CONTEXT) == PLAIN for name, value in values[:50])


def test_two_rotations_at_once_are_refused(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    taken(ring)
    refused = []

    def renew() -> None:
        with pytest.raises(KeyRotationUnderway):
            ring.rotate_master_key()
        refused.append(True)

    monkeypatch.setattr(ring._master, "renew", renew)

    ring.rotate_master_key()

    assert refused == [True]
