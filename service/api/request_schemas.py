"""What callers send: the bodies of requests, each field with its limits."""

import binascii
import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from service.api.parameters import MAX_ROW_NUMBER, GalleryName, RecordId
from service.domain import CaseVerdict, EncounterStatus, QualityGate
from service.wide_search import MAX_FURTHER

# control characters do not print, and a NUL has no place in PostgreSQL
TEXT_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]+$"
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_YEARS = range(1900, 2101)
_MAX_LABELS = 32


def _decode_base64(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("a sample must be a base64 text")  # noqa: TRY004  pydantic reads ValueError
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        raise ValueError("a sample must be valid base64, without line breaks") from None


def _parse_instant(value: object) -> object:
    if value is None:
        return None
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise ValueError("a time must be RFC 3339 with its offset, such as 2026-05-04T09:30:00+03:00")
    try:
        # Python reads microseconds; finer digits are dropped
        instant = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value.upper())).astimezone(UTC)
    except (ValueError, OverflowError):
        instant = None
    if instant is None or instant.year not in _YEARS:
        raise ValueError(f"this time does not exist or is not between {_YEARS[0]} and {_YEARS[-1]}")
    return instant


SampleBytes = Annotated[
    bytes,
    BeforeValidator(_decode_base64),
    WithJsonSchema({"type": "string", "format": "byte", "contentEncoding": "base64"}),
]
Instant = Annotated[
    datetime,
    BeforeValidator(_parse_instant),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-05-04T09:30:00+03:00"]}),
]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=TEXT_PATTERN)]
LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=TEXT_PATTERN)]
LabelValue = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=TEXT_PATTERN)]
GateName = Annotated[QualityGate, WithJsonSchema({"type": "string", "enum": [gate.value for gate in QualityGate]})]
BirthYear = Annotated[int, Field(ge=1850, le=2100)]
Sex = Literal["female", "male", "other", "unknown"]
Fmr = Annotated[float, Field(ge=1e-6, le=0.1)]
Fpir = Annotated[float, Field(ge=1e-6, le=0.5)]
PackName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


AlsoSearch = Annotated[
    list[GalleryName], Field(min_length=1, max_length=MAX_FURTHER, json_schema_extra={"uniqueItems": True})
]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True, frozen=True)


class EnrolmentFields(Body):
    """What a registration system may say of an encounter; everything is optional, nothing personal is needed."""

    subject_id: RecordId | None = Field(None, description="Whose encounter this is; a new subject if not given.")
    encounter_id: RecordId | None = Field(None, description="Your own id of the encounter: idempotent for ever.")
    captured_at: Instant | None = Field(None, description="When the samples were taken.")
    site: ShortText | None = Field(None, description="Where: a code, not an address.")
    operator_ref: ShortText | None = Field(None, description="Who took them: a code, not a name.")
    birth_year: BirthYear | None = None
    sex: Sex | None = None
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=_MAX_LABELS)] | None = Field(
        None, description=f"Up to {_MAX_LABELS} words of your own, such as a campaign."
    )
    biometric_exception: (
        Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=TEXT_PATTERN)] | None
    ) = Field(None, description="Why there is no usable face; then without samples.")
    also_search: AlsoSearch | None = Field(
        None,
        description="Further galleries in which the person is looked for too; nothing is written there. In a form: "
        "their names with commas between them.",
    )
    waive_quality_gate: bool | None = Field(
        None, description="Accept what the gallery's quality gate would refuse: this person can give nothing better."
    )


class EnrolmentIn(EnrolmentFields):
    samples: list[SampleBytes] = Field([], description="Images of one person, base64.")


class IdentificationFields(Body):
    """What is known of the person in the sample: for the gallery's filter, and the years between captures."""

    captured_at: Instant | None = Field(None, description="When the sample was taken.")
    birth_year: BirthYear | None = None
    sex: Sex | None = None


class IdentificationIn(IdentificationFields):
    sample: SampleBytes


class VerificationFields(Body):
    subject_id: RecordId | None = None
    verification_fmr: Fmr | None = Field(None, description="Share of different people who may pass.")


class VerificationIn(VerificationFields):
    """A sample, and either the subject or the sample it is compared with."""

    sample: SampleBytes
    reference_sample: SampleBytes | None = None


class GalleryChangeIn(Body):
    """The settings of a gallery; those not given stay as they are, or take the service's defaults."""

    review_fpir: Fpir | None = None
    duplicate_fpir: Fpir | None = None
    verification_fmr: Fmr | None = None
    keep_samples: bool | None = None
    quality_gate: GateName | None = Field(
        None, description="Which samples an enrolment refuses for their quality; `off` refuses none."
    )
    filter_by_sex: bool | None = Field(None, description="Lower threshold among people of the probe's recorded sex.")
    filter_by_birth_year: bool | None = Field(
        None, description="Lower threshold among people born within `birth_year_tolerance` years of the probe."
    )
    birth_year_tolerance: Annotated[int, Field(ge=0, le=50)] | None = None
    min_duplicate_age: Annotated[int, Field(ge=0, le=120)] | None = Field(
        None, description="Where one of two samples may show somebody younger, the outcome is at most REVIEW."
    )
    review_unknown_age: bool | None = Field(None, description="Whether somebody of unknown age counts as younger.")


class GalleryIn(GalleryChangeIn):
    gallery_id: GalleryName
    pack_id: PackName | None = None


class EncounterIn(Body):
    status: Annotated[
        EncounterStatus, WithJsonSchema({"type": "string", "enum": [status.value for status in EncounterStatus]})
    ]


class CaseDecisionIn(Body):
    verdict: (
        Annotated[CaseVerdict, WithJsonSchema({"type": "string", "enum": [verdict.value for verdict in CaseVerdict]})]
        | None
    ) = Field(
        description="Whether both are one person, of a case of continuity too; null opens it again. The last counts."
    )
    decided_by: ShortText | None = Field(
        None,
        description="Who decided at the caller's side: a code, not a name. It goes into the audit trail, after the "
        "caller itself.",
    )


class SweepIn(Body):
    allowed_false_pairs: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10, description="Pairs of different people that may be found by mistake; the threshold follows from it."
    )
    other_gallery_id: GalleryName | None = Field(
        default=None, description="Compare with every template of this gallery; without it with those of the gallery."
    )
    dry_run: bool = Field(default=False, description="Only return the plan.")


Days = Annotated[int, Field(ge=1, le=36_500)]


class RetentionIn(Body):
    """A whole rule: what is not given limits nothing."""

    retain_days: Days | None = Field(
        None, description="A subject is due this many days after its latest encounter was recorded."
    )
    retain_samples_days: Days | None = Field(
        None, description="The samples of an encounter are due this many days after it was recorded; templates stay."
    )
    campaign_ends_at: Instant | None = Field(None, description="From then on everybody in the gallery is due.")
    automatic: bool = Field(
        default=False, description="Whether the service makes reports by itself, and acts on each a day later."
    )


class RetentionRunIn(Body):
    report_id: Annotated[int, Field(ge=1, le=MAX_ROW_NUMBER)] = Field(description="Which report is to be acted on.")


class HoldIn(Body):
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=TEXT_PATTERN)] = Field(
        description="Why, for supervisors; encrypted, and forgotten when the hold is lifted."
    )


class MigrationIn(Body):
    to_pack_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


class SwapIn(Body):
    accepted_missing: Annotated[int, Field(ge=0)] = Field(
        0, description="How many people have no template of the pack that is to rule, as the migration names it."
    )
