"""`service.ports.Clients` in memory, held to the real one by tests/contracts."""

import threading
from dataclasses import replace
from datetime import datetime

from service.access import Client, ClientKey
from service.errors import ClientExists, ClientNotFound, StoreUnavailable


class FakeClients:
    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}
        self._lock = threading.Lock()

    def add(self, client: Client) -> None:
        with self._lock:
            if client.name in self._clients:
                raise ClientExists("there is, or was, a client of this name")
            taken = {key.key_id for each in self.all() for key in each.keys}
            if taken & {key.key_id for key in client.keys}:
                raise StoreUnavailable("the record does not answer")
            self._clients[client.name] = client

    def all(self) -> list[Client]:
        return [self._clients[name] for name in sorted(self._clients)]

    def of_key(self, key_id: str) -> Client | None:
        for client in self.all():
            for key in client.keys:
                if key.key_id == key_id:
                    return replace(client, keys=(key,))
        return None

    def add_key(self, name: str, key: ClientKey, others_end_at: datetime) -> Client:
        with self._lock:
            client = self._existing(name)
            if client.revoked_at is not None:
                raise ClientNotFound("there is no such client")
            ended = [replace(each, expires_at=min(each.expires_at, others_end_at)) for each in client.keys]
            self._clients[name] = replace(client, keys=(*ended, key))
            return self._clients[name]

    def revoke(self, name: str, now: datetime) -> Client:
        with self._lock:
            client = self._existing(name)
            keys = tuple(replace(each, revoked_at=each.revoked_at or now) for each in client.keys)
            self._clients[name] = replace(client, revoked_at=client.revoked_at or now, keys=keys)
            return self._clients[name]

    def note_use(self, key_id: str, now: datetime) -> None:
        with self._lock:
            for client in self.all():
                keys = tuple(
                    replace(each, last_used_at=max(each.last_used_at or now, now)) if each.key_id == key_id else each
                    for each in client.keys
                )
                self._clients[client.name] = replace(client, keys=keys)

    def _existing(self, name: str) -> Client:
        if name not in self._clients:
            raise ClientNotFound("there is no such client")
        return self._clients[name]
