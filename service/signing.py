"""Ed25519 as receipts use it: who has the public key can tell that a text was signed here and not changed since.

Source: RFC 8032 (a signature follows from key and text alone: the same text has the same signature).
"""

import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

_NAME_DIGITS = 16


class SigningKey:
    """A private key. Threads may share it."""

    def __init__(self, seed: bytes) -> None:
        """`seed`: 32 random bytes, which the key follows from."""
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def public(self) -> "PublicKey":
        return PublicKey(self._key.public_key())

    def sign(self, text: bytes) -> bytes:
        """Return 64 bytes."""
        return self._key.sign(text)


class PublicKey:
    """What verifies the signatures of a `SigningKey`."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key

    @classmethod
    def from_pem(cls, text: str) -> "PublicKey":
        """Read what `pem` wrote. Raises ValueError."""
        try:
            key = load_pem_public_key(text.encode())
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if isinstance(key, Ed25519PublicKey):
            return cls(key)
        raise ValueError("this is no public key of Ed25519 in PEM")

    @property
    def pem(self) -> str:
        """The key as a PEM text, as `openssl` reads it."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def name(self) -> str:
        """16 hexadecimal digits of the key's SHA-256, which tell keys apart."""
        return hashlib.sha256(self._key.public_bytes_raw()).hexdigest()[:_NAME_DIGITS]

    def has_signed(self, text: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(signature, text)
        except InvalidSignature:
            return False
        return True
