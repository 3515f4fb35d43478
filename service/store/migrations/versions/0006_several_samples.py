"""How many subjects of a gallery have several templates, and the best pair beside a fused score."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_COUNT = """
UPDATE galleries SET several_count = (
    SELECT COUNT(*) FROM (
        SELECT encounters.subject_id FROM encounters
        JOIN templates ON templates.gallery_id = encounters.gallery_id
            AND templates.encounter_id = encounters.encounter_id
        WHERE encounters.gallery_id = galleries.gallery_id AND templates.active
        GROUP BY encounters.subject_id HAVING COUNT(*) > 1
    ) AS with_several
)
"""


def upgrade() -> None:
    op.add_column("galleries", sa.Column("several_count", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("candidates", sa.Column("pair_score", sa.Double(), nullable=True))
    op.execute(_COUNT)
