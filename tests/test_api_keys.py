"""An API key proves its client while it holds, and nothing else does."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256

import pytest

from service.access import Caller, Client, Grant, Role
from service.api_keys import KEPT_S, ApiKeys, make_key
from service.clients import ClientService
from service.errors import ClientNotFound, StoreUnavailable
from tests.fake_clients import FakeClients
from tests.world import Clock

GRANTS = (Grant(Role.ENROLLER, frozenset({"camp"})),)
DESK = Caller("client:desk", GRANTS)
DAY = timedelta(days=1)


class CountingClients(FakeClients):
    """Counts the look-ups; one that is told to waits."""

    def __init__(self) -> None:
        super().__init__()
        self.look_ups = 0
        self.notes: list[str] = []
        self.is_down = False
        self.read, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def of_key(self, key_id: str) -> Client | None:
        self.look_ups += 1
        found = super().of_key(key_id)
        self.read.set()
        assert self.go_on.wait(10)
        return found

    def note_use(self, key_id: str, now: datetime) -> None:
        self.notes.append(key_id)
        if self.is_down:
            raise StoreUnavailable("the record does not answer")
        super().note_use(key_id, now)


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.record = CountingClients()
        self.keys = ApiKeys(self.record, self.clock, self.clock.seconds)
        self.clients = ClientService(self.record, self.keys, self.clock)

    def whose(self, key: str) -> Caller | None:
        """As a request asks: what is remembered first."""
        return self.keys.remembered(key) or self.keys.look_up(key)

    def pass_by(self, duration: timedelta) -> None:
        self.clock.now += duration

    def noted(self) -> None:
        """Wait until every use that was seen so far is written."""
        self.keys._notes.submit(lambda: None).result(10)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.keys.close()


def test_a_key_proves_its_client_until_it_ends(world: World) -> None:
    key = world.clients.add("desk", GRANTS, DAY).key
    assert world.whose(key) == DESK
    world.pass_by(DAY - timedelta(seconds=1))
    assert world.whose(key) == DESK
    world.pass_by(timedelta(seconds=1))
    assert world.keys.remembered(key) is None
    assert world.whose(key) is None


def test_a_key_lasts_a_year_unless_it_is_told_otherwise(world: World) -> None:
    made = world.clients.add("desk", GRANTS)
    assert made.client.keys[0].expires_at == world.clock.now + timedelta(days=365)


def test_only_a_digest_of_a_key_is_kept(world: World) -> None:
    made = world.clients.add("desk", GRANTS)
    secret = made.key.split("_", 2)[2]
    (kept,) = world.record.all()[0].keys
    assert kept.secret_digest == sha256(secret.encode()).digest()
    assert secret not in repr(world.record.all()) + repr(made)
    assert len(secret) == 43  # 32 bytes


def test_no_two_keys_are_alike(world: World) -> None:
    keys = [make_key(world.clock.now, DAY)[0] for _ in range(200)]
    assert len({part for key in keys for part in key.split("_", 2)[1:]}) == 400


@pytest.mark.parametrize("position", [4, 19, 20, 21, -1])
def test_one_other_character_makes_another_key(world: World, position: int) -> None:
    key = world.clients.add("desk", GRANTS).key
    assert world.whose(key) == DESK
    other = "0" if key[position] != "0" else "1"
    assert world.whose(key[:position] + other + key[position:][1:]) is None
    assert world.whose(key + "A") is None
    assert world.whose(key + "\n") is None
    assert world.whose(key.upper()) is None


def test_a_wrong_secret_takes_the_way_of_an_unknown_key(world: World) -> None:
    key = world.clients.add("desk", GRANTS).key
    assert world.whose(key) == DESK
    before = world.record.look_ups
    for number, wrong in enumerate((key[:-1] + ("x" if key[-1] != "x" else "y"), make_key(world.clock.now, DAY)[0]), 1):
        assert world.keys.remembered(wrong) is None
        assert world.keys.look_up(wrong) is None
        assert world.record.look_ups == before + number


def test_a_key_that_holds_is_looked_up_again_after_two_seconds(world: World) -> None:
    key = world.clients.add("desk", GRANTS).key
    for _ in range(5):
        assert world.whose(key) == DESK
    assert world.record.look_ups == 1
    world.pass_by(timedelta(seconds=KEPT_S))
    assert world.whose(key) == DESK
    assert world.record.look_ups == 2


def test_a_revocation_holds_at_once_here_and_in_two_seconds_elsewhere(world: World) -> None:
    key = world.clients.add("desk", GRANTS).key
    elsewhere = ApiKeys(world.record, world.clock, world.clock.seconds)
    assert (world.whose(key), elsewhere.look_up(key)) == (DESK, DESK)
    world.clients.revoke("desk")
    assert world.whose(key) is None
    assert elsewhere.remembered(key) == DESK
    world.pass_by(timedelta(seconds=KEPT_S))
    assert elsewhere.remembered(key) is None
    assert elsewhere.look_up(key) is None
    elsewhere.close()


def test_what_was_read_before_a_revocation_is_not_remembered_after_it(world: World) -> None:
    key = world.clients.add("desk", GRANTS).key
    world.record.go_on.clear()
    with ThreadPoolExecutor(1) as threads:
        looking = threads.submit(world.keys.look_up, key)
        assert world.record.read.wait(10)
        world.clients.revoke("desk")
        world.record.go_on.set()
        looking.result(10)
    assert world.keys.remembered(key) is None


def test_an_overlap_lets_both_keys_hold_and_then_the_new_one_alone(world: World) -> None:
    first = world.clients.add("desk", GRANTS).key
    second = world.clients.rotate("desk", DAY).key
    assert (world.whose(first), world.whose(second)) == (DESK, DESK)
    world.pass_by(DAY)
    assert (world.whose(first), world.whose(second)) == (None, DESK)


def test_a_rotation_without_overlap_ends_the_old_key_at_once(world: World) -> None:
    first = world.clients.add("desk", GRANTS).key
    assert world.whose(first) == DESK
    world.clients.rotate("desk", timedelta(0))
    assert world.whose(first) is None


def test_a_revoked_client_gets_no_further_key(world: World) -> None:
    world.clients.add("desk", GRANTS)
    world.clients.revoke("desk")
    with pytest.raises(ClientNotFound):
        world.clients.rotate("desk", DAY)


def test_a_revoked_key_of_a_client_that_goes_on_is_refused(world: World) -> None:
    made = world.clients.add("desk", GRANTS)
    (kept,) = made.client.keys
    world.record._clients["desk"] = replace(made.client, keys=(replace(kept, revoked_at=world.clock.now),))
    assert world.whose(made.key) is None


def test_no_key_of_a_revoked_client_holds(world: World) -> None:
    made = world.clients.add("desk", GRANTS)
    world.record._clients["desk"] = replace(made.client, revoked_at=world.clock.now)
    assert world.whose(made.key) is None


def test_a_use_is_noted_once_a_minute(world: World) -> None:
    key = world.clients.add("desk", GRANTS).key
    for _ in range(30):
        world.whose(key)
        world.noted()
        world.pass_by(timedelta(seconds=4))
    assert len(world.record.notes) == 2
    (kept,) = world.record.all()[0].keys
    assert kept.last_used_at is not None
    assert world.clock.now - kept.last_used_at <= timedelta(minutes=1, seconds=4)


def test_a_use_that_cannot_be_noted_harms_no_request_and_is_tried_again(world: World) -> None:
    key = world.clients.add("desk", GRANTS).key
    world.record.is_down = True
    assert world.whose(key) == DESK
    world.noted()
    world.record.is_down = False
    world.pass_by(timedelta(seconds=KEPT_S))
    assert world.whose(key) == DESK
    world.noted()
    assert world.record.all()[0].keys[0].last_used_at == world.clock.now


def test_the_first_start_makes_one_administrator_and_further_ones_none(world: World) -> None:
    first = world.clients.begin()
    assert first is not None
    assert world.whose(first.key) == Caller("client:admin", (Grant(Role.ADMIN),))
    assert world.clients.begin() is None
    world.clients.revoke("admin")
    assert world.clients.begin() is None


def test_two_processes_that_start_at_once_make_one_administrator(world: World) -> None:
    class Late(FakeClients):
        def all(self) -> list[Client]:
            return []

    late = Late()
    service = ClientService(late, world.keys, world.clock)
    assert service.begin() is not None
    assert service.begin() is None


def test_a_recovery_makes_a_further_administrator_and_leaves_the_others(world: World) -> None:
    world.clients.begin()
    world.clients.revoke("admin")
    found = [world.clients.recover() for _ in range(2)]
    assert [each.client.name for each in found] == ["admin-2", "admin-3"]
    assert world.whose(found[0].key) == Caller("client:admin-2", (Grant(Role.ADMIN),))
    assert world.record.all()[0].revoked_at is not None
