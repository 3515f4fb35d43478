"""What was erased, for good, without a way to the person."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

IDENTIFIER = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("receipt_id", IDENTIFIER, nullable=False),
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("key_id", IDENTIFIER),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("compacted_by", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key_backups_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("parts", sa.JSON(), nullable=False),
        sa.Column("public_key_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("repeat_digest", IDENTIFIER),
        sa.PrimaryKeyConstraint("receipt_id", name="pk_erasures"),
        sa.UniqueConstraint("gallery_id", "repeat_digest", name="uq_erasures_gallery_id_repeat_digest"),
    )
    op.create_index("ix_erasures_key_id", "erasures", ["key_id"])
