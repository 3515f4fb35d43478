"""Clients that call with API keys, and the digests of their keys."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_name = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "clients",
        sa.Column("name", _name, nullable=False),
        sa.Column("grants", sa.JSON(), nullable=False),
        sa.Column("created_at", _moment, nullable=False),
        sa.Column("revoked_at", _moment),
        sa.PrimaryKeyConstraint("name", name="pk_clients"),
    )
    op.create_table(
        "client_keys",
        sa.Column("key_id", _name, nullable=False),
        sa.Column("client", _name, nullable=False),
        sa.Column("secret_digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", _moment, nullable=False),
        sa.Column("expires_at", _moment, nullable=False),
        sa.Column("last_used_at", _moment),
        sa.Column("revoked_at", _moment),
        sa.PrimaryKeyConstraint("key_id", name="pk_client_keys"),
        sa.ForeignKeyConstraint(["client"], ["clients.name"], name="fk_client_keys_client_clients"),
    )
    op.create_index("ix_client_keys_client", "client_keys", ["client"])
