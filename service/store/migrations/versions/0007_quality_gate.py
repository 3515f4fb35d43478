"""Which samples a gallery refuses for their quality; the galleries that exist refuse none."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("galleries", sa.Column("quality_gate", sa.Text(), nullable=False, server_default="off"))
