"""The tables of the record, for SQLite and PostgreSQL alike.

Over 300 lines on purpose: the whole schema in one place, nothing but declarations.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: time zone aware going in, UTC coming out, on both databases."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        # SQLite keeps no zone: what went in as UTC comes out without one
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# Identifiers are ordered by code point on both databases, so that pages follow one another alike.
Identifier = String().with_variant(String(collation="C"), "postgresql")

# SQLite numbers rows by itself only in a column of type INTEGER.
MAX_ROW_NUMBER = 2**63 - 1
RowNumber = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _in_gallery() -> Column[str]:
    return Column("gallery_id", Identifier, ForeignKey("galleries.gallery_id"), primary_key=True)


def _of_encounter() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["gallery_id", "encounter_id"], ["encounters.gallery_id", "encounters.encounter_id"])


def _of_subject() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["gallery_id", "subject_id"], ["subjects.gallery_id", "subjects.subject_id"])


galleries = Table(
    "galleries",
    metadata,
    Column("gallery_id", Identifier, primary_key=True),
    Column("pack_id", Text, nullable=False),
    Column("review_fpir", Double, nullable=False),
    Column("duplicate_fpir", Double, nullable=False),
    Column("verification_fmr", Double, nullable=False),
    Column("keep_samples", Boolean, nullable=False),
    Column("timeline_id", Text, nullable=False),
    Column("model_id", Text),  # of its templates, set by the first
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("template_count", BigInteger, nullable=False),
    Column("calibration_id", Text),  # that judges its scores, null for the one of its pack
    Column("thresholds_key", Text),  # what the thresholds last written to the audit trail followed from
    # subjects with several samples that are searched, by whichever of its packs
    Column("several_count", BigInteger, nullable=False, server_default="0"),
    Column("quality_gate", Text, nullable=False, server_default="off"),
    Column("filter_by_sex", Boolean, nullable=False, server_default=false()),
    Column("filter_by_birth_year", Boolean, nullable=False, server_default=false()),
    Column("birth_year_tolerance", Integer, nullable=False, server_default="5"),
    Column("min_duplicate_age", Integer, nullable=False, server_default="18"),
    Column("review_unknown_age", Boolean, nullable=False, server_default=false()),
    # while its model pack changes: the one that does not rule
    Column("standby_pack_id", Text),
    Column("standby_model_id", Text),
    Column("standby_timeline_id", Text, nullable=False, server_default=""),
    Column("standby_calibration_id", Text),
    Column("standby_template_count", BigInteger, nullable=False, server_default="0"),
    Column("paired_count", BigInteger, nullable=False, server_default="0"),
    # the last change that an enrolment into another gallery has seen, which searched this one too
    Column("searched_seq", BigInteger, nullable=False, server_default="0"),
)

# templates searched now by what is known of their person; those of whom nothing is known are in no row
metadata_counts = Table(
    "metadata_counts",
    metadata,
    _in_gallery(),
    Column("sex", Text, primary_key=True),  # empty: not known, or none that filters
    Column("birth_year", Integer, primary_key=True, autoincrement=False),  # 0: not known
    Column("templates", BigInteger, nullable=False),  # at least 1: a row would tell of somebody who is gone
    sqlite_with_rowid=False,
)

changes = Table(
    "changes",
    metadata,
    _in_gallery(),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("added_ids", JSON, nullable=False),
    Column("removed_ids", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    sqlite_with_rowid=False,
)

subjects = Table(
    "subjects",
    metadata,
    _in_gallery(),
    Column("subject_id", Identifier, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("key_id", Identifier),  # of its data key in the key store; null: nothing of it is encrypted yet
    Index(None, "key_id", unique=True),
    sqlite_with_rowid=False,  # one tree to write instead of two
)

encounters = Table(
    "encounters",
    metadata,
    Column("gallery_id", Identifier, primary_key=True),
    Column("encounter_id", Identifier, primary_key=True),
    Column("subject_id", Identifier, nullable=False),
    Column("seq", BigInteger, nullable=False),  # the change that brought it: the order of listings
    Column("status", Text, nullable=False),
    Column("status_seq", BigInteger, nullable=False),  # the change that gave it its status
    Column("captured_at", UtcDateTime),
    Column("site", Text),  # this, the next, the labels and the digest: bare once they are in `sealed_facts`
    Column("operator_ref", Text),
    Column("birth_year", Integer),
    Column("sex", Text),
    Column("labels", JSON, nullable=False),
    Column("biometric_exception", Text),
    Column("content_digest", Text, nullable=False),
    Column("sealed_facts", LargeBinary),
    Column("created_at", UtcDateTime, nullable=False),
    _of_subject(),
    UniqueConstraint("gallery_id", "seq"),
    Index(None, "gallery_id", "subject_id", "seq"),
    sqlite_with_rowid=False,
)

samples = Table(
    "samples",
    metadata,
    Column("gallery_id", Identifier, primary_key=True),
    Column("encounter_id", Identifier, primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("image", LargeBinary, nullable=False),  # sealed
    _of_encounter(),
)

templates = Table(
    "templates",
    metadata,
    # never used twice: an index that still holds an erased template must not take it for a new one
    Column("reference_id", RowNumber, Identity(always=False), primary_key=True),
    Column("gallery_id", Identifier, nullable=False),
    Column("encounter_id", Identifier, nullable=False),
    Column("position", Integer, nullable=False),
    Column("pack_id", Text, nullable=False),
    Column("model_id", Text, nullable=False),
    Column("verifies", Boolean, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("embedding", LargeBinary, nullable=False),  # (D,) float32, little-endian, sealed
    Column("quality", JSON, nullable=False),
    Column("box", JSON, nullable=False),
    _of_encounter(),
    UniqueConstraint("gallery_id", "encounter_id", "position", "pack_id"),
    sqlite_autoincrement=True,
)

enrolments = Table(
    "enrolments",
    metadata,
    Column("gallery_id", Identifier, primary_key=True),
    Column("enrolment_id", Identifier, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("encounter_id", Identifier, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("thresholds", JSON(none_as_null=True)),
    Column("searched", JSON(none_as_null=True)),
    Column("continuity", JSON(none_as_null=True)),
    Column("samples", JSON, nullable=False),
    Column("warnings", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    _of_encounter(),
    UniqueConstraint("gallery_id", "seq"),
    UniqueConstraint("gallery_id", "encounter_id"),
)


def _of_enrolment() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["gallery_id", "enrolment_id"], ["enrolments.gallery_id", "enrolments.enrolment_id"])


candidates = Table(
    "candidates",
    metadata,
    Column("gallery_id", Identifier, primary_key=True),
    Column("enrolment_id", Identifier, primary_key=True),
    Column("rank", Integer, primary_key=True, autoincrement=False),
    Column("subject_id", Identifier),  # the three ids are null once that subject was erased
    Column("encounter_id", Identifier),
    Column("reference_id", BigInteger),
    Column("score", Double, nullable=False),
    Column("fmr", Double, nullable=False),
    Column("fmr_upper", Double, nullable=False),
    Column("extrapolated", Boolean, nullable=False),
    Column("pair_score", Double),  # of the best single pair, where several samples were fused
    Column("pack_id", Text),  # null: of the pack that ruled then
    _of_enrolment(),
    _of_subject(),
    Index(None, "gallery_id", "subject_id"),
)

# those of an enrolment that searched further galleries too, each in the gallery of its subject
candidates_elsewhere = Table(
    "candidates_elsewhere",
    metadata,
    Column("gallery_id", Identifier, primary_key=True),  # of the enrolment
    Column("enrolment_id", Identifier, primary_key=True),
    Column("rank", Integer, primary_key=True, autoincrement=False),  # among all candidates of the enrolment
    Column("other_gallery_id", Identifier, nullable=False),
    Column("subject_id", Identifier),  # the three ids are null once that subject was erased
    Column("encounter_id", Identifier),
    Column("reference_id", BigInteger),
    Column("score", Double, nullable=False),
    Column("fmr", Double, nullable=False),
    Column("fmr_upper", Double, nullable=False),
    Column("extrapolated", Boolean, nullable=False),
    Column("pair_score", Double),  # as of a candidate
    Column("pack_id", Text),
    _of_enrolment(),
    ForeignKeyConstraint(["other_gallery_id", "subject_id"], ["subjects.gallery_id", "subjects.subject_id"]),
    Index(None, "other_gallery_id", "subject_id"),
)

cases = Table(
    "cases",
    metadata,
    Column("case_id", RowNumber, Identity(always=False), primary_key=True),
    Column("gallery_id", Identifier, nullable=False),
    Column("enrolment_id", Identifier, nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("verdict", Text),  # null: not decided
    Column("decided_by", Text),
    Column("decided_at", UtcDateTime),
    _of_enrolment(),
    Index(None, "gallery_id", "verdict", "kind"),
    Index(None, "gallery_id", "enrolment_id"),
    Index(None, "gallery_id", "case_id"),
    Index(None, "gallery_id", "status"),
    sqlite_autoincrement=True,
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", RowNumber, Identity(always=False), primary_key=True),
    Column("gallery_id", Identifier, ForeignKey("galleries.gallery_id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("allowed_false_pairs", BigInteger, nullable=False),
    Column("threshold", Double, nullable=False),
    Column("cursor", BigInteger, nullable=False),
    Column("last_reference_id", BigInteger, nullable=False),
    Column("started_seq", BigInteger, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("found_pairs", BigInteger, nullable=False),
    Column("cases_opened", BigInteger, nullable=False),
    Column("worked_s", Double, nullable=False),
    Column("error_code", Text),
    Column("leased_by", Text),  # the process that works on it
    Column("leased_until", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("other_gallery_id", Identifier),  # of a sweep: the gallery it is against, null for the gallery itself
    Column("left_out", BigInteger),  # of a sweep: templates that only the standby pack had
    # of a migration, which has no threshold and finds its pairs otherwise
    Column("from_pack_id", Text),
    Column("to_pack_id", Text),
    Column("stage", Text),
    Index(None, "gallery_id", "job_id"),
    Index(None, "state"),
    sqlite_autoincrement=True,
)

# the other half of a case of a sweep or a migration: the earlier encounter of another subject, perhaps elsewhere
case_pairs = Table(
    "case_pairs",
    metadata,
    Column("case_id", RowNumber, ForeignKey("cases.case_id"), primary_key=True, autoincrement=False),
    Column("gallery_id", Identifier, nullable=False),  # of the subject here, which may not be the case's own
    Column("job_id", RowNumber, ForeignKey("jobs.job_id"), nullable=False),
    Column("subject_id", Identifier),  # the three ids are null once that subject was erased
    Column("encounter_id", Identifier),
    Column("reference_id", BigInteger),
    Column("score", Double, nullable=False),
    Column("fmr", Double, nullable=False),
    Column("fmr_upper", Double, nullable=False),
    Column("extrapolated", Boolean, nullable=False),
    Column("pair_score", Double),  # as of a candidate
    Column("pack_id", Text),  # null: of the pack that ruled then
    _of_subject(),
    Index(None, "gallery_id", "subject_id"),
    Index(None, "job_id", "case_id"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    _in_gallery(),
    Column("key", Identifier, primary_key=True),
    Column("content_digest", Text, nullable=False),  # empty: as in the encounter of the enrolment
    Column("subject_id", Identifier),
    Column("enrolment_id", Identifier),
    Column("rejection_code", Text),
    Column("rejection_message", Text),
    Column("created_at", UtcDateTime, nullable=False),
    _of_subject(),
    Index(None, "gallery_id", "subject_id"),
    Index(None, "gallery_id", "created_at"),
)

calibrations = Table(
    "calibrations",
    metadata,
    _in_gallery(),
    Column("calibration_id", Identifier, primary_key=True),
    Column("content", Text, nullable=False),  # the text of a calibration.json
    Column("created_at", UtcDateTime, nullable=False),
)

# appended to, never changed: each entry holds the hash of the one before
audit_entries = Table(
    "audit_entries",
    metadata,
    Column("chain", Identifier, primary_key=True),  # a gallery, or the service itself
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("event", Text, nullable=False),
    Column("outcome", Text),
    Column("client_id", Text, nullable=False),
    Column("purpose", Text),
    Column("agreement_id", Text),
    Column("request_id", Text),
    Column("details", Text, nullable=False),  # JSON, as it was hashed
    Column("subject_references", LargeBinary),  # null: it concerned nobody
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Index(None, "chain", "event", "seq"),
    sqlite_with_rowid=False,
)

# how far each chain is: taken last of all locks, held by whoever appends
audit_chains = Table(
    "audit_chains",
    metadata,
    Column("chain", Identifier, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# whom an entry refers to, to find it by the subject; not hashed, and erased with the subject
audit_subjects = Table(
    "audit_subjects",
    metadata,
    Column("gallery_id", Identifier, primary_key=True),
    Column("subject_id", Identifier, primary_key=True),
    Column("chain", Identifier, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("position", Integer, nullable=False),  # of the reference in the entry
    sqlite_with_rowid=False,
)

# how far each import of templates is: it goes on there
imports = Table(
    "imports",
    metadata,
    _in_gallery(),
    Column("source_id", Identifier, primary_key=True),
    Column("content_digest", Text, nullable=False),  # of all its rows
    Column("total", BigInteger, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("added", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

# who was erased while an import was unfinished: its further rows are left out
import_erasures = Table(
    "import_erasures",
    metadata,
    Column("gallery_id", Identifier, primary_key=True),
    Column("source_id", Identifier, primary_key=True),
    Column("subject_digest", Identifier, primary_key=True),  # salted with the import
    ForeignKeyConstraint(["gallery_id", "source_id"], ["imports.gallery_id", "imports.source_id"]),
)

# the key store that this record was encrypted with: one row, none before the first start
key_stores = Table(
    "key_stores",
    metadata,
    Column("key_store_id", Text, primary_key=True),
    # from the encryption of what an earlier version wrote until nothing of how it was is left in the files
    Column("purge_due", Boolean, nullable=False),
)

# keys of erased subjects, from the erasure's commit until the key store has destroyed them
key_destructions = Table("key_destructions", metadata, Column("key_id", Identifier, primary_key=True))

# what was erased, for good, without a way to the person: `ErasureRecord`
erasures = Table(
    "erasures",
    metadata,
    Column("receipt_id", Identifier, primary_key=True),
    Column("gallery_id", Identifier, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("key_id", Identifier, index=True),
    Column("erased_at", UtcDateTime, nullable=False),
    Column("compacted_by", UtcDateTime, nullable=False),
    Column("key_backups_until", UtcDateTime, nullable=False),
    Column("parts", JSON, nullable=False),
    Column("public_key_id", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("repeat_digest", Identifier),
    UniqueConstraint("gallery_id", "repeat_digest"),
)

# who may call with API keys; a client that was revoked stays, so that nobody else gets its name
clients = Table(
    "clients",
    metadata,
    Column("name", Identifier, primary_key=True),
    Column("grants", JSON, nullable=False),  # texts such as `enroller:camp`
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
)

client_keys = Table(
    "client_keys",
    metadata,
    Column("key_id", Identifier, primary_key=True),
    Column("client", Identifier, ForeignKey("clients.name"), nullable=False),
    Column("secret_digest", LargeBinary, nullable=False),  # SHA-256
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("last_used_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Index(None, "client"),
)

# what replicas counted for the limits of clients; each counter lives minutes, and nothing is lost with it
rate_counts = Table(
    "rate_counts",
    metadata,
    Column("counter", Identifier, primary_key=True),
    Column("total", BigInteger, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
)

# who may search whose gallery; never changed, only ended
agreements = Table(
    "agreements",
    metadata,
    Column("agreement_id", Identifier, primary_key=True),
    Column("gallery_id", Identifier, ForeignKey("galleries.gallery_id"), nullable=False),
    Column("partner_id", Identifier, nullable=False),  # the client that may search
    Column("purpose", Text, nullable=False),
    Column("description", LargeBinary),  # sealed under the gallery's key
    Column("disclosure", Text, nullable=False),
    Column("starts_at", UtcDateTime, nullable=False),
    Column("ends_at", UtcDateTime, nullable=False),
    Column("searches_per_day", Integer, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("ended_by", Text),
    Index(None, "gallery_id", "agreement_id"),
    Index(None, "partner_id", "agreement_id"),
)

# each search under an agreement; nothing of whom it was for
agreement_uses = Table(
    "agreement_uses",
    metadata,
    Column("agreement_id", Identifier, ForeignKey("agreements.agreement_id"), primary_key=True),
    Column("use_id", RowNumber, primary_key=True, autoincrement=False),  # from 1 in each agreement
    Column("used_by", Text, nullable=False),
    Column("used_at", UtcDateTime, nullable=False),
    Column("purpose", Text),
    Column("request_id", Text),
    Column("outcome", Text),  # null: under way, or cut off
    Column("complete", Boolean),
    Column("error_code", Text),
    Index(None, "agreement_id", "used_at"),
)
# how long a gallery keeps whom; no row: for ever
retention_rules = Table(
    "retention_rules",
    metadata,
    _in_gallery(),
    Column("retain_days", Integer),
    Column("retain_samples_days", Integer),
    Column("campaign_ends_at", UtcDateTime),
    Column("automatic", Boolean, nullable=False),
    Column("version", BigInteger, nullable=False),  # each change is another: a report names the one it was made from
    Column("changed_at", UtcDateTime, nullable=False),
    Column("looked_at", UtcDateTime),  # when it was last seen by itself whether anybody is due
)

# what a rule would erase, and what became of it
retention_reports = Table(
    "retention_reports",
    metadata,
    Column("report_id", RowNumber, Identity(always=False), primary_key=True),
    Column("gallery_id", Identifier, ForeignKey("galleries.gallery_id"), nullable=False),
    Column("rule_version", BigInteger, nullable=False),
    Column("retain_days", Integer),
    Column("retain_samples_days", Integer),
    Column("campaign_ends_at", UtcDateTime),
    Column("rule_changed_at", UtcDateTime),
    Column("automatic", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
    Column("made_seq", BigInteger, nullable=False),
    Column("acts_at", UtcDateTime),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("due_subjects", BigInteger, nullable=False),
    Column("due_encounters", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("erased_subjects", BigInteger, nullable=False),
    Column("erased_samples", BigInteger, nullable=False),
    Column("skipped_held", BigInteger, nullable=False),
    Column("skipped_seen_again", BigInteger, nullable=False),
    Column("already_gone", BigInteger, nullable=False),
    Column("job_id", RowNumber, ForeignKey("jobs.job_id")),
    Index(None, "gallery_id", "report_id"),
    Index(None, "state"),
    Index(None, "job_id"),
    sqlite_autoincrement=True,
)

# the lines of a report; each goes with its subject
retention_items = Table(
    "retention_items",
    metadata,
    Column("item_id", RowNumber, Identity(always=False), primary_key=True),
    Column("report_id", RowNumber, ForeignKey("retention_reports.report_id"), nullable=False),
    Column("gallery_id", Identifier, nullable=False),
    Column("subject_id", Identifier, nullable=False),
    Column("encounter_id", Identifier),  # whose samples; null: the whole subject
    Column("reason", Text, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("is_held", Boolean, nullable=False),
    Column("skipped", Text),
    _of_subject(),
    Index(None, "report_id", "item_id"),
    Index(None, "gallery_id", "subject_id"),
    sqlite_autoincrement=True,
)

# what may not be erased
legal_holds = Table(
    "legal_holds",
    metadata,
    _in_gallery(),
    Column("subject_id", Identifier, primary_key=True),  # empty: the whole gallery
    Column("reason", LargeBinary, nullable=False),  # sealed
    Column("key_id", Identifier),  # of the data key that only a hold on a gallery has; a subject's has the subject's
    Column("set_by", Text, nullable=False),
    Column("set_at", UtcDateTime, nullable=False),
    sqlite_with_rowid=False,
)
