"""What the service answers about a sample: its quality, the face in it, and what would make it better."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service import domain
from service.domain import Advice, AttackFinding, NotAssessed
from service.errors import QualityTooLow
from service.quality_rule import WORDS, advice_on, refusal_advice


class Out(BaseModel):
    """The base of all bodies of responses."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class QualityOut(Out):
    """Measures of a face and its photograph; `docs/quality.md` says of each what it is.

    What may be null is null in records of before it was measured.
    """

    face_width_px: float
    inter_eye_px: float
    detector_score: float = Field(description="0 to 1, higher is surer.")
    sharpness: float = Field(description="Variance of the Laplacian, higher is sharper.")
    brightness: float = Field(description="Mean grey level of the face, 0 to 255.")
    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    face_count: int
    luminance_variance: float | None
    under_exposure: float | None = Field(description="Share of the face that is black, 0 to 1.")
    over_exposure: float | None = Field(description="Share of the face that is white, 0 to 1.")
    dynamic_range: float | None = Field(description="Entropy of the face's grey levels, 0 to 8 bits.")
    illumination_uniformity: float | None = Field(description="How alike both sides of the face are lit, 0 to 1.")
    background_gradient: float | None = Field(description="0 beside an even wall; null too where none is seen.")
    head_size: float | None = Field(description="Eyes to chin, share of the image's height.")
    second_face_share: float | None = Field(description="Area of the next largest face, share of this one's.")
    embedding_norm: float | None = Field(description="As the model gave it; comparable within one model only.")
    unified: int | None = Field(
        description="Unified quality score, 0 to 100, higher compares better; null where the model pack has no scale."
    )


class PresentationAttackOut(Out):
    """Whether the sample may show a print, a screen or a mask (ISO/IEC 30107). A hint for a human, never a decision."""

    status: Literal["assessed", "not_assessed"]
    reason: NotAssessed | None = Field(description="Why it was not assessed.")
    finding: AttackFinding | None
    score: float | None = Field(description="0 to 1, higher: more surely bona fide.")
    threshold: float | None = Field(description="From this score on the finding is bona_fide.")

    @classmethod
    def of(cls, attack: domain.PresentationAttack) -> "PresentationAttackOut":
        return cls(
            status="not_assessed" if attack.finding is None else "assessed",
            reason=attack.reason,
            finding=attack.finding,
            score=attack.score,
            threshold=attack.threshold,
        )


class AdviceOut(Out):
    """What can be done about the photograph. `code` never changes, `words` are for people."""

    code: Advice
    words: str


class BoxOut(Out):
    """Pixels of the upright image, origin top left, right and bottom exclusive."""

    left: float
    top: float
    right: float
    bottom: float


class SampleOut(Out):
    position: int
    reference_id: int | None
    rejection_code: str | None
    quality: QualityOut | None
    box: BoxOut | None
    presentation_attack: PresentationAttackOut
    advice: list[AdviceOut] = Field(description="What would make the photograph better; of an accepted one too.")

    @classmethod
    def of(cls, finding: domain.SampleFinding) -> "SampleOut":
        refused = finding.rejection_code == QualityTooLow.code
        return cls(
            position=finding.position,
            reference_id=finding.reference_id,
            rejection_code=finding.rejection_code,
            quality=QualityOut.model_validate(finding.quality) if finding.quality else None,
            box=BoxOut.model_validate(finding.box) if finding.box else None,
            presentation_attack=PresentationAttackOut.of(finding.presentation_attack),
            advice=advice_out(finding.quality, is_refused=refused),
        )


def advice_out(quality: domain.Quality | None, *, is_refused: bool = False) -> list[AdviceOut]:
    """Return what can be done about a photograph of this quality; for a refused one never nothing, if it is known."""
    if quality is None:
        return []
    found = refusal_advice(quality) if is_refused else advice_on(quality)
    return [AdviceOut(code=each, words=WORDS[each]) for each in found]
