"""A timeline for each pack of a gallery: the index of one that was given up is not used when it stands by again."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("galleries", sa.Column("standby_timeline_id", sa.Text(), nullable=False, server_default=""))
    _renew_those_whose_model_changed()


def _renew_those_whose_model_changed() -> None:
    """Have their indexes filled anew, once: files may hold templates of a pack that was given up before."""
    connection = op.get_bind()
    changed = sa.text("SELECT DISTINCT gallery_id FROM jobs WHERE stage IS NOT NULL")
    renewed = sa.text("UPDATE galleries SET timeline_id = :timeline WHERE gallery_id = :gallery")
    standby = sa.text(
        "UPDATE galleries SET standby_timeline_id = :timeline WHERE gallery_id = :gallery "
        "AND standby_pack_id IS NOT NULL"
    )
    for gallery_id in connection.execute(changed).scalars().all():
        for statement in (renewed, standby):
            connection.execute(statement, {"timeline": uuid.uuid4().hex, "gallery": gallery_id})
