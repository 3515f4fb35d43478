"""The register of erasures in the record: what was erased when, and nothing that leads to a person."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError

from service.domain import ErasedParts, ErasureRecord
from service.erasure_ledger import LedgerLine
from service.errors import IdempotencyKeyReused
from service.store.parts import in_parts
from service.store.rows import AnyRow
from service.store.tables import changes, erasures, key_destructions, subjects

ERASING_KINDS = ("erasure", "withdrawn")
"""Changes after which the index must hold nothing any more of what it removed."""


def insert_erasure(connection: Connection, record: ErasureRecord) -> None:
    """Raises IdempotencyKeyReused: the request that this one seems to repeat erased somebody else."""
    try:
        connection.execute(insert(erasures), _row_of(record))
    except IntegrityError as error:
        raise IdempotencyKeyReused("the Idempotency-Key was used for another request") from error


def restore_erasures(connection: Connection, records: Sequence[ErasureRecord]) -> None:
    """Write what the register lacks of these erasures, so that a repeat of the request is known."""
    for record in lacking_erasures(connection, records):
        # two of them may have been asked for by one request, where two ledgers were joined
        known = replace(record, repeat_digest=None) if is_repeated(connection, record) else record
        connection.execute(insert(erasures), _row_of(known))


def lacking_erasures(connection: Connection, records: Sequence[ErasureRecord]) -> list[ErasureRecord]:
    """Return those that the register lacks: where there are any, an older record was restored."""
    known = set(connection.execute(select(erasures.c.receipt_id)).scalars())
    lacking = [each for each in records if each.receipt_id not in known]
    return [each for each in lacking if not is_repeated(connection, each)]


def is_repeated(connection: Connection, record: ErasureRecord) -> bool:
    """Whether the register knows another erasure, or this one, by the same request."""
    digest = record.repeat_digest
    return digest is not None and erasure_by(connection, record.gallery_id, digest) is not None


def erasure_by(connection: Connection, gallery_id: str, repeat_digest: str) -> ErasureRecord | None:
    """Return the erasure that a request asked for, None where it asked for none yet."""
    wanted = erasures.c.gallery_id == gallery_id, erasures.c.repeat_digest == repeat_digest
    row = connection.execute(select(erasures).where(*wanted)).one_or_none()
    return None if row is None else _record_of(row)


def _row_of(record: ErasureRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__slots__} | {"parts": asdict(record.parts)}


def _record_of(row: AnyRow) -> ErasureRecord:
    columns = dict(row._mapping)
    return ErasureRecord(**columns | {"parts": ErasedParts(**columns["parts"])})


def undestroyed(connection: Connection) -> list[LedgerLine]:
    """Return what the ledger is to say of the keys that are noted to be destroyed."""
    of_key = key_destructions.outerjoin(erasures, erasures.c.key_id == key_destructions.c.key_id)
    wanted = select(key_destructions.c.key_id.label("noted"), erasures).select_from(of_key)
    return [_line_of(row) for row in connection.execute(wanted)]


def _line_of(row: AnyRow) -> LedgerLine:
    columns = dict(row._mapping)
    line = LedgerLine(columns.pop("noted"), row.erased_at, row.gallery_id, row.receipt_id, row.digest)
    if row.receipt_id is None:  # a key of nobody, such as that of a hold
        return line
    return replace(line, record=ErasureRecord(**columns | {"parts": ErasedParts(**row.parts)}))


def oldest_undestroyed(connection: Connection) -> datetime | None:
    """Return when the oldest erasure was whose key is not destroyed yet."""
    of_key = key_destructions.join(erasures, erasures.c.key_id == key_destructions.c.key_id)
    oldest: datetime | None = connection.execute(
        select(func.min(erasures.c.erased_at)).select_from(of_key)
    ).scalar_one()
    return oldest


def subjects_under(connection: Connection, key_ids: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return gallery, subject and key of everybody whose data key is one of these."""
    columns = subjects.c.gallery_id, subjects.c.subject_id, subjects.c.key_id
    found: list[tuple[str, str, str]] = []
    for part in in_parts(list(key_ids)):
        rows = connection.execute(select(*columns).where(subjects.c.key_id.in_(part)))
        found += [(row.gallery_id, row.subject_id, row.key_id) for row in rows]
    return found


def first_erasing(connection: Connection, gallery_id: str, after: int) -> tuple[int, datetime] | None:
    """Return number and time of the first change behind `after` that erased templates."""
    wanted = (
        select(changes.c.seq, changes.c.created_at)
        .where(changes.c.gallery_id == gallery_id, changes.c.seq > after, changes.c.kind.in_(ERASING_KINDS))
        .order_by(changes.c.seq)
        .limit(1)
    )
    row = connection.execute(wanted).one_or_none()
    return None if row is None else (row.seq, row.created_at)
