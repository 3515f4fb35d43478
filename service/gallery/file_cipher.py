"""Encryption of one file of the index: AES-256-GCM under a key of its own, which the master key wraps.

Source: NIST SP 800-38D (GCM), sections 8.2 (construction of nonces) and 8.3 (how many under one key).
"""

import secrets
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.gallery.damage import Damage, SnapshotDamaged

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
WRAPPED_KEY_BYTES = NONCE_BYTES + KEY_BYTES + TAG_BYTES

# A nonce is the part's four letters and the piece's number (SP 800-38D, 8.2.1, the deterministic construction). It
# never comes twice under one key: each file draws a new key, is written once from front to back, and an interrupted
# write is begun anew with another key. So no nonce is stored, and a piece opens at its own place only.
_NONCE = struct.Struct(">4sQ")


class FileCipher:
    """Seals and unseals the pieces of one file; a piece taken to another place, part or file does not unseal.

    Threads may share it.
    """

    def __init__(self, data_key: bytes, name: str) -> None:
        self._gcm = AESGCM(data_key)
        self._name = name.encode()

    @classmethod
    def draw(cls, master_key: bytes, name: str, header: bytes) -> tuple[Self, bytes]:
        """Return a cipher with a new key, and that key wrapped: 60 bytes, bound to the file's name and header."""
        data_key = secrets.token_bytes(KEY_BYTES)
        return cls(data_key, name), seal_once(master_key, data_key, _wrap_context(name, header))

    @classmethod
    def unwrap(cls, master_key: bytes, name: str, header: bytes, wrapped: bytes) -> Self:
        """Return the cipher of a file. Raises SnapshotDamaged."""
        return cls(unseal_once(master_key, wrapped, _wrap_context(name, header)), name)

    def seal(self, part: bytes, number: int, piece: bytes | memoryview) -> bytes:
        """Return the piece encrypted, 16 bytes longer. `part` is four letters; a pair (part, number) is used once."""
        return self._gcm.encrypt(_NONCE.pack(part, number), piece, self._name)

    def unseal(self, part: bytes, pieces: Iterable[tuple[int, bytes | memoryview]]) -> bytes:
        """Return the numbered pieces decrypted and joined. Raises SnapshotDamaged."""
        # one loop for all: a call for each row costs as much as a tenth of its decryption
        decrypt, nonce, name = self._gcm.decrypt, _NONCE.pack, self._name
        with _authentication("a piece of an index file was changed or moved"):
            return b"".join([decrypt(nonce(part, number), piece, name) for number, piece in pieces])

    def unseal_into(self, part: bytes, number: int, piece: bytes, target: memoryview) -> None:
        """Decrypt one large piece to where it belongs, without a copy. Raises SnapshotDamaged."""
        with _authentication("a piece of an index file was changed or moved"):
            self._gcm.decrypt_into(_NONCE.pack(part, number), piece, self._name, target)


def seal_once(master_key: bytes, secret: bytes, context: bytes) -> bytes:
    """Return nonce and ciphertext of a small secret, bound to its context.

    The nonce is random, which is safe for 2**32 of them under one master key (SP 800-38D, 8.3): one a second for a
    hundred years.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(master_key).encrypt(nonce, secret, context)


def unseal_once(master_key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Return what `seal_once` was given. Raises SnapshotDamaged."""
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise SnapshotDamaged(Damage.LENGTH, "an index file ends too early")
    with _authentication("an index file was changed, or written under another master key"):
        return AESGCM(master_key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)


@contextmanager
def _authentication(message: str) -> Iterator[None]:
    try:
        yield
    except InvalidTag as error:
        raise SnapshotDamaged(Damage.AUTHENTICATION, message) from error


def _wrap_context(name: str, header: bytes) -> bytes:
    return b"biodedup data key\0" + header + name.encode()
