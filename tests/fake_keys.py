"""A key store and a master key in memory."""

import uuid
from collections.abc import Sequence

from service.ciphers import Cipher, new_key
from service.errors import MasterKeyUnusable
from service.keys.file_key import name_of
from service.ports import GalleryKey, SubjectKey


class FakeKeyStore:
    """`service.ports.KeyStore` in memory."""

    def __init__(self) -> None:
        self.store_id = uuid.uuid4().hex
        self._gallery_keys: dict[tuple[str, int], GalleryKey] = {}
        self._subject_keys: dict[str, SubjectKey] = {}
        self._destroyed: set[str] = set()

    def gallery_keys(self, gallery_id: str | None = None) -> list[GalleryKey]:
        return [key for _, key in sorted(self._gallery_keys.items()) if gallery_id in {None, key.gallery_id}]

    def add_gallery_key(self, key: GalleryKey) -> bool:
        place = key.gallery_id, key.version
        return self._gallery_keys.setdefault(place, key) is key

    def add_subject_keys(self, keys: Sequence[SubjectKey]) -> None:
        self._subject_keys.update({key.key_id: key for key in keys})

    def subject_keys(self, key_ids: Sequence[str]) -> dict[str, SubjectKey]:
        return {each: self._subject_keys[each] for each in key_ids if each in self._subject_keys}

    def discard(self, key_ids: Sequence[str]) -> None:
        for each in key_ids:
            self._subject_keys.pop(each, None)

    def destroy(self, key_ids: Sequence[str]) -> None:
        self.discard(key_ids)
        self._destroyed.update(key_ids)

    def destroyed(self, key_ids: Sequence[str]) -> set[str]:
        return self._destroyed & set(key_ids)


class FakeMasterKey:
    """`service.ports.MasterKey` in memory."""

    def __init__(self) -> None:
        key = new_key()
        self.key_id, self._cipher = name_of(key), Cipher(key)

    def wrap(self, secret: bytes, context: bytes) -> bytes:
        return self._cipher.seal(secret, context)

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        if key_id != self.key_id:
            raise MasterKeyUnusable("another master key is needed")
        return self._cipher.unseal(wrapped, context)
