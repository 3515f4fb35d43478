"""Master keys whose bytes this process holds: from a file or from the environment."""

import base64
import binascii
from collections.abc import Mapping

from service.ciphers import KEY_BYTES, Cipher, name_of
from service.errors import MasterKeyUnusable, Undecipherable
from service.ports import Wrapped


class WrappingKeys:
    """Keys by their names, the newest last: it wraps, all unwrap."""

    def __init__(self, keys: Mapping[str, Cipher]) -> None:
        """At least one key."""
        self._keys = dict(keys)
        self.newest = list(self._keys)[-1]

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def wrap(self, secret: bytes, context: bytes) -> Wrapped:
        return Wrapped(self.newest, self._keys[self.newest].seal(secret, context))

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Raises MasterKeyUnusable."""
        if key_id not in self._keys:
            raise wrong_key(key_id, ", ".join(self._keys))
        try:
            return self._keys[key_id].unseal(wrapped, context)
        except Undecipherable as error:
            raise MasterKeyUnusable("a wrapped gallery key was changed: restore the key store") from error


class EnvironmentMasterKey:
    """`service.ports.MasterKey` over what two settings hold: this key and, while it is changed, the next one."""

    def __init__(self, key: str, next_key: str | None) -> None:
        """Both in base64. Raises MasterKeyUnusable."""
        given = [_decoded(each) for each in (key, next_key) if each is not None]
        self._keys = WrappingKeys({name_of(each): Cipher(each) for each in given})
        self._has_next = next_key is not None

    @property
    def key_id(self) -> str:
        return self._keys.newest

    def wrap(self, secret: bytes, context: bytes) -> Wrapped:
        return self._keys.wrap(secret, context)

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Return what the key of that name wrapped. Raises MasterKeyUnusable."""
        return self._keys.unwrap(key_id, wrapped, context)

    def renew(self) -> None:
        """Raise MasterKeyUnusable: only who starts the process can give it another key."""
        raise MasterKeyUnusable(
            "a process cannot draw a key for its own environment: start it with the next key in "
            "BIODEDUP_NEXT_MASTER_KEY beside BIODEDUP_MASTER_KEY, then rotate"
        )

    def retire(self) -> None:
        """Nothing: whoever starts the process next gives it the new key alone."""

    def close(self) -> None:
        """Nothing is open."""


def wrong_key(wanted: str, given: str) -> MasterKeyUnusable:
    return MasterKeyUnusable(
        f"the gallery keys are wrapped by the master key {wanted}, and the one given is {given}: give the right one; "
        "nothing was written"
    )


def _decoded(text: str) -> bytes:
    """Raises MasterKeyUnusable."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES or not any(key):
        raise MasterKeyUnusable(
            f"BIODEDUP_MASTER_KEY and BIODEDUP_NEXT_MASTER_KEY are {KEY_BYTES} random bytes in base64: "
            "`openssl rand -base64 32` makes one"
        )
    return key
