"""The audit trail becomes a chain for each gallery and one for the service: each entry holds the hash of the last."""

import hashlib
import json
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

IDENTIFIER = sa.String().with_variant(sa.String(collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)
BLOCK = 1000


def upgrade() -> None:
    entries, chains = _make_tables()
    connection = op.get_bind()
    names = connection.execute(sa.text("SELECT gallery_id FROM galleries ORDER BY gallery_id")).scalars().all()
    for chain in (":service", *names):
        seq, last = _move(connection, entries, chain)
        connection.execute(sa.insert(chains), {"chain": chain, "seq": seq, "hash": last})
    op.drop_index("ix_audit_gallery_id_entry_id", table_name="audit")
    op.drop_table("audit")


def _make_tables() -> tuple[sa.Table, sa.Table]:
    entries = op.create_table(
        "audit_entries",
        sa.Column("chain", IDENTIFIER, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=True),
        sa.Column("agreement_id", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("subject_references", sa.LargeBinary(), nullable=True),
        sa.Column("previous", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain", "seq", name="pk_audit_entries"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_audit_entries_chain_event_seq", "audit_entries", ["chain", "event", "seq"])
    chains = op.create_table(
        "audit_chains",
        sa.Column("chain", IDENTIFIER, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("chain", name="pk_audit_chains"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "audit_subjects",
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("subject_id", IDENTIFIER, nullable=False),
        sa.Column("chain", IDENTIFIER, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("gallery_id", "subject_id", "chain", "seq", name="pk_audit_subjects"),
        sqlite_with_rowid=False,
    )
    return entries, chains


def _move(connection: sa.Connection, entries: sa.Table, chain: str) -> tuple[int, bytes]:
    """Chain a gallery's entries in their order; return the number and the hash of the last."""
    old = sa.table("audit", *(sa.column(name) for name in ("entry_id", "gallery_id", "event")),
                   sa.column("details", sa.JSON()), sa.column("created_at", MOMENT))  # fmt: skip
    seq, last, entry_id = 0, bytes(32), 0
    while True:
        wanted = sa.select(old).where(old.c.gallery_id == chain, old.c.entry_id > entry_id)
        rows = connection.execute(wanted.order_by(old.c.entry_id).limit(BLOCK)).all()
        if not rows:
            return seq, last
        moved = []
        for row in rows:
            seq += 1
            # SQLite keeps no zone: what went in as UTC comes out without one
            moment = row.created_at.replace(tzinfo=UTC) if row.created_at.tzinfo is None else row.created_at
            details = json.dumps(row.details, allow_nan=False, sort_keys=True, separators=(",", ":"))
            entry = {
                "chain": chain,
                "seq": seq,
                "created_at": moment.astimezone(UTC),
                "event": row.event,
                # who acted was not written down then
                "client_id": "unknown",
                "details": details,
                "previous": last,
            }
            last = _hash(entry)
            moved.append({**entry, "hash": last})
        connection.execute(sa.insert(entries), moved)
        entry_id = rows[-1].entry_id


def _hash(entry: dict[str, object]) -> bytes:
    """Return the hash as docs/audit.md describes it; written out here since a migration must never change."""
    moment = entry["created_at"]
    assert isinstance(moment, datetime)
    fields = [
        b"biodedup audit entry 1",
        str(entry["chain"]).encode(),
        str(entry["seq"]).encode(),
        moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode(),
        str(entry["event"]).encode(),
        None,
        str(entry["client_id"]).encode(),
        None,
        None,
        None,
        str(entry["details"]).encode(),
        b"",
        entry["previous"],
    ]
    digest = hashlib.sha256()
    for field in fields:
        if field is None:
            digest.update(b"\xff\xff\xff\xff")
        else:
            assert isinstance(field, bytes)
            digest.update(len(field).to_bytes(4, "big") + field)
    return digest.digest()
