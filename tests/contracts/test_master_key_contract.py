"""Wherever a master key is kept, it wraps alike: the fake, a file, the environment, a token, a transit engine."""

import base64
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import MasterKeyUnusable
from service.keys.sources import MasterKeySource
from service.ports import MasterKey
from tests.fake_keys import FakeMasterKey
from tests.key_sources import PIN, TOKEN, new_pkcs11_address, new_transit_address

SECRET, CONTEXT = b"\x00\xff a gallery key of 32 bytes!!!!!", "gallery caf\u00e9\0 1".encode()
KINDS = ["fake", "file", "env", "pkcs11", "transit"]


class Place:
    """One place of a master key, which a process opens at its start."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self._folder = folder
        self._fake = FakeMasterKey()
        self.opened: list[MasterKey] = []
        self.source = {
            "fake": MasterKeySource(),
            "file": MasterKeySource(f"file:{folder}/keys/the.key"),
            "env": MasterKeySource("env", _drawn()),
            "pkcs11": MasterKeySource(new_pkcs11_address(), pin=PIN) if kind == "pkcs11" else MasterKeySource(),
            "transit": MasterKeySource(new_transit_address(), token=TOKEN) if kind == "transit" else MasterKeySource(),
        }[kind]

    def open(self, *, may_create: bool = True) -> MasterKey:
        key = self._fake if self.kind == "fake" else self.source.opener(self._folder)(may_create)
        self.opened.append(key)
        return key

    def renewed(self, key: MasterKey) -> MasterKey:
        """Have a next key, as the place has it done: the environment by a start with both."""
        if self.kind == "env":
            self.source = replace(self.source, next_key=_drawn())
            return self.open()
        key.renew()
        return key


def _drawn() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    place = Place(request.param, tmp_path)
    yield place
    for each in place.opened:
        each.close()


def test_what_is_wrapped_opens_after_a_start_that_may_make_no_key(place: Place) -> None:
    key = place.open()
    wrapped = key.wrap(SECRET, CONTEXT)

    again = place.open(may_create=False)

    assert wrapped.key_id == key.key_id == again.key_id
    assert again.unwrap(wrapped.key_id, wrapped.data, CONTEXT) == SECRET
    assert SECRET not in wrapped.data


def test_the_same_secret_is_wrapped_differently_each_time(place: Place) -> None:
    key = place.open()

    assert key.wrap(SECRET, CONTEXT).data != key.wrap(SECRET, CONTEXT).data


def test_what_is_wrapped_opens_in_its_own_context_only(place: Place) -> None:
    key = place.open()
    wrapped = key.wrap(SECRET, CONTEXT)

    with pytest.raises(MasterKeyUnusable):
        key.unwrap(wrapped.key_id, wrapped.data, CONTEXT + b"2")


def test_what_was_changed_does_not_open(place: Place) -> None:
    key = place.open()
    wrapped = key.wrap(SECRET, CONTEXT)
    changed = wrapped.data[:-6] + bytes([wrapped.data[-6] ^ 2]) + wrapped.data[-5:]

    with pytest.raises(MasterKeyUnusable):
        key.unwrap(wrapped.key_id, changed, CONTEXT)


def test_what_another_key_wrapped_does_not_open(place: Place, tmp_path: Path) -> None:
    other = Place(place.kind, tmp_path / "other").open()
    wrapped = other.wrap(SECRET, CONTEXT)
    other.close()

    with pytest.raises(MasterKeyUnusable):
        place.open().unwrap(wrapped.key_id, wrapped.data, CONTEXT)


def test_while_a_key_is_changed_both_open_and_the_new_one_wraps(place: Place) -> None:
    before = place.open()
    old = before.wrap(SECRET, CONTEXT)

    key = place.renewed(before)

    new = key.wrap(SECRET, CONTEXT)
    assert new.key_id == key.key_id != old.key_id
    for opened in (key, place.open(may_create=False)):
        assert opened.key_id == new.key_id
        assert opened.unwrap(old.key_id, old.data, CONTEXT) == SECRET
        assert opened.unwrap(new.key_id, new.data, CONTEXT) == SECRET


def test_a_key_that_took_another_s_place_still_opens_what_it_wrapped(place: Place) -> None:
    key = place.renewed(place.open())
    wrapped = key.wrap(SECRET, CONTEXT)

    key.retire()

    for opened in (key, place.open(may_create=False)):
        assert opened.key_id == wrapped.key_id
        assert opened.unwrap(wrapped.key_id, wrapped.data, CONTEXT) == SECRET


@pytest.mark.parametrize("kind", ["file", "pkcs11", "transit"])
def test_a_key_that_is_missing_is_not_made_where_something_is_wrapped(kind: str, tmp_path: Path) -> None:
    place = Place(kind, tmp_path)

    for _ in range(2):
        with pytest.raises(MasterKeyUnusable, match="restore"):
            place.open(may_create=False)

    assert list(tmp_path.iterdir()) == []


WRONG: dict[str, Callable[[], MasterKeySource]] = {
    "no key": lambda: MasterKeySource("env"),
    "no base64": lambda: MasterKeySource("env", "a key, they said"),
    "a short key": lambda: MasterKeySource("env", base64.b64encode(b"short").decode()),
    "a wrong pin": lambda: MasterKeySource(new_pkcs11_address(), pin="0000"),
    "no such token": lambda: MasterKeySource(new_pkcs11_address().replace("token=camp", "token=none"), pin=PIN),
    "no such module": lambda: MasterKeySource("pkcs11:token=a;object=b?module-path=/nowhere.so", pin=PIN),
    "half an address": lambda: MasterKeySource("pkcs11:token=a", pin=PIN),
    "a wrong token": lambda: MasterKeySource(new_transit_address(), token="guessed"),
    "no server": lambda: MasterKeySource("transit:http://127.0.0.1:1/transit/key", token=TOKEN),
    "http elsewhere": lambda: MasterKeySource("transit:http://vault.example/transit/key", token=TOKEN),
    "an unknown kind": lambda: MasterKeySource("cloud:key"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_place_that_cannot_be_used_says_so_without_its_secrets(wrong: str, tmp_path: Path) -> None:
    source = WRONG[wrong]()

    with pytest.raises(MasterKeyUnusable) as caught:
        source.opener(tmp_path)(True)

    for secret in (source.key, source.pin, source.token):
        assert secret is None or secret not in caught.value.message
