"""Two packs in one gallery while its model changes: templates of both, counted, and the job that makes them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

OLD_KEY = "uq_templates_gallery_id_encounter_id_position"
NEW_KEY = "uq_templates_gallery_id_encounter_id_position_pack_id"
PLACE = ["gallery_id", "encounter_id", "position"]


def upgrade() -> None:
    for name in ("standby_pack_id", "standby_model_id", "standby_calibration_id"):
        op.add_column("galleries", sa.Column(name, sa.Text(), nullable=True))
    for name in ("standby_template_count", "paired_count"):
        op.add_column("galleries", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("left_out", sa.BigInteger(), nullable=True))
    for name in ("from_pack_id", "to_pack_id", "stage"):
        op.add_column("jobs", sa.Column(name, sa.Text(), nullable=True))
    for table in ("candidates", "case_pairs"):
        op.add_column(table, sa.Column("pack_id", sa.Text(), nullable=True))
    op.add_column("case_pairs", sa.Column("pair_score", sa.Double(), nullable=True))
    if op.get_bind().dialect.name == "sqlite":
        _make_templates_anew()
    else:
        op.drop_constraint(OLD_KEY, "templates", type_="unique")
        op.create_unique_constraint(NEW_KEY, "templates", [*PLACE, "pack_id"])


def _make_templates_anew() -> None:
    """SQLite cannot drop a constraint: Alembic copies the rows into a table that has the other one."""
    connection = op.get_bind()
    last_id = connection.execute(sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'templates'")).scalar()
    table_kwargs = {"sqlite_autoincrement": True}
    with op.batch_alter_table("templates", recreate="always", table_kwargs=table_kwargs) as batch:
        batch.drop_constraint(OLD_KEY, type_="unique")
        batch.create_unique_constraint(NEW_KEY, [*PLACE, "pack_id"])
    if last_id is not None:  # numbers of erased templates are never used again
        connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = 'templates'"))
        connection.execute(sa.text("INSERT INTO sqlite_sequence VALUES ('templates', :last)"), {"last": last_id})
