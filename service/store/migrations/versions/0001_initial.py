"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

IDENTIFIER = sa.String().with_variant(sa.String(collation="C"), "postgresql")
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _create_galleries()
    _create_changes()
    _create_subjects()
    _create_encounters()
    _create_idempotency_keys()
    _create_enrolments()
    _create_samples()
    _create_templates()
    _create_candidates()
    _create_cases()


def _create_galleries() -> None:
    op.create_table(
        "galleries",
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("pack_id", sa.Text(), nullable=False),
        sa.Column("review_fpir", sa.Double(), nullable=False),
        sa.Column("duplicate_fpir", sa.Double(), nullable=False),
        sa.Column("verification_fmr", sa.Double(), nullable=False),
        sa.Column("keep_samples", sa.Boolean(), nullable=False),
        sa.Column("timeline_id", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("template_count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("gallery_id", name="pk_galleries"),
    )


def _create_changes() -> None:
    op.create_table(
        "changes",
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("added_ids", sa.JSON(), nullable=False),
        sa.Column("removed_ids", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["gallery_id"], ["galleries.gallery_id"], name="fk_changes_gallery_id_galleries"),
        sa.PrimaryKeyConstraint("gallery_id", "seq", name="pk_changes"),
        sqlite_with_rowid=False,
    )


def _create_subjects() -> None:
    op.create_table(
        "subjects",
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("subject_id", IDENTIFIER, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["gallery_id"], ["galleries.gallery_id"], name="fk_subjects_gallery_id_galleries"),
        sa.PrimaryKeyConstraint("gallery_id", "subject_id", name="pk_subjects"),
        sqlite_with_rowid=False,
    )


def _create_encounters() -> None:
    op.create_table(
        "encounters",
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("encounter_id", IDENTIFIER, nullable=False),
        sa.Column("subject_id", IDENTIFIER, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("status_seq", sa.BigInteger(), nullable=False),
        sa.Column("captured_at", MOMENT, nullable=True),
        sa.Column("site", sa.Text(), nullable=True),
        sa.Column("operator_ref", sa.Text(), nullable=True),
        sa.Column("birth_year", sa.Integer(), nullable=True),
        sa.Column("sex", sa.Text(), nullable=True),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("biometric_exception", sa.Text(), nullable=True),
        sa.Column("content_digest", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_id", "subject_id"],
            ["subjects.gallery_id", "subjects.subject_id"],
            name="fk_encounters_gallery_id_subject_id_subjects",
        ),
        sa.PrimaryKeyConstraint("gallery_id", "encounter_id", name="pk_encounters"),
        sa.UniqueConstraint("gallery_id", "seq", name="uq_encounters_gallery_id_seq"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_encounters_gallery_id_subject_id_seq", "encounters", ["gallery_id", "subject_id", "seq"], unique=False
    )


def _create_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("key", IDENTIFIER, nullable=False),
        sa.Column("content_digest", sa.Text(), nullable=False),
        sa.Column("subject_id", IDENTIFIER, nullable=True),
        sa.Column("enrolment_id", IDENTIFIER, nullable=True),
        sa.Column("rejection_code", sa.Text(), nullable=True),
        sa.Column("rejection_message", sa.Text(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_id", "subject_id"],
            ["subjects.gallery_id", "subjects.subject_id"],
            name="fk_idempotency_keys_gallery_id_subject_id_subjects",
        ),
        sa.ForeignKeyConstraint(
            ["gallery_id"], ["galleries.gallery_id"], name="fk_idempotency_keys_gallery_id_galleries"
        ),
        sa.PrimaryKeyConstraint("gallery_id", "key", name="pk_idempotency_keys"),
    )
    op.create_index(
        "ix_idempotency_keys_gallery_id_created_at", "idempotency_keys", ["gallery_id", "created_at"], unique=False
    )
    op.create_index(
        "ix_idempotency_keys_gallery_id_subject_id", "idempotency_keys", ["gallery_id", "subject_id"], unique=False
    )


def _create_enrolments() -> None:
    op.create_table(
        "enrolments",
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("enrolment_id", IDENTIFIER, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("encounter_id", IDENTIFIER, nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("thresholds", sa.JSON(), nullable=True),
        sa.Column("searched", sa.JSON(), nullable=True),
        sa.Column("continuity", sa.JSON(), nullable=True),
        sa.Column("samples", sa.JSON(), nullable=False),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_id", "encounter_id"],
            ["encounters.gallery_id", "encounters.encounter_id"],
            name="fk_enrolments_gallery_id_encounter_id_encounters",
        ),
        sa.PrimaryKeyConstraint("gallery_id", "enrolment_id", name="pk_enrolments"),
        sa.UniqueConstraint("gallery_id", "encounter_id", name="uq_enrolments_gallery_id_encounter_id"),
        sa.UniqueConstraint("gallery_id", "seq", name="uq_enrolments_gallery_id_seq"),
    )


def _create_samples() -> None:
    op.create_table(
        "samples",
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("encounter_id", IDENTIFIER, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("image", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_id", "encounter_id"],
            ["encounters.gallery_id", "encounters.encounter_id"],
            name="fk_samples_gallery_id_encounter_id_encounters",
        ),
        sa.PrimaryKeyConstraint("gallery_id", "encounter_id", "position", name="pk_samples"),
    )


def _create_templates() -> None:
    op.create_table(
        "templates",
        sa.Column("reference_id", ROW_NUMBER, sa.Identity(always=False), nullable=False),
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("encounter_id", IDENTIFIER, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("pack_id", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("verifies", sa.Boolean(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
        sa.Column("quality", sa.JSON(), nullable=False),
        sa.Column("box", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_id", "encounter_id"],
            ["encounters.gallery_id", "encounters.encounter_id"],
            name="fk_templates_gallery_id_encounter_id_encounters",
        ),
        sa.PrimaryKeyConstraint("reference_id", name="pk_templates"),
        sa.UniqueConstraint(
            "gallery_id", "encounter_id", "position", name="uq_templates_gallery_id_encounter_id_position"
        ),
        sqlite_autoincrement=True,
    )


def _create_candidates() -> None:
    op.create_table(
        "candidates",
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("enrolment_id", IDENTIFIER, nullable=False),
        sa.Column("rank", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("subject_id", IDENTIFIER, nullable=True),
        sa.Column("encounter_id", IDENTIFIER, nullable=True),
        sa.Column("reference_id", sa.BigInteger(), nullable=True),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("fmr", sa.Double(), nullable=False),
        sa.Column("fmr_upper", sa.Double(), nullable=False),
        sa.Column("extrapolated", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_id", "enrolment_id"],
            ["enrolments.gallery_id", "enrolments.enrolment_id"],
            name="fk_candidates_gallery_id_enrolment_id_enrolments",
        ),
        sa.ForeignKeyConstraint(
            ["gallery_id", "subject_id"],
            ["subjects.gallery_id", "subjects.subject_id"],
            name="fk_candidates_gallery_id_subject_id_subjects",
        ),
        sa.PrimaryKeyConstraint("gallery_id", "enrolment_id", "rank", name="pk_candidates"),
    )
    op.create_index("ix_candidates_gallery_id_subject_id", "candidates", ["gallery_id", "subject_id"], unique=False)


def _create_cases() -> None:
    op.create_table(
        "cases",
        sa.Column("case_id", ROW_NUMBER, sa.Identity(always=False), nullable=False),
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("enrolment_id", IDENTIFIER, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_id", "enrolment_id"],
            ["enrolments.gallery_id", "enrolments.enrolment_id"],
            name="fk_cases_gallery_id_enrolment_id_enrolments",
        ),
        sa.PrimaryKeyConstraint("case_id", name="pk_cases"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_cases_gallery_id_case_id", "cases", ["gallery_id", "case_id"], unique=False)
    op.create_index("ix_cases_gallery_id_enrolment_id", "cases", ["gallery_id", "enrolment_id"], unique=False)
    op.create_index("ix_cases_gallery_id_status", "cases", ["gallery_id", "status"], unique=False)
