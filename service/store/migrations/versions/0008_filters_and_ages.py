"""Filters by sex and year of birth, the age below which nothing is DUPLICATE, and counts of templates by both."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

IDENTIFIER = sa.String().with_variant(sa.String(collation="C"), "postgresql")

_COUNT = """
INSERT INTO metadata_counts (gallery_id, sex, birth_year, templates)
SELECT encounters.gallery_id,
       CASE WHEN encounters.sex IN ('female', 'male') THEN encounters.sex ELSE '' END AS known_sex,
       COALESCE(encounters.birth_year, 0) AS known_year,
       COUNT(*)
FROM encounters
JOIN templates ON templates.gallery_id = encounters.gallery_id AND templates.encounter_id = encounters.encounter_id
WHERE templates.active AND (encounters.sex IN ('female', 'male') OR encounters.birth_year IS NOT NULL)
GROUP BY encounters.gallery_id, known_sex, known_year
"""


def upgrade() -> None:
    for column in (
        sa.Column("filter_by_sex", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("filter_by_birth_year", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("birth_year_tolerance", sa.Integer(), nullable=False, server_default="5"),
        sa.Column("min_duplicate_age", sa.Integer(), nullable=False, server_default="18"),
        sa.Column("review_unknown_age", sa.Boolean(), nullable=False, server_default=sa.false()),
    ):
        op.add_column("galleries", column)
    op.create_table(
        "metadata_counts",
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("sex", sa.Text(), nullable=False),
        sa.Column("birth_year", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("templates", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_id"], ["galleries.gallery_id"], name="fk_metadata_counts_gallery_id_galleries"
        ),
        sa.PrimaryKeyConstraint("gallery_id", "sex", "birth_year", name="pk_metadata_counts"),
        sqlite_with_rowid=False,
    )
    op.execute(_COUNT)
