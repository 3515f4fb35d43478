"""Ways to tamper with a chain of audit entries, each told by its number in the chain (from 1)."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from service.audit_chain import NO_HASH, AuditEntry, unpack_references
from service.audit_check import FaultKind

Entries = list[AuditEntry]


def _other_text(text: str | None, random: Random) -> str:
    if not text:
        return "x"
    place = random.randrange(len(text))
    return text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]


def _other_bytes(value: bytes, random: Random) -> bytes:
    flipped = bytearray(value)
    flipped[random.randrange(len(value))] ^= 1 << random.randrange(8)
    return bytes(flipped)


def flipped(entry: AuditEntry, random: Random) -> AuditEntry:
    """Return the entry with one of its fields changed, but its number: that is another entry removed."""
    texts = ("event", "outcome", "client_id", "purpose", "agreement_id", "request_id", "details_json")
    name = random.choice([*texts, "created_at", "references", "previous", "hash"])
    if name == "created_at":
        return replace(entry, created_at=entry.created_at + timedelta(microseconds=random.choice((-1, 1))))
    if name == "references":
        first = _other_bytes(entry.references[0], random) if entry.references else b"x"
        return replace(entry, references=(first, *entry.references[1:]))
    changed = _other_bytes if name in {"previous", "hash"} else _other_text
    return replace(entry, **{name: changed(getattr(entry, name), random)})  # type: ignore[arg-type]  # by name


def renumbered(entries: Entries) -> Entries:
    return [replace(each, seq=number) for number, each in enumerate(entries, 1)]


def flip(entries: Entries, random: Random) -> tuple[Entries, int]:
    place = random.randrange(len(entries))
    return [*entries[:place], flipped(entries[place], random), *entries[place + 1 :]], place + 1


def drop(entries: Entries, random: Random) -> tuple[Entries, int]:
    place = random.randrange(len(entries))
    return entries[:place] + entries[place + 1 :], place + 1


def drop_and_renumber(entries: Entries, random: Random) -> tuple[Entries, int]:
    left, place = drop(entries, random)
    return renumbered(left), place


def insert_copy(entries: Entries, random: Random) -> tuple[Entries, int]:
    """Put a copy of some entry somewhere, and give all behind it the next number."""
    place, other = random.randrange(len(entries)), random.choice(entries)
    return renumbered([*entries[:place], replace(other, request_id="planted"), *entries[place:]]), place + 1


def insert_chained(entries: Entries, random: Random) -> tuple[Entries, int]:
    """Put in an entry that is rightly chained to the one before it."""
    place = random.randrange(len(entries))
    previous = entries[place - 1].hash if place else bytes(32)
    planted = replace(random.choice(entries), seq=place + 1, request_id="planted", previous=previous).sealed()
    return renumbered([*entries[:place], planted, *entries[place:]]), place + 1


def swap(entries: Entries, random: Random) -> tuple[Entries, int]:
    """Let two entries change places; each takes the other's number."""
    one, other = sorted(random.sample(range(len(entries)), 2))
    swapped = entries.copy()
    swapped[one], swapped[other] = swapped[other], swapped[one]
    return renumbered(swapped), one + 1


def swap_neighbours(entries: Entries, random: Random) -> tuple[Entries, int]:
    one = random.randrange(len(entries) - 1)
    swapped = entries.copy()
    swapped[one], swapped[one + 1] = swapped[one + 1], swapped[one]
    return renumbered(swapped), one + 1


def swap_lines(entries: Entries, random: Random) -> tuple[Entries, int]:
    """Let two lines of a file change places, numbers and all."""
    one, other = sorted(random.sample(range(len(entries)), 2))
    swapped = entries.copy()
    swapped[one], swapped[other] = swapped[other], swapped[one]
    return swapped, one + 1


def rechain(entries: Entries, random: Random) -> tuple[Entries, int]:
    """Change an entry and give it the hash that its new content must have."""
    place = random.randrange(len(entries) - 1)
    changed = replace(entries[place], client_id="client:nobody").sealed()
    return [*entries[:place], changed, *entries[place + 1 :]], place + 1


WAYS: list[tuple[Callable[[Entries, Random], tuple[Entries, int]], FaultKind]] = [
    (flip, FaultKind.CHANGED),
    (rechain, FaultKind.CHANGED),
    (drop, FaultKind.REMOVED),
    (drop_and_renumber, FaultKind.REMOVED),
    (insert_copy, FaultKind.INSERTED),
    (insert_chained, FaultKind.INSERTED),
    (swap, FaultKind.REORDERED),
    (swap_neighbours, FaultKind.REORDERED),
    (swap_lines, FaultKind.REORDERED),
]


def rewrite(record: Path, chain: str, place: int) -> None:
    """Change an entry of a SQLite file and chain all that follow anew, head and all: every hash is right again."""
    columns = (
        "seq, created_at, event, outcome, client_id, purpose, agreement_id, request_id, details, subject_references"
    )
    with closing(sqlite3.connect(record, timeout=30)) as connection:
        rows = connection.execute(f"SELECT {columns} FROM audit_entries WHERE chain = ? ORDER BY seq", (chain,))
        previous = NO_HASH
        for seq, moment, event, outcome, client, purpose, agreement, request, details, references in rows.fetchall():
            entry = AuditEntry(
                chain, seq, datetime.fromisoformat(moment).replace(tzinfo=UTC), event, outcome,
                "client:nobody" if seq == place else client, purpose, agreement, request, details,
                unpack_references(references or b""), previous, NO_HASH,
            ).sealed()  # fmt: skip
            changed = (entry.client_id, previous, entry.hash, chain, seq)
            connection.execute(
                "UPDATE audit_entries SET client_id = ?, previous = ?, hash = ? WHERE chain = ? AND seq = ?", changed
            )
            previous = entry.hash
        connection.execute("UPDATE audit_chains SET hash = ? WHERE chain = ?", (previous, chain))
        connection.commit()
