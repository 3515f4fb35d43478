"""What a human decided on a case."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("verdict", "decided_by"):
        op.add_column("cases", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("cases", sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_cases_gallery_id_verdict_kind", "cases", ["gallery_id", "verdict", "kind"])
