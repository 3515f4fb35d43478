"""What the hash of an entry covers, written out once more as docs/audit.md describes it."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import combinations

import pytest

from service.audit_chain import NO_HASH, AuditEntry, details_text, pack_references, unpack_references

ENTRY = AuditEntry(
    chain="camp",
    seq=7,
    created_at=datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC),
    event="image.viewed",
    outcome=None,
    client_id="client:desk",
    purpose="review",
    agreement_id=None,
    request_id="r-1",
    details_json='{"position":0}',
    references=(b"\x01\x02", b"\x03"),
    previous=bytes(range(32)),
    hash=NO_HASH,
).sealed()


def framed(value: bytes | None) -> bytes:
    return b"\xff\xff\xff\xff" if value is None else len(value).to_bytes(4, "big") + value


def test_the_hash_is_what_the_documentation_says() -> None:
    fields = [
        b"biodedup audit entry 1", b"camp", b"7", b"2026-03-01T12:00:00.000005Z", b"image.viewed",
        None, b"client:desk", b"review", None, b"r-1", b'{"position":0}',
        b"\x00\x00\x00\x02\x01\x02\x00\x00\x00\x01\x03", bytes(range(32)),
    ]  # fmt: skip
    assert ENTRY.hash == hashlib.sha256(b"".join(map(framed, fields))).digest()


def test_no_two_contents_have_one_encoding() -> None:
    base = replace(ENTRY, outcome=None, purpose=None, agreement_id=None, request_id=None)
    alike = [
        base,
        replace(base, outcome=""),
        replace(base, purpose=""),
        replace(base, event="image.viewedX", client_id="client:desk"),
        replace(base, event="image.viewed", client_id="Xclient:desk"),
        replace(base, references=(b"\x01\x02\x03",)),
        replace(base, references=(b"\x01", b"\x02\x03")),
        replace(base, references=(b"\x01\x02\x00\x00\x00\x01\x03",)),
        replace(base, references=()),
        replace(base, references=(b"",)),
    ]
    assert all(one.own_hash() != other.own_hash() for one, other in combinations(alike, 2))


def test_one_moment_in_another_zone_has_the_same_hash() -> None:
    elsewhere = ENTRY.created_at.astimezone(timezone(timedelta(hours=3)))
    assert replace(ENTRY, created_at=elsewhere).own_hash() == ENTRY.hash


def test_a_line_of_an_export_says_all_that_is_hashed() -> None:
    assert AuditEntry.from_line(ENTRY.to_line()) == ENTRY
    assert json.loads(ENTRY.to_line())["details"] == '{"position":0}'


@pytest.mark.parametrize(
    "line", ["", "[]", "7", "{}", ENTRY.to_line().replace('"seq":7', '"seq":"x"'), ENTRY.to_line()[:-1],
             ENTRY.to_line().replace('"event":"image.viewed"', '"event":null'),
             ENTRY.to_line().replace('"previous":"', '"previous":"zz')],
)  # fmt: skip
def test_another_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="no entry of an audit trail"):
        AuditEntry.from_line(line)


def test_references_are_joined_and_taken_apart() -> None:
    references = (b"", b"a" * 300, b"\xff\xff\xff\xff")
    assert unpack_references(pack_references(references)) == references
    assert unpack_references(b"") == ()
    assert unpack_references(b"\x00\x00\x00\x09abc") == (b"\x00\x00\x00\x09abc",)


def test_details_have_one_text() -> None:
    assert details_text({"b": 1, "a": 0.1}) == '{"a":0.1,"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        details_text({"a": float("nan")})
