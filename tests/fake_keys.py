"""A key store and a master key in memory."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from service.ciphers import Cipher, name_of, new_key
from service.errors import MasterKeyUnusable, Undecipherable
from service.ports import GalleryKey, SubjectKey, Wrapped


class FakeKeyStore:
    """`service.ports.KeyStore` in memory."""

    def __init__(self) -> None:
        self.store_id = uuid.uuid4().hex
        self._gallery_keys: dict[tuple[str, int], GalleryKey] = {}
        self._subject_keys: dict[str, SubjectKey] = {}
        self._destroyed: dict[str, datetime] = {}
        self._master_key_id: str | None = None

    def gallery_keys(self, gallery_id: str | None = None) -> list[GalleryKey]:
        return [key for _, key in sorted(self._gallery_keys.items()) if gallery_id in {None, key.gallery_id}]

    def add_gallery_key(self, key: GalleryKey) -> bool:
        if self._master_key_id not in {None, key.master_key_id}:
            return False
        self._master_key_id = key.master_key_id
        return self._gallery_keys.setdefault((key.gallery_id, key.version), key) is key

    def set_master_key(self, key_id: str) -> None:
        self._master_key_id = key_id

    def rewrap(self, before: GalleryKey, after: GalleryKey) -> bool:
        place = before.gallery_id, before.version
        if self._gallery_keys.get(place) != before:
            return False
        self._gallery_keys[place] = after
        return True

    def add_subject_keys(self, keys: Sequence[SubjectKey]) -> None:
        self._subject_keys.update({key.key_id: key for key in keys})

    def subject_keys(self, key_ids: Sequence[str]) -> dict[str, SubjectKey]:
        return {each: self._subject_keys[each] for each in key_ids if each in self._subject_keys}

    def discard(self, key_ids: Sequence[str]) -> None:
        for each in key_ids:
            self._subject_keys.pop(each, None)

    def destroy(self, key_ids: Sequence[str]) -> None:
        self.discard(key_ids)
        self._destroyed |= {each: datetime.now(UTC) for each in key_ids if each not in self._destroyed}

    def destroyed(self, key_ids: Sequence[str]) -> set[str]:
        return self._destroyed.keys() & set(key_ids)

    def all_destroyed(self) -> dict[str, datetime]:
        return dict(self._destroyed)

    def unpurged_since(self) -> datetime | None:
        return None

    def purge(self) -> None:
        """Nothing is in files."""


class FakeMasterKey:
    """`service.ports.MasterKey` in memory."""

    def __init__(self) -> None:
        self._keys: dict[str, Cipher] = {}
        self.renew()

    @property
    def key_id(self) -> str:
        return list(self._keys)[-1]

    def wrap(self, secret: bytes, context: bytes) -> Wrapped:
        return Wrapped(self.key_id, self._keys[self.key_id].seal(secret, context))

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        if key_id not in self._keys:
            raise MasterKeyUnusable("another master key is needed")
        try:
            return self._keys[key_id].unseal(wrapped, context)
        except Undecipherable as error:
            raise MasterKeyUnusable("it was changed") from error

    def renew(self) -> None:
        key = new_key()
        self._keys[name_of(key)] = Cipher(key)

    def close(self) -> None:
        """Nothing is open."""

    def retire(self) -> None:
        self._keys = {self.key_id: self._keys[self.key_id]}
