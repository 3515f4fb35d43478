"""The master key in a file, by default under ./var; made at the first start."""

import hashlib
import hmac
from pathlib import Path

from service.ciphers import Cipher
from service.errors import MasterKeyUnusable, Undecipherable, VarUnusable
from service.keys.key_file import load_or_create_master_key


def name_of(key: bytes) -> str:
    """Return a name that tells keys apart and says nothing of them."""
    return hmac.new(key, b"biodedup master key", hashlib.sha256).hexdigest()[:16]


class FileMasterKey:
    """`service.ports.MasterKey` over a file of 32 bytes that only its owner may read."""

    def __init__(self, path: Path, *, may_create: bool) -> None:
        """Load the key, or make it where there is none yet.

        Raises:
            MasterKeyUnusable: there is none, and it must not be made; or the file cannot be used.
        """
        if not may_create and not path.exists():
            raise MasterKeyUnusable(
                "the master key file is not there, and keys are wrapped by it: restore the file from its backup; "
                "nothing was written"
            )
        try:
            key = load_or_create_master_key(path)
        except VarUnusable as error:
            raise MasterKeyUnusable(error.message) from error
        self._key_id, self._cipher = name_of(key), Cipher(key)

    @property
    def key_id(self) -> str:
        return self._key_id

    def wrap(self, secret: bytes, context: bytes) -> bytes:
        return self._cipher.seal(secret, context)

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Return what the key of that name wrapped. Raises MasterKeyUnusable."""
        if key_id != self._key_id:
            raise MasterKeyUnusable(
                f"the gallery keys are wrapped by the master key {key_id}, and the one given is {self._key_id}: give "
                "the right one; nothing was written"
            )
        try:
            return self._cipher.unseal(wrapped, context)
        except Undecipherable as error:
            raise MasterKeyUnusable("a wrapped gallery key was changed: restore the key store") from error
