"""How far each import of templates is, and who was erased meanwhile."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

IDENTIFIER = sa.String().with_variant(sa.String(collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "imports",
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("source_id", IDENTIFIER, nullable=False),
        sa.Column("content_digest", sa.Text(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("added", sa.BigInteger(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["gallery_id"], ["galleries.gallery_id"], name="fk_imports_gallery_id_galleries"),
        sa.PrimaryKeyConstraint("gallery_id", "source_id", name="pk_imports"),
    )
    op.create_table(
        "import_erasures",
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("source_id", IDENTIFIER, nullable=False),
        sa.Column("subject_digest", IDENTIFIER, nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_id", "source_id"],
            ["imports.gallery_id", "imports.source_id"],
            name="fk_import_erasures_gallery_id_imports",
        ),
        sa.PrimaryKeyConstraint("gallery_id", "source_id", "subject_digest", name="pk_import_erasures"),
    )
