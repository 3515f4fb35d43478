"""AES-256-GCM as everything here uses it: a secret or a value sealed under a key, bound to what it belongs to.

Source: NIST SP 800-38D (GCM), section 8.2.2 (random nonces) and 8.3 (at most 2**32 of them under one key).
"""

import hashlib
import hmac
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.errors import Undecipherable

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def name_of(key: bytes) -> str:
    """Return a name that tells keys apart and says nothing of them."""
    return hmac.new(key, b"biodedup key name", hashlib.sha256).hexdigest()[:16]


class Cipher:
    """Seals and unseals under one key. Threads may share it."""

    def __init__(self, key: bytes) -> None:
        self._gcm = AESGCM(key)

    def seal(self, plain: bytes | memoryview, context: bytes) -> bytes:
        """Return nonce, ciphertext and tag, 28 bytes longer; `context` is needed to unseal and is not kept."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._gcm.encrypt(nonce, plain, context)

    def unseal(self, sealed: bytes | memoryview, context: bytes) -> bytes:
        """Return what `seal` was given. Raises Undecipherable."""
        if len(sealed) < NONCE_BYTES + TAG_BYTES:
            raise Undecipherable("an encrypted value ends too early")
        try:
            return self._gcm.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
        except InvalidTag as error:
            raise Undecipherable("an encrypted value was changed, moved, or sealed under another key") from error
