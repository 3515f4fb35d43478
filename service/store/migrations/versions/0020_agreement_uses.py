"""Uses of sharing agreements are numbered by agreement: one count over all told a partner how much others search.

Those that there are keep their numbers, by which audit trails name them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0018"
branch_labels = None
depends_on = None

IDENTIFIER = sa.String().with_variant(sa.String(collation="C"), "postgresql")
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    # made anew: SQLite cannot give a table another key, and on both the old table's names are free once it is gone
    op.execute("CREATE TABLE kept_uses AS SELECT * FROM agreement_uses")
    op.drop_table("agreement_uses")
    op.create_table(
        "agreement_uses",
        sa.Column("agreement_id", IDENTIFIER, nullable=False),
        sa.Column("use_id", ROW_NUMBER, nullable=False),
        sa.Column("used_by", sa.Text(), nullable=False),
        sa.Column("used_at", MOMENT, nullable=False),
        sa.Column("purpose", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("complete", sa.Boolean(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["agreement_id"], ["agreements.agreement_id"], name="fk_agreement_uses_agreement_id_agreements"
        ),
        sa.PrimaryKeyConstraint("agreement_id", "use_id", name="pk_agreement_uses"),
    )
    op.create_index("ix_agreement_uses_agreement_id_used_at", "agreement_uses", ["agreement_id", "used_at"])
    op.execute(
        "INSERT INTO agreement_uses "
        "(agreement_id, use_id, used_by, used_at, purpose, request_id, outcome, complete, error_code) "
        "SELECT agreement_id, use_id, used_by, used_at, purpose, request_id, outcome, complete, error_code "
        "FROM kept_uses"
    )
    op.execute("DROP TABLE kept_uses")
