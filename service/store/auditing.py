"""The audit trail in the record: entries are appended, each with the hash of the one before, and read."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from service.acting import current_actor
from service.audit_chain import (
    NO_HASH,
    SERVICE_CHAIN,
    AuditEntry,
    AuditEvent,
    NewEntry,
    SeenSubject,
    SubjectEntry,
    details_text,
    pack_references,
    unpack_references,
)
from service.audit_check import ChainPoint
from service.errors import AuditChainBroken, KeyDestroyed, Undecipherable
from service.key_ring import with_key_id, without_key_id
from service.ports import SubjectCipher
from service.store.keys import insert_or_ignore
from service.store.parts import in_parts
from service.store.prepared import Prepared
from service.store.reading import read_gallery
from service.store.rows import AnyRow
from service.store.sealing import key_of
from service.store.tables import audit_chains, audit_entries, audit_subjects, subjects

_HEAD = Prepared(
    select(audit_chains.c.seq, audit_chains.c.hash)
    .where(audit_chains.c.chain == bindparam("wanted"))
    .with_for_update(key_share=True)
)
_MOVE_HEAD = Prepared(
    update(audit_chains)
    .where(audit_chains.c.chain == bindparam("of_chain"))
    .values(seq=bindparam("new_seq"), hash=bindparam("new_hash"))
)
_INSERT_ENTRY = Prepared(insert(audit_entries))
_INSERT_SUBJECT = Prepared(lambda dialect_name: insert_or_ignore(dialect_name, audit_subjects))

# held until the commit: whoever erases one of them waits, and then finds this entry too
_KNOWN = (
    select(subjects.c.subject_id, subjects.c.key_id)
    .where(
        subjects.c.gallery_id == bindparam("in_gallery"),
        subjects.c.subject_id.in_(bindparam("among", expanding=True)),
    )
    .with_for_update(read=True, key_share=True)
)
_IS_KNOWN = Prepared(
    select(subjects.c.subject_id, subjects.c.key_id)
    .where(subjects.c.gallery_id == bindparam("in_gallery"), subjects.c.subject_id == bindparam("wanted"))
    .with_for_update(read=True, key_share=True)
)
_ENTRIES = select(audit_entries).order_by(audit_entries.c.seq)

_Known = tuple[SeenSubject, str | None]
"""Somebody who is in the record, and the id of their key."""


class Recorder:
    """Appends entries to chains, inside the transactions of a store.

    The head of a chain is the last lock that a transaction takes, and of several chains in the order of their names:
    galleries and subjects before it, so that nobody waits in a circle.

    Args:
        cipher: of the references to subjects.
        on_entry: told the event of each entry.
        is_on: whether anything is written; off in a benchmark alone, which measures what it costs.
    """

    def __init__(
        self, cipher: SubjectCipher, on_entry: Callable[[AuditEvent], None] = lambda _: None, *, is_on: bool = True
    ) -> None:
        self._cipher = cipher
        self._on_entry = on_entry
        self._is_on = is_on

    def begin_chain(self, connection: Connection, chain: str) -> None:
        """Make a chain without entries, where there is none of this name."""
        row = {"chain": chain, "seq": 0, "hash": NO_HASH}
        connection.execute(insert_or_ignore(connection.dialect.name, audit_chains), row)

    def write(
        self,
        connection: Connection,
        chain: str,
        new: NewEntry,
        now: datetime,
        known: tuple[str, str | None] | None = None,
    ) -> None:
        """Append an entry on behalf of whoever acts; who was erased meanwhile is referred to no more.

        Args:
            connection: whose transaction goes on.
            chain: to append to.
            new: what is done.
            now: time zone aware.
            known: a subject of the chain's gallery that cannot be erased meanwhile, and the id of its key.

        Raises:
            GalleryNotFound: there is no such gallery.
            AuditChainBroken: its chain has no head, or the next number is taken.
        """
        if not self._is_on:
            return
        seen = _still_there(connection, chain, new.subjects, known)
        entry = self._entry(connection, chain, new, now, seen)
        # a copy of the entry with its hash would cost as much as the hash
        its_hash = entry.own_hash()
        try:
            _INSERT_ENTRY.run(connection, {**_columns(entry), "hash": its_hash})
        except IntegrityError as error:
            raise AuditChainBroken("an entry that nobody appended lies behind the head of this chain") from error
        for position, (each, _) in enumerate(seen):
            place = {"chain": chain, "seq": entry.seq, "position": position}
            owner = {"gallery_id": each.gallery_id or chain, "subject_id": each.subject_id}
            _INSERT_SUBJECT.run(connection, {**owner, **place})
        _MOVE_HEAD.run(connection, {"of_chain": chain, "new_seq": entry.seq, "new_hash": its_hash})
        self._on_entry(new.event)

    def _entry(
        self, connection: Connection, chain: str, new: NewEntry, now: datetime, seen: Sequence[_Known]
    ) -> AuditEntry:
        """Take the head of the chain and return the entry behind it, still without its hash."""
        head = _HEAD.one_or_none(connection, {"wanted": chain})
        if head is None:
            if chain != SERVICE_CHAIN:
                read_gallery(connection, chain)
            raise AuditChainBroken("the head of this chain was removed")
        seq, actor = head["seq"] + 1, current_actor()
        return AuditEntry(
            chain=chain,
            seq=seq,
            created_at=now,
            event=new.event.value,
            outcome=new.outcome,
            client_id=actor.client_id,
            purpose=actor.purpose,
            agreement_id=actor.agreement_id,
            request_id=actor.request_id,
            details_json=details_text(new.details),
            references=self._references(chain, seq, seen),
            previous=head["hash"],
            hash=NO_HASH,
        )

    def _references(self, chain: str, seq: int, seen: Sequence[_Known]) -> tuple[bytes, ...]:
        """Return the ciphertexts; none where nothing is encrypted, for what stands in a chain stays for ever."""
        if self._cipher.is_plain:
            return ()
        return tuple(
            without_key_id(
                self._cipher.seal(each.gallery_id or chain, key_id, each.plain(), _context(chain, seq, place))
            )
            for place, (each, key_id) in enumerate(seen)
        )

    def opened(self, gallery_id: str, subject_id: str, key_id: str | None, row: AnyRow) -> SubjectEntry:
        """Return the entry of a row with what its reference at the row's position says of the subject.

        A reference that is another's, or that was tampered with, proves nothing.
        """
        entry = to_entry(row)
        try:
            sealed = with_key_id(key_id or "", entry.references[row.position])
            plain = self._cipher.open(gallery_id, sealed, _context(entry.chain, entry.seq, row.position))
            found = json.loads(plain)
        except (IndexError, ValueError, KeyDestroyed, Undecipherable):
            return SubjectEntry(entry, None, None, is_proven=False)
        is_proven = found["subject_id"] == subject_id
        return SubjectEntry(entry, found["role"], found["encounter_id"], is_proven)


def _context(chain: str, seq: int, position: int) -> bytes:
    return f"biodedup audit reference\0{chain}\0{seq}\0{position}".encode()


def _still_there(
    connection: Connection, chain: str, seen: Sequence[SeenSubject], known: tuple[str, str | None] | None
) -> list[_Known]:
    """Return those of the subjects that are in the record, each once, with the ids of their keys."""
    by_gallery: dict[str, dict[str, SeenSubject]] = {}
    for each in seen:
        by_gallery.setdefault(each.gallery_id or chain, {}).setdefault(each.subject_id, each)
    found: list[_Known] = []
    if known is not None and known[0] in by_gallery.get(chain, {}):
        found.append((by_gallery[chain].pop(known[0]), known[1]))
    for gallery_id, wanted in by_gallery.items():
        if len(wanted) == 1:  # as of every view of a record
            (subject_id,) = wanted
            row = _IS_KNOWN.one_or_none(connection, {"in_gallery": gallery_id, "wanted": subject_id})
            if row is not None:
                found.append((wanted[subject_id], row["key_id"]))
            continue
        for part in in_parts(list(wanted)):
            rows = connection.execute(_KNOWN, {"in_gallery": gallery_id, "among": part})
            keys = {row.subject_id: row.key_id for row in rows}
            found += [(wanted[each], keys[each]) for each in part if each in keys]
    return found


def _columns(entry: AuditEntry) -> dict[str, Any]:
    return {
        "chain": entry.chain,
        "seq": entry.seq,
        "created_at": entry.created_at,
        "event": entry.event,
        "outcome": entry.outcome,
        "client_id": entry.client_id,
        "purpose": entry.purpose,
        "agreement_id": entry.agreement_id,
        "request_id": entry.request_id,
        "details": entry.details_json,
        "subject_references": pack_references(entry.references) or None,
        "previous": entry.previous,
        "hash": entry.hash,
    }


def to_entry(row: AnyRow) -> AuditEntry:
    return AuditEntry(
        chain=row.chain,
        seq=row.seq,
        created_at=row.created_at,
        event=row.event,
        outcome=row.outcome,
        client_id=row.client_id,
        purpose=row.purpose,
        agreement_id=row.agreement_id,
        request_id=row.request_id,
        details_json=row.details,
        references=unpack_references(row.subject_references or b""),
        previous=row.previous,
        hash=row.hash,
    )


def entries_after(
    connection: Connection, chain: str, after: int, limit: int, event: AuditEvent | None = None
) -> list[AuditEntry]:
    """Return up to `limit` entries of a chain behind a number, in order; those of one event or all."""
    wanted = _ENTRIES.where(audit_entries.c.chain == chain, audit_entries.c.seq > after).limit(limit)
    if event is not None:
        wanted = wanted.where(audit_entries.c.event == event.value)
    return [to_entry(row) for row in connection.execute(wanted)]


def chain_heads(connection: Connection, chain: str | None = None) -> dict[str, ChainPoint]:
    """Return how far each chain is, or one; it is not among them where it is not there."""
    wanted: Select[*tuple[Any, ...]] = select(audit_chains).order_by(audit_chains.c.chain)
    if chain is not None:
        wanted = wanted.where(audit_chains.c.chain == chain)
    return {row.chain: ChainPoint(row.seq, row.hash) for row in connection.execute(wanted)}


def entries_about(connection: Connection, gallery_id: str, subject_id: str, recorder: Recorder) -> list[SubjectEntry]:
    """Return the entries of all chains that concern a subject, oldest first."""
    is_about = audit_subjects.c.gallery_id == gallery_id, audit_subjects.c.subject_id == subject_id
    of_entry = (audit_entries.c.chain == audit_subjects.c.chain) & (audit_entries.c.seq == audit_subjects.c.seq)
    rows = connection.execute(
        select(audit_entries, audit_subjects.c.position)
        .select_from(audit_subjects.join(audit_entries, of_entry))
        .where(*is_about)
        .order_by(audit_entries.c.created_at, audit_entries.c.chain, audit_entries.c.seq)
    ).all()
    if not rows:
        return []
    key_id = key_of(connection, gallery_id, subject_id)
    return [recorder.opened(gallery_id, subject_id, key_id, row) for row in rows]


def forget_subject(connection: Connection, gallery_id: str, subject_id: str) -> None:
    """Leave no way from a subject, whose row was deleted before, to the entries that concerned it."""
    is_about = audit_subjects.c.gallery_id == gallery_id, audit_subjects.c.subject_id == subject_id
    connection.execute(delete(audit_subjects).where(*is_about))
