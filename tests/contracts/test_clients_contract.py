"""What every record keeps of the clients that call with API keys."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from service.access import Client, ClientKey, Grant, Role
from service.errors import ClientExists, ClientNotFound, StoreUnavailable
from service.ports import Clients
from service.store.sql_store import SqlStore
from tests import postgres
from tests.fake_clients import FakeClients
from tests.store.building import KINDS, START

GRANTS = (Grant(Role.ADMIN), Grant(Role.ENROLLER, frozenset({"camp", "town"})))
HOUR = timedelta(hours=1)


@pytest.fixture(params=KINDS)
def clients(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Clients]:
    if request.param == "fake":
        yield FakeClients()
        return
    is_sqlite = request.param == "sqlite"
    store = SqlStore(f"sqlite:///{tmp_path}/record.sqlite" if is_sqlite else postgres.fresh_database())
    if is_sqlite:
        store.migrate()
    yield store.clients
    store.close()


def key(key_id: str, hours: int = 24) -> ClientKey:
    return ClientKey(key_id, key_id.encode().ljust(32), START, START + hours * HOUR)


def client(name: str = "desk", *keys: ClientKey) -> Client:
    return Client(name, GRANTS, START, keys=keys or (key("k1"),))


def test_a_client_comes_back_as_it_was_kept(clients: Clients) -> None:
    clients.add(client())
    clients.add(client("agency", key("k2"), key("k3")))

    assert clients.all() == [client("agency", key("k2"), key("k3")), client()]
    assert clients.of_key("k3") == client("agency", key("k3"))
    assert clients.of_key("k4") is None


def test_a_name_is_given_once_also_after_it_was_revoked(clients: Clients) -> None:
    clients.add(client())
    clients.revoke("desk", START + HOUR)

    with pytest.raises(ClientExists):
        clients.add(client("desk", key("k2")))
    assert clients.of_key("k2") is None


def test_a_further_key_ends_those_that_last_longer(clients: Clients) -> None:
    clients.add(client("desk", key("k1"), key("k2", hours=1)))
    rotated = clients.add_key("desk", key("k3"), START + 2 * HOUR)

    assert {each.key_id: each.expires_at for each in rotated.keys} == {
        "k1": START + 2 * HOUR,
        "k2": START + HOUR,
        "k3": START + 24 * HOUR,
    }
    assert clients.all() == [rotated]


def test_the_keys_of_others_go_on(clients: Clients) -> None:
    clients.add(client())
    clients.add(client("agency", key("k2")))
    clients.add_key("desk", key("k3"), START)
    clients.revoke("desk", START)

    assert clients.of_key("k2") == client("agency", key("k2"))


def test_a_revoked_client_and_its_keys_have_ended(clients: Clients) -> None:
    clients.add(client("desk", key("k1"), key("k2")))
    revoked = clients.revoke("desk", START + HOUR)

    assert revoked.revoked_at == START + HOUR
    assert [each.revoked_at for each in revoked.keys] == [START + HOUR] * 2
    assert clients.revoke("desk", START + 2 * HOUR) == revoked
    with pytest.raises(ClientNotFound):
        clients.add_key("desk", key("k3"), START)


def test_who_is_not_there_is_told(clients: Clients) -> None:
    with pytest.raises(ClientNotFound):
        clients.revoke("nobody", START)
    with pytest.raises(ClientNotFound):
        clients.add_key("nobody", key("k1"), START)


def test_the_last_use_never_goes_back(clients: Clients) -> None:
    clients.add(client("desk", key("k1"), key("k2")))
    for moment in (START + HOUR, START + 2 * HOUR, START):
        clients.note_use("k1", moment)

    assert [each.last_used_at for each in clients.all()[0].keys] == [START + 2 * HOUR, None]


def test_a_key_that_is_there_is_not_taken_over(clients: Clients) -> None:
    clients.add(client())
    with pytest.raises(StoreUnavailable):
        clients.add(client("other"))
    assert [each.name for each in clients.all()] == ["desk"]
