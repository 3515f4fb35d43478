"""Which samples a gallery refuses for their quality, and what can be done about a photograph (pure).

The unified score decides, because it alone was seen to predict errors (`docs/quality.md`); the single measures say what
to do. `standard` refuses only where they find something to do: a face that the model makes little of, in a photograph
without a fault, is no fault of the person.
"""

from collections.abc import Callable, Sequence

from service.domain import Advice, Quality, QualityGate
from service.errors import QualityTooLow

LEAST_UNIFIED = {QualityGate.STANDARD: 15, QualityGate.STRICT: 30}
"""Lowest unified score that is not refused."""

LEAST_INTER_EYE_PX = 30  # the crop shows 35 pixels between the eyes: below, it is enlarged
LEAST_RELATIVE_SHARPNESS = 0.02  # sharpness / luminance variance
MOST_UNDER_EXPOSURE = 0.15
MOST_OVER_EXPOSURE = 0.05
LEAST_ILLUMINATION_UNIFORMITY = 0.35
MOST_YAW_DEG = 30
MOST_PITCH_DEG = 35  # the estimate is off by 15 degrees and more where a nose is not like the average
MOST_ROLL_DEG = 30
MOST_SECOND_FACE_SHARE = 0.16  # of the area: 0.4 of the width, as `choose_face` has it

WORDS = {
    Advice.MOVE_CLOSER: "move closer: the face has too few pixels",
    Advice.HOLD_STILL: "hold the camera still, and wait until it is in focus",
    Advice.MORE_LIGHT: "put more light on the face",
    Advice.LESS_LIGHT: "use less light, or no flash: parts of the face are white",
    Advice.LIGHT_FROM_FRONT: "light from the front: one side of the face is dark",
    Advice.FACE_CAMERA: "turn the face to the camera",
    Advice.LEVEL_HEAD: "hold the camera at the height of the eyes, and let the person look into it",
    Advice.UPRIGHT: "hold the camera upright, and the head too",
    Advice.ALONE: "photograph the person alone",
    Advice.TAKE_AGAIN: "take another photograph: close, from the front, in even light, with nothing before the face",
}


def _below(value: float | None, limit: float) -> bool:
    return value is not None and value < limit


def _above(value: float | None, limit: float) -> bool:
    return value is not None and value > limit


def _is_blurred(quality: Quality) -> bool:
    # a photograph with less contrast has weaker edges without being less sharp
    variance = quality.luminance_variance
    return variance is not None and quality.sharpness < LEAST_RELATIVE_SHARPNESS * variance


_FAULTS: Sequence[tuple[Advice, Callable[[Quality], bool]]] = (
    (Advice.ALONE, lambda quality: _above(quality.second_face_share, MOST_SECOND_FACE_SHARE)),
    (Advice.MOVE_CLOSER, lambda quality: quality.inter_eye_px < LEAST_INTER_EYE_PX),
    (Advice.HOLD_STILL, _is_blurred),
    (Advice.MORE_LIGHT, lambda quality: _above(quality.under_exposure, MOST_UNDER_EXPOSURE)),
    (Advice.LESS_LIGHT, lambda quality: _above(quality.over_exposure, MOST_OVER_EXPOSURE)),
    (
        Advice.LIGHT_FROM_FRONT,
        lambda quality: _below(quality.illumination_uniformity, LEAST_ILLUMINATION_UNIFORMITY),
    ),
    (Advice.FACE_CAMERA, lambda quality: abs(quality.yaw_deg) > MOST_YAW_DEG),
    (Advice.LEVEL_HEAD, lambda quality: abs(quality.pitch_deg) > MOST_PITCH_DEG),
    (Advice.UPRIGHT, lambda quality: abs(quality.roll_deg) > MOST_ROLL_DEG),
)


def advice_on(quality: Quality) -> tuple[Advice, ...]:
    """Return what the measures find to be done, nothing for a photograph without a conspicuous fault."""
    return tuple(advice for advice, applies in _FAULTS if applies(quality))


def refuses(gate: QualityGate, quality: Quality) -> bool:
    """Return whether a gallery with this gate refuses the sample. A sample without a unified score is never refused."""
    if gate is QualityGate.OFF or quality.unified is None or quality.unified >= LEAST_UNIFIED[gate]:
        return False
    return gate is QualityGate.STRICT or bool(advice_on(quality))


def check(gate: QualityGate, quality: Quality) -> None:
    """Raises QualityTooLow."""
    if refuses(gate, quality):
        words = "; ".join(WORDS[each] for each in refusal_advice(quality))
        raise QualityTooLow(f"the photograph is not good enough to be found again: {words}")


def refusal_advice(quality: Quality) -> tuple[Advice, ...]:
    """Return what to do about a refused sample: never nothing."""
    return advice_on(quality) or (Advice.TAKE_AGAIN,)
