"""The keys of all galleries: the master key opens gallery keys, these open the data key of each subject.

A value carries the id of its data key, so that it is opened without asking the record whose it is.
"""

import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from service.ciphers import Cipher, new_key
from service.errors import (
    KeyDestroyed,
    KeyRotationUnderway,
    KeysMissing,
    MasterKeyUnusable,
    Undecipherable,
)
from service.ports import GalleryKey, KeyStore, MasterKey, SubjectKey

POOL_KEYS = 256
"""Data keys that one transaction of the key store writes ahead."""

CACHED_KEYS = 20_000
"""Data keys of subjects that are kept unwrapped: those that were drawn or asked for last."""

# no image format begins like this; and no embedding has this length, since it makes the sealed one odd
HEADER = b"\xbdkey\x01"
GALLERY_HEADER = b"\xbdgal\x01"
"""In front of what is sealed under a gallery's key itself; the version of that key follows, in 4 bytes."""
_KEY_ID_BYTES = 16
_PREFIX_BYTES = len(HEADER) + _KEY_ID_BYTES
SEALED_BYTES = _PREFIX_BYTES + 28
"""By how much a sealed value is longer than the plain one."""

_ATTEMPTS, _PAUSE_S = 20, 0.05  # to add a gallery's first key while another process begins a rotation

_MANY = 1_000  # values that are opened at once and do not come soon again: their keys are not kept


def new_key_id(now_s: float) -> str:
    """Return a random id that sorts by time: keys that are used together lie together in the key store."""
    return f"{int(now_s * 1000):012x}{secrets.token_hex(10)}"


def gallery_context(gallery_id: str, version: int) -> bytes:
    return f"biodedup gallery key\0{gallery_id}\0{version}".encode()


def subject_context(gallery_id: str, key_id: str) -> bytes:
    return f"biodedup subject key\0{gallery_id}\0{key_id}".encode()


class MasterKeys(NamedTuple):
    """Which master key wraps now, and how many gallery keys each has wrapped."""

    key_id: str
    gallery_keys: dict[str, int]


