"""Encryption at rest: the data key of each subject, what is encrypted of an encounter, the key store of the record.

What is there already is encrypted afterwards, in blocks, by `service.store.encrypting`: this has no keys.
"""

import sqlalchemy as sa
from alembic import op

from service.store.tables import Identifier

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("subjects", sa.Column("key_id", Identifier, nullable=True))
    op.create_index("ix_subjects_key_id", "subjects", ["key_id"], unique=True)
    op.add_column("encounters", sa.Column("sealed_facts", sa.LargeBinary(), nullable=True))
    op.create_table(
        "key_stores",
        sa.Column("key_store_id", sa.Text(), nullable=False),
        sa.Column("purge_due", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("key_store_id", name="pk_key_stores"),
    )
    op.create_table(
        "key_destructions",
        sa.Column("key_id", Identifier, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_key_destructions"),
    )
