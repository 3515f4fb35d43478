"""What is sent and answered about plans."""

from typing import Annotated, Self

from pydantic import Field

from service.api.parameters import GalleryName
from service.api.request_schemas import Body, Fpir, PackName
from service.api.sample_schemas import Out
from service.planning import ChosenBy
from service.plans import PlanAnswer

_MOST_PEOPLE = 1_000_000_000

Size = Annotated[int, Field(ge=0, le=_MOST_PEOPLE)]


class PlanIn(Body):
    """A campaign, and what is asked of it: a setting, a share of misses, or what the reviewers can decide."""

    gallery_id: GalleryName | None = Field(None, description="Plan for this gallery: its pack, rates and size.")
    pack_id: PackName | None = Field(None, description="Plan for a gallery to come; not together with gallery_id.")
    size_now: Size | None = Field(None, description="Templates when the campaign begins; default: the gallery's.")
    size_end: Size = Field(description="Templates when it ends; every enrolment adds one.")
    enrolments_per_day: Annotated[int, Field(ge=1, le=10_000_000)]
    duplicate_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="Expected share of those who enrol who are enrolled already."
    )
    review_fpir: Fpir | None = Field(None, description="The setting to plan with; default: the gallery's.")
    duplicate_fpir: Fpir | None = Field(None, description="The same for the outcome DUPLICATE.")
    wanted_fnir: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Share of the duplicates that may be missed: asks for the setting and the capacity it takes."
    )
    capacity_per_day: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        None, description="Cases the reviewers can decide; alone it asks for the setting that fits."
    )


class EstimateOut(Out):
    """What to expect, and an interval of 95 %."""

    expected: float
    low: float
    high: float


class WorkloadOut(Out):
    """Counts. Their intervals hold what the calibration leaves open, and chance."""

    cases: EstimateOut = Field(description="For a human to decide; false alarms and found duplicates together.")
    false_alarms: EstimateOut
    found_duplicates: EstimateOut
    missed_duplicates: EstimateOut


class OutlookOut(Out):
    """What the campaign will see with the chosen setting."""

    review_fpir: float
    a_day: WorkloadOut
    whole: WorkloadOut
    fnir: EstimateOut = Field(description="Share missed; its interval holds what the calibration leaves open.")
    capacity_needed: int = Field(
        description="Cases a day to decide so that none is left at the end, in 39 of 40 campaigns."
    )


class TradeOffOut(Out):
    """What another setting would cost and miss."""

    review_fpir: float
    cases_a_day: EstimateOut
    missed_a_day: EstimateOut
    fnir: EstimateOut
    capacity_needed: int


class MomentOut(Out):
    """How a gallery of one size is judged. The intervals hold what the calibration leaves open."""

    gallery_size: int
    review: float = Field(description="Threshold; above 1: no score reaches it.")
    duplicate: float | None = Field(description="null: no score proves a duplicate at this rate.")
    extrapolated: bool
    fpir: EstimateOut
    fnir: EstimateOut


class CampaignOut(Out):
    size_now: int
    size_end: int
    enrolments_per_day: int
    duplicate_share: float
    enrolments: int
    days: int


class PlanOut(Out):
    """A campaign with one setting, and what comes of it. Nothing was set."""

    gallery_id: str | None
    pack_id: str
    calibration_id: str
    population: str
    mated_population: str
    campaign: CampaignOut
    chosen_by: ChosenBy = Field(description="Where the review_fpir comes from.")
    is_reached: bool = Field(description="false: what was asked for cannot be had; the first warning says why.")
    duplicate_fpir: float
    capacity_per_day: int | None
    wanted_fnir: float | None
    start: MomentOut = Field(
        description="When the campaign begins; of a gallery that is empty then, after the first day: before it there "
        "is nobody to be flagged as, or missed."
    )
    end: MomentOut
    chosen: OutlookOut
    trade_off: list[TradeOffOut] = Field(description="At several settings, by ascending review_fpir.")
    warnings: list[str]

    @classmethod
    def of(cls, answer: PlanAnswer) -> Self:
        fields = {name: getattr(answer.plan, name) for name in cls.model_fields if hasattr(answer.plan, name)}
        return cls.model_validate({"gallery_id": answer.gallery_id, "pack_id": answer.pack_id, **fields})
