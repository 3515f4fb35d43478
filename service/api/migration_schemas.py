"""What the service answers about the change of a gallery's model pack."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from service import domain
from service.api.sample_schemas import Out
from service.api.schemas import PageOut
from service.domain import MigrationStage
from service.migration import MigrationReport
from service.template_making import progress_of, seconds_left


class MigrationOut(Out):
    """How far the change of a gallery's model pack is."""

    job_id: int
    gallery_id: str
    from_pack_id: str
    to_pack_id: str
    ruling_pack_id: str = Field(description="By which the gallery answers now.")
    stage: MigrationStage = Field(
        description="making: new templates are being made; ready: all that can be are; cut_over: the new pack rules; "
        "dropping: one pack was given up and is being deleted; finished, cancelled: one pack is left."
    )
    done: int = Field(description="Samples looked at; while a pack is dropped, templates deleted.")
    total: int
    progress: float = Field(description="0 to 1, of what is made or dropped now.")
    seconds_left: float | None = Field(description="Seconds of making templates that are left; null before the first.")
    ruling_templates: int = Field(description="Templates of the ruling pack that are searched now.")
    standby_templates: int
    paired_samples: int = Field(description="Samples that have a template of each pack.")
    missing_in_new: int | None = Field(
        description="People whom the new pack would not find: capture them again. Also those whose encounters are "
        "inactive now. Null while templates are being made."
    )
    missing_in_old: int = Field(description="People whom the old pack would not find.")
    cases_opened: int = Field(description="Pairs that enrolments found in the pack that did not rule: cases MIGRATION.")
    error_code: str | None = Field(description="Why it gets no further now; it is tried again.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, report: MigrationReport) -> "MigrationOut":
        migration, gallery = report.migration, report.gallery
        return cls(
            job_id=migration.job_id,
            gallery_id=migration.gallery_id,
            from_pack_id=migration.from_pack_id,
            to_pack_id=migration.to_pack_id,
            ruling_pack_id=gallery.pack_id,
            stage=migration.stage,
            done=migration.done,
            total=migration.total,
            progress=progress_of(migration),
            seconds_left=seconds_left(migration),
            ruling_templates=gallery.template_count,
            standby_templates=gallery.standby_template_count,
            paired_samples=gallery.paired_count,
            missing_in_new=report.missing_in_new,
            missing_in_old=report.missing_in_old,
            cases_opened=migration.cases_opened,
            error_code=migration.error_code,
            created_at=migration.created_at,
            updated_at=migration.updated_at,
        )


class MissingSubjectOut(Out):
    subject_id: str
    reason: Literal["no_sample", "unusable"] = Field(
        description="no_sample: none was kept, or it was erased; unusable: the pack finds no usable face in it."
    )

    @classmethod
    def of(cls, missing: domain.MissingSubject) -> "MissingSubjectOut":
        return cls(subject_id=missing.subject_id, reason="unusable" if missing.has_sample else "no_sample")


class MissingSubjectsOut(PageOut[MissingSubjectOut]):
    pass


class EstimateOut(Out):
    """A share, or a difference of shares, with its 95 % interval: a bootstrap over people."""

    value: float
    low: float
    high: float


class PackFiguresOut(Out):
    pack_id: str
    threshold: float = Field(description="The review threshold of this gallery, by the pack's calibration.")
    expected_fmr: float = Field(description="At it, by the same calibration.")
    fnmr: EstimateOut | None = Field(description="Share of mated pairs below it; everybody counts the same.")
    fmr: EstimateOut | None = Field(description="Share of non-mated pairs at or above it.")
    own_threshold: float | None = Field(description="At which `own_fmr` of these very non-mated pairs lie.")
    own_fnmr: EstimateOut | None = Field(description="Share of mated pairs below that.")


class PackComparisonOut(Out):
    """Both packs on the same samples, the old one first."""

    subjects: int = Field(description="People with mated pairs: several encounters of one subject.")
    mated_pairs: int
    left_out_pairs: int = Field(
        description="Of encounters whose continuity the ruling pack doubted. That they are left out favours this pack."
    )
    non_mated_subjects: int
    non_mated_pairs: int
    own_fmr: float | None = Field(description="At which both packs are compared; null: too few pairs.")
    packs: tuple[PackFiguresOut, PackFiguresOut]
    difference: EstimateOut | None = Field(
        description="own_fnmr of the new pack minus that of the old one: below 0, the new one misses fewer."
    )
