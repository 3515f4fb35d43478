"""Sweeps: jobs in the background, and the pairs of their cases."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

IDENTIFIER = sa.String().with_variant(sa.String(collation="C"), "postgresql")
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _create_jobs()
    _create_case_pairs()


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_id", ROW_NUMBER, sa.Identity(always=False), nullable=False),
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("allowed_false_pairs", sa.BigInteger(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("last_reference_id", sa.BigInteger(), nullable=False),
        sa.Column("started_seq", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("found_pairs", sa.BigInteger(), nullable=False),
        sa.Column("cases_opened", sa.BigInteger(), nullable=False),
        sa.Column("worked_s", sa.Double(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("leased_by", sa.Text(), nullable=True),
        sa.Column("leased_until", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["gallery_id"], ["galleries.gallery_id"], name="fk_jobs_gallery_id_galleries"),
        sa.PrimaryKeyConstraint("job_id", name="pk_jobs"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_gallery_id_job_id", "jobs", ["gallery_id", "job_id"], unique=False)
    op.create_index("ix_jobs_state", "jobs", ["state"], unique=False)


def _create_case_pairs() -> None:
    op.create_table(
        "case_pairs",
        sa.Column("case_id", ROW_NUMBER, autoincrement=False, nullable=False),
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("job_id", ROW_NUMBER, nullable=False),
        sa.Column("subject_id", IDENTIFIER, nullable=True),
        sa.Column("encounter_id", IDENTIFIER, nullable=True),
        sa.Column("reference_id", sa.BigInteger(), nullable=True),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("fmr", sa.Double(), nullable=False),
        sa.Column("fmr_upper", sa.Double(), nullable=False),
        sa.Column("extrapolated", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.case_id"], name="fk_case_pairs_case_id_cases"),
        sa.ForeignKeyConstraint(
            ["gallery_id", "subject_id"],
            ["subjects.gallery_id", "subjects.subject_id"],
            name="fk_case_pairs_gallery_id_subject_id_subjects",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name="fk_case_pairs_job_id_jobs"),
        sa.PrimaryKeyConstraint("case_id", name="pk_case_pairs"),
    )
    op.create_index("ix_case_pairs_gallery_id_subject_id", "case_pairs", ["gallery_id", "subject_id"], unique=False)
