"""Enrolments that search further galleries, with their candidates elsewhere; sharing agreements and their uses."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

IDENTIFIER = sa.String().with_variant(sa.String(collation="C"), "postgresql")


ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _add_candidates_elsewhere()
    _add_agreements()
    _add_agreement_uses()


def _add_candidates_elsewhere() -> None:
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


def _add_agreements() -> None:
    op.create_table(
        "agreements",
        sa.Column("agreement_id", IDENTIFIER, nullable=False),
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("partner_id", IDENTIFIER, nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("description", sa.LargeBinary(), nullable=True),
        sa.Column("disclosure", sa.Text(), nullable=False),
        sa.Column("starts_at", MOMENT, nullable=False),
        sa.Column("ends_at", MOMENT, nullable=False),
        sa.Column("searches_per_day", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["gallery_id"], ["galleries.gallery_id"], name="fk_agreements_gallery_id_galleries"),
        sa.PrimaryKeyConstraint("agreement_id", name="pk_agreements"),
    )
    for side in ("gallery_id", "partner_id"):
        op.create_index(f"ix_agreements_{side}_agreement_id", "agreements", [side, "agreement_id"])


def _add_agreement_uses() -> None:
    op.create_table(
        "agreement_uses",
        sa.Column("use_id", ROW_NUMBER, sa.Identity(always=False), nullable=False),
        sa.Column("agreement_id", IDENTIFIER, nullable=False),
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
        sa.PrimaryKeyConstraint("use_id", name="pk_agreement_uses"),
        sqlite_autoincrement=True,
    )
    for column in ("use_id", "used_at"):
        op.create_index(f"ix_agreement_uses_agreement_id_{column}", "agreement_uses", ["agreement_id", column])