class KeyRing:
    """`service.ports.SubjectCipher` over a key store and a master key. Threads may share it."""

    is_plain = False

    def __init__(self, store: KeyStore, master: MasterKey, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since 1970, for the ids of keys."""
        self._store = store
        self._master = master
        self._clock = clock
        self._rotation = threading.Lock()
        self._lock = threading.Lock()  # of what is below
        self._galleries: dict[tuple[str, int], bytes] = {}
        self._newest: dict[str, int] = {}
        # ready, oldest first: each is given to a subject or, at the end, discarded
        self._pools: dict[str, list[str]] = {}
        self._keys: OrderedDict[str, bytes] = OrderedDict()

    @property
    def store_id(self) -> str:
        return self._store.store_id

    def check(self) -> None:
        """Open a gallery key of each master key that wrapped any. Raises MasterKeyUnusable, StoreUnavailable."""
        by_master = {each.master_key_id: each for each in self._store.gallery_keys()}
        for each in by_master.values():
            self._unwrap_gallery_key(each)

    def announce(self) -> None:
        """Let no gallery key be added under another master key than this process's. After `check`."""
        self._store.set_master_key(self._master.key_id)

    def master_keys(self) -> MasterKeys:
        """Return which master key wraps now, and how many gallery keys each has wrapped."""
        counts = Counter(each.master_key_id for each in self._store.gallery_keys())
        return MasterKeys(self._master.key_id, dict(sorted(counts.items())))

    def rotate_master_key(self) -> int:
        """Wrap every gallery key by another master key, while everything goes on; return how many these were.

        One that was interrupted is finished, and no further key is drawn.

        Raises:
            KeyRotationUnderway: another thread is at it.
            MasterKeyUnusable, StoreUnavailable: what was wrapped anew stays so, and all is readable as before.
        """
        if not self._rotation.acquire(blocking=False):
            raise KeyRotationUnderway("the master key is being rotated already")
        try:
            with self._lock:  # no gallery begins between the two, under a key that the store does not take yet
                if not self._wrapped_by_others():
                    self._master.renew()
                self._store.set_master_key(self._master.key_id)
            rewrapped = 0
            while old := self._wrapped_by_others():
                for before in old:
                    context = gallery_context(before.gallery_id, before.version)
                    key_id, data = self._master.wrap(self._unwrap_gallery_key(before), context)
                    after = GalleryKey(before.gallery_id, before.version, data, key_id)
                    rewrapped += self._store.rewrap(before, after)
            with self._lock:  # whoever has read a key as it was has opened it
                self._master.retire()
            return rewrapped
        finally:
            self._rotation.release()

    def _wrapped_by_others(self) -> list[GalleryKey]:
        newest = self._master.key_id
        return [each for each in self._store.gallery_keys() if each.master_key_id != newest]

    def _unwrap_gallery_key(self, key: GalleryKey) -> bytes:
        return self._master.unwrap(key.master_key_id, key.wrapped, gallery_context(key.gallery_id, key.version))

    def gallery_key(self, gallery_id: str) -> bytes:
        """Return the newest key of a gallery, drawn at its first use. Raises MasterKeyUnusable, StoreUnavailable."""
        with self._lock:
            return self._newest_key(gallery_id)[1]

    def take_keys(self, gallery_id: str, count: int) -> list[str | None]:
        """Return ids of new keys; see `service.ports.SubjectCipher`."""
        with self._lock:
            pool = self._pools.setdefault(gallery_id, [])
            if len(pool) < count:
                pool += self._draw(gallery_id, max(count - len(pool), POOL_KEYS))
            taken: list[str | None] = [*pool[:count]]
            del pool[:count]
        return taken

    def give_back(self, gallery_id: str, key_ids: Sequence[str | None]) -> None:
        with self._lock:
            if gallery_id in self._pools:
                self._pools[gallery_id].extend(each for each in key_ids if each is not None)

    def seal(self, gallery_id: str, key_id: str | None, plain: bytes, context: bytes) -> bytes:
        """Return a value sealed; see `service.ports.SubjectCipher`."""
        if key_id is None:
            raise Undecipherable("this subject was enrolled by a process that encrypts nothing: stop it and start anew")
        return HEADER + bytes.fromhex(key_id) + Cipher(self._key(gallery_id, key_id)).seal(plain, context)

    def open(self, gallery_id: str, sealed: bytes, context: bytes) -> bytes:
        """Return what `seal` was given; see `service.ports.SubjectCipher`."""
        cipher = Cipher(self._key(gallery_id, _key_id_of(sealed)))
        return cipher.unseal(memoryview(sealed)[_PREFIX_BYTES:], context)

    def open_all(self, gallery_id: str, values: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        """Return many values; see `service.ports.SubjectCipher`."""
        key_ids = [_key_id_of(sealed) for sealed, _ in values]
        keys = self._keys_of(gallery_id, key_ids)
        return [
            None if (key := keys.get(key_id)) is None else Cipher(key).unseal(sealed[_PREFIX_BYTES:], context)
            for key_id, (sealed, context) in zip(key_ids, values, strict=True)
        ]

    def seal_of_gallery(self, gallery_id: str, plain: bytes, context: bytes) -> bytes:
        """Return a value of no subject sealed; see `service.ports.SubjectCipher`."""
        with self._lock:
            version, key = self._newest_key(gallery_id)
        return GALLERY_HEADER + version.to_bytes(4, "big") + Cipher(key).seal(plain, context)

    def open_of_gallery(self, gallery_id: str, sealed: bytes, context: bytes) -> bytes:
        """Return what `seal_of_gallery` was given; see `service.ports.SubjectCipher`."""
        start = len(GALLERY_HEADER) + 4
        if not sealed.startswith(GALLERY_HEADER) or len(sealed) < start:
            raise Undecipherable("a value of a gallery is not encrypted though it must be")
        version = int.from_bytes(sealed[len(GALLERY_HEADER) : start], "big")
        return Cipher(self._version_of(gallery_id, version)).unseal(sealed[start:], context)

    def destroy(self, key_ids: Sequence[str]) -> None:
        """Destroy the keys of erased subjects. Raises StoreUnavailable."""
        self._store.destroy(key_ids)
        self._forget(key_ids)

    def forget_destroyed(self) -> None:
        """Drop from memory the keys that another process destroyed meanwhile. Raises StoreUnavailable."""
        with self._lock:
            kept = list(self._keys)
        self._forget(self._store.destroyed(kept))

    def _forget(self, key_ids: Iterable[str]) -> None:
        with self._lock:
            for each in key_ids:
                self._keys.pop(each, None)

    def unpurged_since(self) -> datetime | None:
        """Return since when a destroyed key may still lie in the key store's files. Raises StoreUnavailable."""
        return self._store.unpurged_since()

    def purge(self) -> None:
        """Leave nothing of destroyed keys in the key store's files. Raises StoreUnavailable."""
        self._store.purge()

    def close(self) -> None:
        """Forget all keys; those that lie ready go from the key store, too."""
        with self._lock:
            ready = [each for pool in self._pools.values() for each in pool]
            self._pools.clear()
            self._keys.clear()
            self._galleries.clear()
            self._newest.clear()
        self._master.close()
        if ready:
            self._store.discard(ready)

    def _key(self, gallery_id: str, key_id: str) -> bytes:
        key = self._keys_of(gallery_id, [key_id]).get(key_id)
        if key is None:
            raise KeyDestroyed("what this encrypted was erased")
        return key

    def _keys_of(self, gallery_id: str, key_ids: Sequence[str]) -> dict[str, bytes]:
        """Return the data keys by id, without those that were destroyed."""
        with self._lock:
            known = {each: key for each in key_ids if (key := self._keys.get(each)) is not None}
        unknown = list({each for each in key_ids if each not in known})
        if not unknown:
            return known
        wrapped = self._store.subject_keys(unknown)
        if len(wrapped) < len(unknown):
            self._expect_destroyed([each for each in unknown if each not in wrapped])
        found = {each: self._unwrap(gallery_id, key) for each, key in wrapped.items()}
        if len(found) <= _MANY:
            with self._lock:
                self._keep(found)
        return {**known, **found}

    def _expect_destroyed(self, key_ids: Sequence[str]) -> None:
        """Raises KeysMissing: nobody destroyed them, they are lost. To go on would lose people from the search."""
        if set(key_ids) - self._store.destroyed(key_ids):
            raise KeysMissing("the key store lacks keys of subjects that nobody erased: restore its newest backup")

    def _keep(self, keys: dict[str, bytes]) -> None:
        """With the lock held."""
        self._keys.update(keys)
        while len(self._keys) > CACHED_KEYS:
            self._keys.popitem(last=False)

    def _unwrap(self, gallery_id: str, key: SubjectKey) -> bytes:
        if key.gallery_id != gallery_id:
            raise Undecipherable("a value lies in another gallery than the key that it names")
        gallery_key = self._version_of(gallery_id, key.version)
        return Cipher(gallery_key).unseal(key.wrapped, subject_context(gallery_id, key.key_id))

    def _version_of(self, gallery_id: str, version: int) -> bytes:
        """Return a key of a gallery, the newest or an earlier one. Raises KeysMissing."""
        gallery_key = self._galleries.get((gallery_id, version))
        if gallery_key is None:
            with self._lock:
                self._load(gallery_id)
            gallery_key = self._galleries.get((gallery_id, version))
        if gallery_key is None:
            raise KeysMissing("the key store lacks the key of a gallery: restore its newest backup")
        return gallery_key

    def _draw(self, gallery_id: str, count: int) -> list[str]:
        """Write new data keys to the key store and return their ids, in their order."""
        version, gallery_key = self._newest_key(gallery_id)
        cipher = Cipher(gallery_key)
        drawn = {new_key_id(self._clock()): new_key() for _ in range(count)}
        self._store.add_subject_keys(
            [
                SubjectKey(each, gallery_id, version, cipher.seal(key, subject_context(gallery_id, each)))
                for each, key in drawn.items()
            ]
        )
        self._keep(drawn)
        return sorted(drawn)

    def _newest_key(self, gallery_id: str) -> tuple[int, bytes]:
        if gallery_id not in self._newest:
            self._load(gallery_id)
        for attempt in range(_ATTEMPTS):
            if gallery_id in self._newest:
                break
            if attempt > 0:
                time.sleep(_PAUSE_S)
            key_id, data = self._master.wrap(new_key(), gallery_context(gallery_id, 1))
            # another process may be a moment earlier, and its key is read; or be rotating the master key
            self._store.add_gallery_key(GalleryKey(gallery_id, 1, data, key_id))
            self._load(gallery_id)
        else:
            raise MasterKeyUnusable("another process has rotated the master key: start this one with the new key")
        version = self._newest[gallery_id]
        return version, self._galleries[gallery_id, version]

    def _load(self, gallery_id: str) -> None:
        try:
            self._open_gallery_keys(gallery_id)
        except MasterKeyUnusable:
            # a rotation that ended between the reading and the opening: read again
            self._open_gallery_keys(gallery_id)

    def _open_gallery_keys(self, gallery_id: str) -> None:
        for each in self._store.gallery_keys(gallery_id):
            self._galleries[gallery_id, each.version] = self._unwrap_gallery_key(each)
            self._newest[gallery_id] = each.version


def without_key_id(sealed: bytes) -> bytes:
    """Return a sealed value that does not tell which key it was sealed with, nor that two have the same."""
    return sealed[_PREFIX_BYTES:]


def with_key_id(key_id: str, bare: bytes) -> bytes:
    """Return what `without_key_id` was given."""
    return HEADER + bytes.fromhex(key_id) + bare


def _key_id_of(sealed: bytes) -> str:
    """Raises Undecipherable."""
    if not sealed.startswith(HEADER):
        raise Undecipherable("a value is not encrypted though it must be: was it written by an earlier version?")
    return sealed[len(HEADER) : _PREFIX_BYTES].hex()
