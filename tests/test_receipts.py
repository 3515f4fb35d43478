"""A receipt verifies as it was signed, and not with any byte of it changed."""

import hashlib
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from service.domain import ErasedParts, ErasureRecord
from service.errors import ReceiptInvalid
from service.receipts import ReceiptIssuer, canonical, erasure_record, is_of, verified
from service.signing import PublicKey, SigningKey
from tests.world import START, new_issuer

PARTS = ErasedParts(1, 2, 2, 3, 3, 1, 4, 1, 5)


def erased(issuer: ReceiptIssuer, idempotency_key: str | None = None) -> tuple[ErasureRecord, str]:
    """Return what is kept of an erasure of P-1041, and its nonce."""
    terms = issuer.terms("camp", idempotency_key)
    return erasure_record(terms, "camp", "P-1041", key_id="ab" * 16, parts=PARTS, seq=7, now=START), terms.nonce


@pytest.fixture(scope="module")
def receipt() -> bytes:
    issuer = new_issuer()
    record, nonce = erased(issuer)
    return issuer.signed(record, "P-1041", nonce)


def test_a_receipt_says_what_was_erased_when_and_until_when_copies_last(receipt: bytes) -> None:
    found = verified(receipt, new_issuer().public_key)

    assert (found["gallery_id"], found["subject_id"], found["key_id"]) == ("camp", "P-1041", "ab" * 16)
    assert found["erased_at"] == "2026-03-01T08:00:00.000000Z"
    assert found["compacted_by"] == "2026-03-02T08:00:00.000000Z"
    assert found["key_backups_until"] == "2026-03-31T08:00:00.000000Z"
    assert found["parts"] == {
        "data_keys": 1, "encounters": 2, "enrolments": 2, "templates": 3, "index_places": 3, "samples": 1,
        "candidates": 4, "cases": 1, "mentions": 5,
    }  # fmt: skip


def test_no_bit_of_a_receipt_can_be_changed(receipt: bytes) -> None:
    key = new_issuer().public_key
    verified(receipt, key)
    passed = []
    for place in range(len(receipt)):
        for bit in range(8):
            changed = bytearray(receipt)
            changed[place] ^= 1 << bit
            try:
                verified(bytes(changed), key)
            except ReceiptInvalid:
                continue
            passed.append((place, bit))
    assert passed == []


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + b"\n",
        lambda text: b" " + text,
        lambda text: text[:-1],
        lambda text: text.replace(b'","', b'", "', 1),
        lambda text: json.dumps(json.loads(text), indent=1).encode(),
        lambda text: text.replace(b'"encounters":2', b'"encounters":2.0'),
        lambda text: text[:-1] + b',"zz":1}',
        lambda text: text[:-1] + b',"subject_id":"P-1041"}',
        lambda _: b"",
        lambda _: b"[]",
        lambda _: b"[" * 100_000,
        lambda _: b'"\xff"',
    ],
)
def test_a_receipt_that_is_written_otherwise_does_not_verify(receipt: bytes, change: object) -> None:
    changed = change(receipt)  # type: ignore[operator]  # one of the functions above
    assert changed != receipt
    with pytest.raises(ReceiptInvalid):
        verified(changed, new_issuer().public_key)


@pytest.mark.parametrize("field", ["subject_id", "erased_at", "key_backups_until", "parts", "nonce"])
def test_who_has_no_key_cannot_make_another_receipt(receipt: bytes, field: str) -> None:
    forged = json.loads(receipt)
    forged[field] = {**forged["parts"], "templates": 9} if field == "parts" else "0" * 32
    body = {name: value for name, value in forged.items() if name not in {"digest", "signature"}}
    forged["digest"] = hashlib.sha256(canonical(body)).hexdigest()
    with pytest.raises(ReceiptInvalid, match="signature"):
        verified(canonical(forged), new_issuer().public_key)


def test_another_services_receipt_is_told_from_a_changed_one(receipt: bytes) -> None:
    with pytest.raises(ReceiptInvalid, match="another key"):
        verified(receipt, SigningKey(bytes(32)).public)


def test_a_public_key_is_read_from_its_pem() -> None:
    key = new_issuer().public_key
    assert PublicKey.from_pem(key.pem).name == key.name
    for text in ("", "-----BEGIN PUBLIC KEY-----\nabcd\n-----END PUBLIC KEY-----\n", key.pem[:-40]):
        with pytest.raises(ValueError, match="Ed25519"):
            PublicKey.from_pem(text)


def test_what_is_kept_fits_the_erased_subject_alone_and_only_with_the_nonce() -> None:
    issuer = new_issuer()
    record, nonce = erased(issuer)
    assert is_of(record, "P-1041", nonce)
    assert not is_of(record, "P-1042", nonce)
    assert not is_of(record, "P-1041", "0" * 32)
    assert nonce not in repr(record)
    assert "P-1041" not in repr(record)


def test_a_repeat_is_known_by_its_key_in_its_gallery_and_by_nobody_without_the_secret() -> None:
    issuer, other = new_issuer(), ReceiptIssuer(lambda: bytes(32), timedelta(1), timedelta(1))
    first, nonce = erased(issuer, "once")
    again = issuer.terms("camp", "once")

    assert again.repeat_digest == first.repeat_digest
    assert again.receipt_id != first.receipt_id
    assert issuer.nonce(first.receipt_id, "once") == nonce
    assert issuer.terms("village", "once").repeat_digest != first.repeat_digest
    assert issuer.terms("camp", "twice").repeat_digest != first.repeat_digest
    assert other.terms("camp", "once").repeat_digest != first.repeat_digest
    assert issuer.terms("camp", None).repeat_digest is None


def test_a_receipt_is_the_same_bytes_each_time() -> None:
    issuer = new_issuer()
    record, nonce = erased(issuer)
    assert issuer.signed(record, "P-1041", nonce) == issuer.signed(replace(record), "P-1041", nonce)
