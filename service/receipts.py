"""Receipts of erasures: what was erased, when, which parts, and until when which copies last; signed.

A receipt is one line of JSON in canonical form: keys in their order, no blanks, ASCII. Its digest covers all but
`digest` and `signature`, its signature the same bytes; docs/erasure.md says it for those who verify without this.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from service.audit_chain import moment_text
from service.domain import ErasedParts, ErasureRecord
from service.errors import ReceiptInvalid
from service.signing import PublicKey, SigningKey

FORMAT = "biodedup erasure receipt 1"
RECEIPTS_KEY = ":receipts"
"""What the signing key is called among the gallery keys, which the master key wraps; no gallery can be called so."""

COMPACT_WITHIN = timedelta(hours=24)
KEY_BACKUPS_KEPT = timedelta(days=30)

_SEALS = ("digest", "signature")
_TEXTS = frozenset(
    {
        "compacted_by", "digest", "erased_at", "format", "gallery_id", "key_backups_until", "nonce", "public_key_id",
        "receipt_id", "signature", "subject_id",
    }
)  # fmt: skip
_FIELDS = _TEXTS | {"key_id", "parts"}


@dataclass(frozen=True, slots=True)
class ErasureTerms:
    """What an erasure is promised with, decided before it begins."""

    receipt_id: str = field(default_factory=lambda: secrets.token_hex(16))
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))
    """Known to the holder of the receipt alone: nobody can try subjects until one fits the digest that is kept."""
    repeat_digest: str | None = None
    """By which a repeated request is known again; None: it cannot be."""
    compact_within: timedelta = COMPACT_WITHIN
    key_backups_kept: timedelta = KEY_BACKUPS_KEPT
    public_key_id: str = ""
    """Of the key that will sign; empty: nobody asked for a receipt."""


def erasure_record(
    terms: ErasureTerms,
    gallery_id: str,
    subject_id: str,
    *,
    key_id: str | None,
    parts: ErasedParts,
    seq: int,
    now: datetime,
) -> ErasureRecord:
    """Return what is kept of the erasure of a subject; `now` is time zone aware."""
    bare = ErasureRecord(
        receipt_id=terms.receipt_id,
        gallery_id=gallery_id,
        seq=seq,
        key_id=key_id,
        erased_at=now,
        compacted_by=now + terms.compact_within,
        key_backups_until=now + terms.key_backups_kept,
        parts=parts,
        public_key_id=terms.public_key_id,
        digest="",
        repeat_digest=terms.repeat_digest,
    )
    return replace(bare, digest=_digest(_body(bare, subject_id, terms.nonce)))


def is_of(record: ErasureRecord, subject_id: str, nonce: str) -> bool:
    """Whether it was this subject that was erased."""
    return hmac.compare_digest(record.digest, _digest(_body(record, subject_id, nonce)))


class ReceiptIssuer:
    """Draws up the terms of erasures and signs their receipts.

    Args:
        secret: returns the 32 bytes that the signing key follows from, drawn at the first use. It also makes of an
            Idempotency-Key what nobody can compute who has the record alone.
        compact_within: of the index files.
        key_backups_kept: age at which backups of the key store are deleted.
    """

    def __init__(self, secret: Callable[[], bytes], compact_within: timedelta, key_backups_kept: timedelta) -> None:
        self._secret, self._compact_within, self._key_backups_kept = secret, compact_within, key_backups_kept

    @property
    def public_key(self) -> PublicKey:
        """Raises MasterKeyUnusable, StoreUnavailable."""
        return SigningKey(self._secret()).public

    def terms(self, gallery_id: str, idempotency_key: str | None) -> ErasureTerms:
        """Return the terms of an erasure; with an Idempotency-Key, its repeat will be known.

        Raises:
            MasterKeyUnusable, StoreUnavailable
        """
        drawn = ErasureTerms(
            compact_within=self._compact_within,
            key_backups_kept=self._key_backups_kept,
            public_key_id=self.public_key.name,
        )
        if idempotency_key is None:
            return drawn
        return replace(
            drawn,
            nonce=self.nonce(drawn.receipt_id, idempotency_key),
            repeat_digest=self._keyed("erasure", gallery_id, idempotency_key),
        )

    def nonce(self, receipt_id: str, idempotency_key: str) -> str:
        """Return the nonce of a receipt that was asked for with this key: it is computed anew and kept nowhere."""
        return self._keyed("nonce", receipt_id, idempotency_key)[:32]

    def signed(self, record: ErasureRecord, subject_id: str, nonce: str) -> bytes:
        """Return the receipt, the same bytes each time. Raises MasterKeyUnusable, StoreUnavailable."""
        body = _body(record, subject_id, nonce)
        signature = SigningKey(self._secret()).sign(canonical(body)).hex()
        return canonical({**body, "digest": record.digest, "signature": signature})

    def _keyed(self, *parts: str) -> str:
        return hmac.new(self._secret(), canonical(parts), hashlib.sha256).hexdigest()


def canonical(value: object) -> bytes:
    """Return the one form of JSON in which receipts are written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def verified(receipt: bytes, public_key: PublicKey) -> dict[str, Any]:
    """Return the fields of a receipt, if it was signed with this key and not one byte of it was changed.

    Raises:
        ReceiptInvalid: it was, or it is no receipt.
    """
    found = _fields_of(receipt)
    body = {name: value for name, value in found.items() if name not in _SEALS}
    if found["public_key_id"] != public_key.name:
        raise ReceiptInvalid("the receipt was signed with another key than the one given")
    if found["digest"] != _digest(body):
        raise ReceiptInvalid("the receipt was changed: its digest does not fit")
    if not public_key.has_signed(canonical(body), bytes.fromhex(found["signature"])):
        raise ReceiptInvalid("the receipt was changed: its signature does not fit")
    return found


def _fields_of(receipt: bytes) -> dict[str, Any]:
    try:
        found = json.loads(receipt)
        is_canonical = canonical(found) == receipt
    except (ValueError, RecursionError) as error:
        raise ReceiptInvalid("this is no receipt, or it was changed: it cannot be read") from error
    if not isinstance(found, dict) or found.keys() != _FIELDS or found["format"] != FORMAT:
        raise ReceiptInvalid("this is no receipt, or it was changed: its fields are others")
    if not is_canonical or not all(isinstance(found[name], str) for name in _TEXTS):
        raise ReceiptInvalid("the receipt was changed: it is written otherwise than it was")
    try:
        has_capitals = bytes.fromhex(found["signature"]).hex() != found["signature"]
    except ValueError as error:
        raise ReceiptInvalid("the receipt was changed: its signature cannot be read") from error
    if has_capitals:
        raise ReceiptInvalid("the receipt was changed: its signature is written otherwise than it was")
    return found


def _body(record: ErasureRecord, subject_id: str, nonce: str) -> dict[str, Any]:
    """Return a receipt without its seals."""
    return {
        "format": FORMAT,
        "receipt_id": record.receipt_id,
        "gallery_id": record.gallery_id,
        "subject_id": subject_id,
        "erased_at": moment_text(record.erased_at),
        "parts": asdict(record.parts),
        "key_id": record.key_id,
        "compacted_by": moment_text(record.compacted_by),
        "key_backups_until": moment_text(record.key_backups_until),
        "nonce": nonce,
        "public_key_id": record.public_key_id,
    }


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(body)).hexdigest()
