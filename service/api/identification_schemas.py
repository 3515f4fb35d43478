"""What the service answers to an identification."""

from typing import Any

from service.api.sample_schemas import AdviceOut, BoxOut, Out, PresentationAttackOut, QualityOut, advice_out
from service.api.schemas import CandidateOut, SearchedOut, ThresholdsOut
from service.identification import Identification


class IdentificationOut(Out):
    gallery_id: str
    found: bool
    candidates: list[CandidateOut]
    thresholds: ThresholdsOut
    searched: SearchedOut
    quality: QualityOut
    box: BoxOut
    presentation_attack: PresentationAttackOut
    advice: list[AdviceOut]
    warnings: list[str]


def identification_fields(found: Identification) -> dict[str, Any]:
    """Return the fields of `IdentificationOut`."""
    decision = found.decision
    return {
        "gallery_id": found.gallery_id,
        "found": bool(decision.candidates),
        "candidates": [CandidateOut.of(candidate) for candidate in decision.candidates],
        "thresholds": ThresholdsOut.model_validate(decision.thresholds),
        "searched": SearchedOut.model_validate(found.searched),
        "quality": QualityOut.model_validate(found.probe.quality),
        "box": BoxOut.model_validate(found.probe.box),
        "presentation_attack": PresentationAttackOut.of(found.probe.presentation_attack),
        "advice": advice_out(found.probe.quality),
        "warnings": list(decision.warnings),
    }
