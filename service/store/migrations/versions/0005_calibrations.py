"""Calibrations of galleries, and the audit trail of what they are judged by."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

IDENTIFIER = sa.String().with_variant(sa.String(collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("galleries", sa.Column("calibration_id", sa.Text(), nullable=True))
    op.add_column("galleries", sa.Column("thresholds_key", sa.Text(), nullable=True))
    op.create_table(
        "calibrations",
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("calibration_id", IDENTIFIER, nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["gallery_id"], ["galleries.gallery_id"], name="fk_calibrations_gallery_id_galleries"),
        sa.PrimaryKeyConstraint("gallery_id", "calibration_id", name="pk_calibrations"),
    )
    op.create_table(
        "audit",
        sa.Column("entry_id", ROW_NUMBER, sa.Identity(always=False), nullable=False),
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["gallery_id"], ["galleries.gallery_id"], name="fk_audit_gallery_id_galleries"),
        sa.PrimaryKeyConstraint("entry_id", name="pk_audit"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_gallery_id_entry_id", "audit", ["gallery_id", "entry_id"], unique=False)
