"""Enrolments that search further galleries: their candidates elsewhere, and how far a gallery was seen by others."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0011"
branch_labels = None
depends_on = None

IDENTIFIER = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("galleries", sa.Column("searched_seq", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "candidates_elsewhere",
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("enrolment_id", IDENTIFIER, nullable=False),
        sa.Column("rank", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("other_gallery_id", IDENTIFIER, nullable=False),
        sa.Column("subject_id", IDENTIFIER, nullable=True),
        sa.Column("encounter_id", IDENTIFIER, nullable=True),
        sa.Column("reference_id", sa.BigInteger(), nullable=True),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("fmr", sa.Double(), nullable=False),
        sa.Column("fmr_upper", sa.Double(), nullable=False),
        sa.Column("extrapolated", sa.Boolean(), nullable=False),
        sa.Column("pair_score", sa.Double(), nullable=True),
        sa.Column("pack_id", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["gallery_id", "enrolment_id"],
            ["enrolments.gallery_id", "enrolments.enrolment_id"],
            name="fk_candidates_elsewhere_gallery_id_enrolment_id_enrolments",
        ),
        sa.ForeignKeyConstraint(
            ["other_gallery_id", "subject_id"],
            ["subjects.gallery_id", "subjects.subject_id"],
            name="fk_candidates_elsewhere_other_gallery_id_subject_id_subjects",
        ),
        sa.PrimaryKeyConstraint("gallery_id", "enrolment_id", "rank", name="pk_candidates_elsewhere"),
    )
    op.create_index(
        "ix_candidates_elsewhere_other_gallery_id_subject_id",
        "candidates_elsewhere",
        ["other_gallery_id", "subject_id"],
    )
