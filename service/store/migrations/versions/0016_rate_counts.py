"""Counters of rate limits, shared by the processes on one database."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

IDENTIFIER = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    # without a write-ahead log: after a crash of the server the table is empty, and a minute is counted anew
    prefixes = ["UNLOGGED"] if op.get_bind().dialect.name == "postgresql" else []
    op.create_table(
        "rate_counts",
        sa.Column("counter", IDENTIFIER, nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("counter", name="pk_rate_counts"),
        prefixes=prefixes,
    )
