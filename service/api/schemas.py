"""What the service answers: the bodies of responses, made from the nouns of the domain.

Over 300 lines on purpose: all answers in one place, nothing but declarations.
"""

from datetime import datetime
from typing import Generic, Literal, TypeVar

from fastapi import Response
from pydantic import BaseModel, Field

from service import domain
from service.ages import RecaptureAdvice, age_at_capture
from service.api.sample_schemas import AdviceOut, BoxOut, Out, PresentationAttackOut, QualityOut, SampleOut
from service.calibration import wilson_interval
from service.domain import EncounterStatus, OutcomeKind, QualityGate
from service.filters import wrong_share
from service.retention_rule import Hold

M = TypeVar("M", bound=BaseModel)


def answer(body: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return `body` as it is: FastAPI would check each answer against its model once more."""
    return Response(body.model_dump_json(), status, headers, media_type="application/json")


class ThresholdsOut(Out):
    """Score thresholds, the error rates they follow from, and what they are expected to miss."""

    review: float
    duplicate: float | None = Field(description="null: no score proves a duplicate at this rate.")
    review_fpir: float
    duplicate_fpir: float
    review_fmr: float
    duplicate_fmr: float
    comparisons: int
    extrapolated: bool
    expected_fnir: float = Field(description="Share of duplicates that the review threshold is expected to miss.")
    expected_fnir_population: str
    calibration_id: str | None = Field(
        description="By which scores became false match rates; null in answers of earlier versions."
    )
    stated_comparisons: int | None = Field(
        description="The next stated size above `comparisons`, for which the thresholds hold; null in answers of "
        "earlier versions."
    )


class CandidateOut(Out):
    """A subject that may be the same person. The ids are null once that subject was erased."""

    rank: int
    subject_id: str | None
    encounter_id: str | None
    reference_id: int | None
    score: float
    pair_score: float | None = Field(
        default=None,
        description="Where several samples were compared together: the score of the best single pair, `reference_id` "
        "being its reference; `score` is that or the fused score, the higher. null: `score` is that of a pair.",
    )
    fmr: float = Field(description="Chance that two different people score as high as the best single pair.")
    fmr_upper: float = Field(description="Upper 95 % bound of it.")
    extrapolated: bool
    gallery_id: str | None = Field(
        default=None, description="Where the subject is in another gallery, which was searched too; else null."
    )
    age_at_capture: int | None = Field(
        description="The year of capture less that of birth; the person may have been one year younger. "
        "Null where one of the two is not known."
    )
    years_between: float | None = Field(
        description="Between the candidate's capture and the probe's; null where one is not known."
    )
    pack_id: str | None = Field(
        description="While the gallery changes its model: the pack whose score this is, if not the ruling one's; it is "
        "not to be held against the thresholds. Else null."
    )

    @classmethod
    def of(cls, candidate: domain.Candidate) -> "CandidateOut":
        rate = candidate.false_match
        return cls(
            rank=candidate.rank,
            subject_id=candidate.subject_id,
            encounter_id=candidate.encounter_id,
            reference_id=candidate.reference_id,
            score=candidate.score,
            pair_score=candidate.pair_score,
            fmr=rate.fmr,
            fmr_upper=rate.fmr_upper,
            extrapolated=rate.extrapolated,
            gallery_id=candidate.gallery_id,
            age_at_capture=candidate.age_at_capture,
            years_between=candidate.years_between,
            pack_id=candidate.pack_id,
        )


class SearchFilterOut(Out):
    """How a search was limited. All were compared; who is outside needed the threshold of the whole gallery."""

    by_sex: bool
    birth_year_tolerance: int | None = Field(description="Years; null: not limited by the year of birth.")
    left_out: int = Field(description="Templates known to be of somebody outside.")
    comparisons: int = Field(description="Within the band: `thresholds.review` follows from it.")
    review_outside: float = Field(description="From this score on somebody outside is a candidate all the same.")
    expected_fpir: float = Field(
        description="False alarms of both thresholds together, if people of one sex and age look alike no more than "
        "others do."
    )
    fpir_upper: float = Field(description="The same if all false matches are within the band.")
    expected_fnir: float | None = Field(
        description="Share of duplicates expected to be missed, wrong metadata counted in; null: not known."
    )
    wrong_metadata: float | None = Field(
        description="Share of people with several encounters of whom one is outside the band of another; null: nobody "
        "has them."
    )


class SearchedGalleryOut(Out):
    """One of several; the numbers are null for a caller who has no role in it."""

    gallery_id: str
    gallery_size: int | None
    high_water_mark: int | None
    complete: bool
    miss_bound: float | None


class SearchedOut(Out):
    """What was searched. Of several galleries: complete only where all of them are, and the sum of their sizes.

    Where the caller has no role in one, its size is not in the sum.
    """

    gallery_size: int
    high_water_mark: int
    complete: bool
    miss_bound: float | None = Field(
        description="Upper 95 % bound on the share of candidates at or above the threshold that the index misses; "
        "0 when all templates were compared exactly. Null: a gallery was searched in which the caller has no role."
    )
    filter: SearchFilterOut | None = Field(
        description="Null: no filter made a difference, or a gallery was searched in which the caller has no role."
    )
    galleries: list[SearchedGalleryOut] = Field(
        default=[], description="Of an enrolment with `also_search`: each gallery, its own first. Else empty."
    )


class ContinuityOut(Out):
    """Whether this encounter looks like the subject's earlier ones."""

    score: float
    threshold: float
    passed: bool


class EnrolmentOut(Out):
    enrolment_id: str
    gallery_id: str
    subject_id: str
    encounter_id: str
    outcome: OutcomeKind
    candidates: list[CandidateOut]
    thresholds: ThresholdsOut | None = Field(
        description="Null where nobody was compared, and for a caller who has no role in a further gallery that was "
        "searched: its size follows from them."
    )
    searched: SearchedOut | None
    continuity: ContinuityOut | None
    samples: list[SampleOut]
    biometric_exception: str | None
    case_ids: list[int]
    warnings: list[str]
    seq: int
    created_at: datetime

    @classmethod
    def of(cls, enrolment: domain.Enrolment) -> "EnrolmentOut":
        return cls(
            enrolment_id=enrolment.enrolment_id,
            gallery_id=enrolment.gallery_id,
            subject_id=enrolment.subject_id,
            encounter_id=enrolment.encounter_id,
            outcome=enrolment.outcome,
            candidates=[CandidateOut.of(candidate) for candidate in enrolment.candidates],
            thresholds=_of(ThresholdsOut, enrolment.thresholds),
            searched=_of(SearchedOut, enrolment.searched),
            continuity=_of(ContinuityOut, enrolment.continuity),
            samples=[SampleOut.of(sample) for sample in enrolment.samples],
            biometric_exception=enrolment.biometric_exception,
            case_ids=list(enrolment.case_ids),
            warnings=list(enrolment.warnings),
            seq=enrolment.seq,
            created_at=enrolment.created_at,
        )


class VerificationOut(Out):
    matched: bool
    score: float
    threshold: float
    verification_fmr: float
    fmr: float
    fmr_upper: float
    extrapolated: bool
    expected_fnmr: float = Field(description="Share of genuine pairs that this threshold is expected to turn away.")
    population: str
    calibration_id: str = Field(description="By which the score became a false match rate.")
    reference_id: int | None = Field(description="The best reference; null where two samples were compared.")
    quality: QualityOut
    box: BoxOut
    presentation_attack: PresentationAttackOut
    reference_presentation_attack: PresentationAttackOut | None = Field(
        description="Of `reference_sample`; null where the sample was compared with a subject."
    )
    advice: list[AdviceOut]


class HeldOut(Out):
    """That a legal hold keeps it from being erased; the reason is for supervisors."""

    scope: Literal["subject", "gallery"] = Field(description="What is held: the subject itself, or its whole gallery.")
    set_by: str
    set_at: datetime

    @classmethod
    def of(cls, hold: Hold | None) -> "HeldOut | None":
        return None if hold is None else cls(scope=scope_of(hold), set_by=hold.set_by, set_at=hold.set_at)


def scope_of(hold: Hold) -> Literal["subject", "gallery"]:
    return "gallery" if hold.subject_id is None else "subject"


class SubjectOut(Out):
    subject_id: str
    gallery_id: str
    encounter_ids: list[str]
    created_at: datetime


class OneSubjectOut(SubjectOut):
    recapture_due: datetime | None = Field(
        description="When the person is to be captured anew: the latest date of the encounters that are searched; null "
        "where of none captured_at is known."
    )
    legal_hold: HeldOut | None


class TemplateOut(Out):
    reference_id: int
    position: int
    pack_id: str
    model_id: str
    verifies: bool
    quality: QualityOut | None = Field(description="Null, as the box, where the template was imported.")
    box: BoxOut | None


class EncounterOut(Out):
    encounter_id: str
    gallery_id: str
    subject_id: str
    status: EncounterStatus
    captured_at: datetime | None
    site: str | None
    operator_ref: str | None
    birth_year: int | None
    sex: str | None
    labels: dict[str, str]
    biometric_exception: str | None
    templates: list[TemplateOut]
    has_samples: bool
    created_at: datetime
    age_at_capture: int | None = Field(
        description="The year of capture less that of birth; the person may have been one year younger."
    )
    recapture_due: datetime | None = Field(
        description="When the person is to be captured anew, by their age then; null where captured_at is not known."
    )

    @classmethod
    def of(cls, encounter: domain.Encounter, advice: RecaptureAdvice) -> "EncounterOut":
        facts = encounter.facts
        return cls(
            encounter_id=encounter.encounter_id,
            gallery_id=encounter.gallery_id,
            subject_id=encounter.subject_id,
            status=encounter.status,
            captured_at=facts.captured_at,
            site=facts.site,
            operator_ref=facts.operator_ref,
            birth_year=facts.birth_year,
            sex=facts.sex,
            labels=dict(facts.labels),
            biometric_exception=encounter.biometric_exception,
            templates=[TemplateOut.model_validate(template) for template in encounter.templates],
            has_samples=encounter.has_samples,
            created_at=encounter.created_at,
            age_at_capture=age_at_capture(facts.capture()),
            recapture_due=advice.due(facts.capture()),
        )


class CountsOut(Out):
    subjects: int
    encounters: int
    templates: int = Field(description="Of the pack that rules, and searched now.")
    standby_only_templates: int = Field(
        description="While the gallery changes its model: templates that only the other pack has; searched too."
    )
    biometric_exceptions: int
    open_cases: int
    outcomes: dict[OutcomeKind, int]


class MetadataOut(Out):
    """How often what the filter goes by (sex, year of birth; both where it is off) differs for one person."""

    people: int = Field(description="With the same fact recorded at two encounters or more.")
    disagreeing: int = Field(description="Of these, with one encounter outside the band of another.")
    share: float | None
    share_lower: float = Field(description="95 % interval after Wilson (1927); 0 to 1 where nobody has two encounters.")
    share_upper: float

    @classmethod
    def of(cls, agreement: domain.MetadataAgreement) -> "MetadataOut":
        lower, upper = wilson_interval(agreement.disagreeing, agreement.people)
        return cls(
            people=agreement.people,
            disagreeing=agreement.disagreeing,
            share=wrong_share(agreement),
            share_lower=lower,
            share_upper=upper,
        )


class GalleryOut(Out):
    gallery_id: str
    pack_id: str
    standby_pack_id: str | None = Field(description="While the gallery changes its model: the pack that does not rule.")
    review_fpir: float
    duplicate_fpir: float
    verification_fmr: float
    keep_samples: bool
    quality_gate: QualityGate
    filter_by_sex: bool
    filter_by_birth_year: bool
    birth_year_tolerance: int
    min_duplicate_age: int
    review_unknown_age: bool
    created_at: datetime
    counts: CountsOut
    thresholds: ThresholdsOut
    metadata: MetadataOut
    legal_hold: HeldOut | None = Field(description="On the whole gallery.")
    held_subjects: int = Field(description="How many subjects are under a legal hold of their own.")
    warnings: list[str]


class PageOut(Out, Generic[M]):
    """One page; `next_after` is null on the last."""

    items: list[M]
    next_after: str | None


class EnrolmentsOut(PageOut[EnrolmentOut]):
    pass


class SubjectsOut(PageOut[SubjectOut]):
    pass


class EncountersOut(PageOut[EncounterOut]):
    pass


class GalleriesOut(Out):
    items: list[GalleryOut]


def _of(model: type[M], value: object) -> M | None:
    return None if value is None else model.model_validate(value)
