"""The use case of clients: who may call with API keys, and until when."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from service.access import Client, Grant, Role
from service.api_keys import ApiKeys, make_key
from service.audit_chain import AuditEvent
from service.errors import ClientExists
from service.ports import Clients

FIRST_CLIENT = "admin"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A client and a key of it, which is nowhere else: it is shown once."""

    client: Client
    key: str = field(repr=False)


class ClientService:
    """Adds, lists, rotates and revokes. Every change of who may call comes through here, that of a recovery too.

    Args:
        clients: the record of them.
        keys: forgets at once what was revoked here.
        clock: time zone aware.
        lifetime: of a key where none is given.
        on_change: told what became of which client, once it is so: the audit trail.
    """

    def __init__(
        self,
        clients: Clients,
        keys: ApiKeys,
        clock: Callable[[], datetime],
        lifetime: timedelta = timedelta(days=365),
        *,
        on_change: Callable[[AuditEvent, str], None] = lambda _event, _name: None,
    ) -> None:
        self._clients = clients
        self.keys = keys
        self._clock = clock
        self._lifetime = lifetime
        self._on_change = on_change

    def clients(self) -> list[Client]:
        """Return all clients in the order of their names, revoked ones among them."""
        return self._clients.all()

    def add(self, name: str, grants: Sequence[Grant], lifetime: timedelta | None = None) -> NewKey:
        """Make a client with its first key. Raises ClientExists."""
        now = self._clock()
        text, key = make_key(now, lifetime or self._lifetime)
        client = Client(name, tuple(grants), now, keys=(key,))
        self._clients.add(client)
        self._on_change(AuditEvent.CLIENT_ADDED, name)
        return NewKey(client, text)

    def rotate(self, name: str, overlap: timedelta, lifetime: timedelta | None = None) -> NewKey:
        """Make a further key of a client; those it has end after the overlap. Raises ClientNotFound."""
        now = self._clock()
        text, key = make_key(now, lifetime or self._lifetime)
        client = self._clients.add_key(name, key, now + overlap)
        self.keys.forget()
        self._on_change(AuditEvent.CLIENT_ROTATED, name)
        return NewKey(client, text)

    def revoke(self, name: str) -> Client:
        """End a client and its keys at once and for good. Raises ClientNotFound."""
        client = self._clients.revoke(name, self._clock())
        self.keys.forget()
        self._on_change(AuditEvent.CLIENT_REVOKED, name)
        return client

    def begin(self) -> NewKey | None:
        """Make the first client of a record that has none yet: an administrator of all galleries."""
        if self._clients.all():
            return None
        try:
            return self.add(FIRST_CLIENT, _ALL_ADMIN)
        except ClientExists:  # another process on the same database was a moment earlier
            return None

    def recover(self) -> NewKey:
        """Make a further administrator of all galleries, for those who lost every key of one; the others stay."""
        for number in itertools.count(1):
            try:
                return self.add(FIRST_CLIENT if number == 1 else f"{FIRST_CLIENT}-{number}", _ALL_ADMIN)
            except ClientExists:
                continue
        raise AssertionError("counting does not end")


_ALL_ADMIN = (Grant(Role.ADMIN),)
