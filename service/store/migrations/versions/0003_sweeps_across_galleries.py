"""Sweeps of one gallery against another, and the cases of one sweep in their order."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

IDENTIFIER = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    # without a foreign key: SQLite can add none to a table, and no gallery is ever deleted
    op.add_column("jobs", sa.Column("other_gallery_id", IDENTIFIER, nullable=True))
    op.create_index("ix_case_pairs_job_id_case_id", "case_pairs", ["job_id", "case_id"], unique=False)
