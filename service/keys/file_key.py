"""The master key in a file, by default under ./var; made at the first start.

While it is changed the next one lies beside it (`master.key.next`) and wraps; both open. In the end it takes the name.
"""

import threading
from pathlib import Path

from service.ciphers import Cipher, name_of
from service.durable_files import sync_folder
from service.errors import MasterKeyUnusable, VarUnusable
from service.keys.key_file import load_key, load_or_create_master_key
from service.keys.secrets import WrappingKeys
from service.ports import Wrapped

NEXT_SUFFIX = ".next"


class FileMasterKey:
    """`service.ports.MasterKey` over files of 32 bytes that only their owner may read. Threads may share it.

    Processes may share the files: each looks whether another has changed them.
    """

    def __init__(self, path: Path, *, may_create: bool) -> None:
        """Load the key, or make it where there is none yet.

        Raises:
            MasterKeyUnusable: there is none, and it must not be made; or the file cannot be used.
        """
        self._path = path
        self._next = path.with_name(path.name + NEXT_SUFFIX)
        self._lock = threading.Lock()
        if not path.exists() and not self._next.exists():
            if not may_create:
                raise MasterKeyUnusable(
                    "the master key file is not there, and keys are wrapped by it: restore the file from its backup; "
                    "nothing was written"
                )
            _making(path)
        self._keys = self._load()

    @property
    def key_id(self) -> str:
        return self._keys.newest

    def wrap(self, secret: bytes, context: bytes) -> Wrapped:
        """Return a secret wrapped. Raises MasterKeyUnusable."""
        return self._refreshed().wrap(secret, context)

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Return what the key of that name wrapped. Raises MasterKeyUnusable."""
        keys = self._keys if key_id in self._keys else self._refreshed()
        return keys.unwrap(key_id, wrapped, context)

    def renew(self) -> None:
        """Draw the next key, beside this one. Raises MasterKeyUnusable."""
        _making(self._next)
        self._refreshed()

    def retire(self) -> None:
        """Let the next key take the place of this one. Raises MasterKeyUnusable."""
        try:
            if self._next.exists():
                self._next.replace(self._path)
                sync_folder(self._path.parent)
        except OSError as error:
            raise MasterKeyUnusable(f"the master key file cannot be replaced: {error.strerror}") from error
        self._refreshed()

    def close(self) -> None:
        """Nothing is open."""

    def _refreshed(self) -> WrappingKeys:
        with self._lock:
            self._keys = self._load()
        return self._keys

    def _load(self) -> WrappingKeys:
        # the next one first: a change that ends between the two looks has moved it to the other name
        found = []
        for path in (self._next, self._path):
            try:
                found.append(load_key(path))
            except FileNotFoundError:
                continue
            except VarUnusable as error:
                raise MasterKeyUnusable(error.message) from error
            except OSError as error:
                raise MasterKeyUnusable(f"the master key file cannot be read: {error.strerror}") from error
        if not found:
            raise MasterKeyUnusable("the master key file is not there any more: restore it from its backup")
        return WrappingKeys({name_of(key): Cipher(key) for key in reversed(found)})


def _making(path: Path) -> None:
    try:
        load_or_create_master_key(path)
    except VarUnusable as error:
        raise MasterKeyUnusable(error.message) from error
