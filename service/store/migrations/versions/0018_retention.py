"""Retention rules, the reports made from them, and legal holds."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

IDENTIFIER = sa.String().with_variant(sa.String(collation="C"), "postgresql")
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)
_COUNTS = (
    "due_subjects", "due_encounters", "held", "erased_subjects", "erased_samples", "skipped_held",
    "skipped_seen_again", "already_gone",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "retention_rules",
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("retain_days", sa.Integer()),
        sa.Column("retain_samples_days", sa.Integer()),
        sa.Column("campaign_ends_at", MOMENT),
        sa.Column("automatic", sa.Boolean(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", MOMENT, nullable=False),
        sa.Column("looked_at", MOMENT),
        sa.PrimaryKeyConstraint("gallery_id", name="pk_retention_rules"),
        sa.ForeignKeyConstraint(
            ["gallery_id"], ["galleries.gallery_id"], name="fk_retention_rules_gallery_id_galleries"
        ),
    )
    _reports()
    _items()
    op.create_table(
        "legal_holds",
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("subject_id", IDENTIFIER, nullable=False),
        sa.Column("reason", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", IDENTIFIER),
        sa.Column("set_by", sa.Text(), nullable=False),
        sa.Column("set_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("gallery_id", "subject_id", name="pk_legal_holds"),
        sa.ForeignKeyConstraint(["gallery_id"], ["galleries.gallery_id"], name="fk_legal_holds_gallery_id_galleries"),
        sqlite_with_rowid=False,
    )


def _reports() -> None:
    op.create_table(
        "retention_reports",
        sa.Column("report_id", ROW_NUMBER, sa.Identity(always=False), nullable=False),
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("rule_version", sa.BigInteger(), nullable=False),
        sa.Column("retain_days", sa.Integer()),
        sa.Column("retain_samples_days", sa.Integer()),
        sa.Column("campaign_ends_at", MOMENT),
        sa.Column("rule_changed_at", MOMENT),
        sa.Column("automatic", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("made_at", MOMENT, nullable=False),
        sa.Column("made_seq", sa.BigInteger(), nullable=False),
        sa.Column("acts_at", MOMENT),
        sa.Column("expires_at", MOMENT, nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTS),
        sa.Column("job_id", ROW_NUMBER),
        sa.PrimaryKeyConstraint("report_id", name="pk_retention_reports"),
        sa.ForeignKeyConstraint(
            ["gallery_id"], ["galleries.gallery_id"], name="fk_retention_reports_gallery_id_galleries"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name="fk_retention_reports_job_id_jobs"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_retention_reports_gallery_id_report_id", "retention_reports", ["gallery_id", "report_id"])
    op.create_index("ix_retention_reports_state", "retention_reports", ["state"])
    op.create_index("ix_retention_reports_job_id", "retention_reports", ["job_id"])


def _items() -> None:
    op.create_table(
        "retention_items",
        sa.Column("item_id", ROW_NUMBER, sa.Identity(always=False), nullable=False),
        sa.Column("report_id", ROW_NUMBER, nullable=False),
        sa.Column("gallery_id", IDENTIFIER, nullable=False),
        sa.Column("subject_id", IDENTIFIER, nullable=False),
        sa.Column("encounter_id", IDENTIFIER),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("is_held", sa.Boolean(), nullable=False),
        sa.Column("skipped", sa.Text()),
        sa.PrimaryKeyConstraint("item_id", name="pk_retention_items"),
        sa.ForeignKeyConstraint(
            ["report_id"], ["retention_reports.report_id"], name="fk_retention_items_report_id_retention_reports"
        ),
        sa.ForeignKeyConstraint(
            ["gallery_id", "subject_id"],
            ["subjects.gallery_id", "subjects.subject_id"],
            name="fk_retention_items_gallery_id_subject_id_subjects",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_retention_items_report_id_item_id", "retention_items", ["report_id", "item_id"])
    op.create_index("ix_retention_items_gallery_id_subject_id", "retention_items", ["gallery_id", "subject_id"])
