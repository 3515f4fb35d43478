"""Clients that call with API keys: `service.ports.Clients` over SQLAlchemy Core."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, or_, select, update

from service.access import Client, ClientKey, grant_texts, read_grants
from service.errors import ClientExists, ClientNotFound
from service.store.keys import insert_or_ignore
from service.store.tables import client_keys, clients

_Transaction = Callable[[], AbstractContextManager[Connection]]
_OLDEST_FIRST = select(client_keys).order_by(client_keys.c.created_at, client_keys.c.key_id)
# one statement, whether the key is known or not: a second one would tell by its time that it is
_WITH_CLIENT = select(
    client_keys,
    clients.c.name,
    clients.c.grants,
    clients.c.created_at.label("client_created_at"),
    clients.c.revoked_at.label("client_revoked_at"),
).join_from(client_keys, clients, clients.c.name == client_keys.c.client)


class SqlClients:
    """Each method is a transaction of its own and raises StoreUnavailable.

    Args:
        reading: opens a transaction to read in.
        writing: opens one to write in, committed on leaving.
    """

    def __init__(self, reading: _Transaction, writing: _Transaction) -> None:
        self._reading = reading
        self._writing = writing

    def add(self, client: Client) -> None:
        """Keep a client with its keys. Raises ClientExists, also where the name was revoked."""
        row = {
            "name": client.name,
            "grants": grant_texts(client.grants),
            "created_at": client.created_at,
            "revoked_at": client.revoked_at,
        }
        with self._writing() as connection:
            if connection.execute(insert_or_ignore(connection.dialect.name, clients), row).rowcount == 0:
                raise ClientExists("there is, or was, a client of this name")
            if client.keys:
                connection.execute(insert(client_keys), [_key_row(client.name, key) for key in client.keys])

    def all(self) -> list[Client]:
        """Return all clients in the order of their names, revoked ones among them."""
        with self._reading() as connection:
            keys: dict[str, list[Row[Any]]] = {}
            for row in connection.execute(_OLDEST_FIRST):
                keys.setdefault(row.client, []).append(row)
            found = connection.execute(select(clients).order_by(clients.c.name)).all()
            return [_to_client(row, keys.get(row.name, [])) for row in found]

    def of_key(self, key_id: str) -> Client | None:
        """Return the client of a key with this key alone, None where there is no such key."""
        with self._reading() as connection:
            row = connection.execute(_WITH_CLIENT.where(client_keys.c.key_id == key_id)).one_or_none()
            if row is None:
                return None
            return Client(
                row.name, read_grants(row.grants), row.client_created_at, row.client_revoked_at, (_to_key(row),)
            )

    def add_key(self, name: str, key: ClientKey, others_end_at: datetime) -> Client:
        """Give a client a further key; those it has end at that moment, unless they end sooner.

        Raises:
            ClientNotFound: there is none of this name, or it was revoked.
        """
        with self._writing() as connection:
            locked = select(clients).where(clients.c.name == name).with_for_update()
            row = connection.execute(locked).one_or_none()
            if row is None or row.revoked_at is not None:
                raise ClientNotFound("there is no such client")
            later = (client_keys.c.client == name, client_keys.c.expires_at > others_end_at)
            connection.execute(update(client_keys).where(*later).values(expires_at=others_end_at))
            connection.execute(insert(client_keys), _key_row(name, key))
            return _read(connection, name)

    def revoke(self, name: str, now: datetime) -> Client:
        """End a client and its keys for good; one that was revoked stays as it is. Raises ClientNotFound."""
        with self._writing() as connection:
            of_client = (clients.c.name == name, clients.c.revoked_at.is_(None))
            connection.execute(update(clients).where(*of_client).values(revoked_at=now))
            of_keys = (client_keys.c.client == name, client_keys.c.revoked_at.is_(None))
            connection.execute(update(client_keys).where(*of_keys).values(revoked_at=now))
            return _read(connection, name)

    def note_use(self, key_id: str, now: datetime) -> None:
        """Keep when a key was used last; never goes back."""
        used = client_keys.c.last_used_at
        earlier = (client_keys.c.key_id == key_id, or_(used.is_(None), used < now))
        with self._writing() as connection:
            connection.execute(update(client_keys).where(*earlier).values(last_used_at=now))


def _read(connection: Connection, name: str) -> Client:
    """Raises ClientNotFound."""
    row = connection.execute(select(clients).where(clients.c.name == name)).one_or_none()
    if row is None:
        raise ClientNotFound("there is no such client")
    return _to_client(row, connection.execute(_OLDEST_FIRST.where(client_keys.c.client == name)))


def _key_row(name: str, key: ClientKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "client": name,
        "secret_digest": key.secret_digest,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
    }


def _to_client(row: Row[Any], keys: Iterable[Row[Any]]) -> Client:
    return Client(row.name, read_grants(row.grants), row.created_at, row.revoked_at, tuple(map(_to_key, keys)))


def _to_key(row: Row[Any]) -> ClientKey:
    return ClientKey(
        row.key_id, bytes(row.secret_digest), row.created_at, row.expires_at, row.last_used_at, row.revoked_at
    )
