"""Which samples are refused for their quality, and what is said about a photograph."""

from dataclasses import replace

import pytest

from service.domain import Advice, Quality, QualityGate
from service.errors import QualityTooLow
from service.quality_rule import LEAST_UNIFIED, WORDS, advice_on, check, refusal_advice, refuses

GOOD = Quality(
    face_width_px=120.0,
    inter_eye_px=60.0,
    detector_score=0.93,
    sharpness=200.0,
    brightness=120.0,
    yaw_deg=3.0,
    pitch_deg=-4.0,
    roll_deg=1.0,
    face_count=1,
    luminance_variance=2000.0,
    under_exposure=0.0,
    over_exposure=0.0,
    dynamic_range=7.0,
    illumination_uniformity=0.8,
    background_gradient=20.0,
    head_size=0.3,
    second_face_share=0.0,
    embedding_norm=12.0,
    unified=50,
)
OFF, STANDARD, STRICT = QualityGate


def test_a_good_photograph_needs_no_advice_and_is_never_refused() -> None:
    assert advice_on(GOOD) == ()
    assert not any(refuses(gate, GOOD) for gate in QualityGate)


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ({"inter_eye_px": 29.0}, Advice.MOVE_CLOSER),
        ({"sharpness": 39.0}, Advice.HOLD_STILL),
        ({"under_exposure": 0.16}, Advice.MORE_LIGHT),
        ({"over_exposure": 0.06}, Advice.LESS_LIGHT),
        ({"illumination_uniformity": 0.34}, Advice.LIGHT_FROM_FRONT),
        ({"yaw_deg": 31.0}, Advice.FACE_CAMERA),
        ({"yaw_deg": -31.0}, Advice.FACE_CAMERA),
        ({"pitch_deg": -36.0}, Advice.LEVEL_HEAD),
        ({"roll_deg": -90.0}, Advice.UPRIGHT),
        ({"second_face_share": 0.2}, Advice.ALONE),
    ],
)
def test_each_fault_has_its_own_advice(fault: dict[str, float], advice: Advice) -> None:
    assert advice_on(replace(GOOD, **fault)) == (advice,)  # type: ignore[arg-type]  # by name


def test_less_contrast_is_not_taken_for_blur() -> None:
    dim = replace(GOOD, sharpness=GOOD.sharpness / 9, luminance_variance=2000.0 / 9)
    assert advice_on(dim) == ()


@pytest.mark.parametrize("gate", [STANDARD, STRICT])
def test_a_gate_refuses_from_just_below_its_score(gate: QualityGate) -> None:
    blurred = replace(GOOD, sharpness=1.0)
    assert refuses(gate, replace(blurred, unified=LEAST_UNIFIED[gate] - 1))
    assert not refuses(gate, replace(blurred, unified=LEAST_UNIFIED[gate]))


def test_standard_refuses_nobody_for_whom_nothing_can_be_done() -> None:
    worst = replace(GOOD, unified=0)
    assert not refuses(STANDARD, worst)
    assert refuses(STRICT, worst)
    assert refusal_advice(worst) == (Advice.TAKE_AGAIN,)


def test_the_gate_that_is_off_refuses_nothing() -> None:
    assert not refuses(OFF, replace(GOOD, unified=0, sharpness=0.0, under_exposure=1.0))


def test_what_was_not_judged_is_not_refused() -> None:
    assert not refuses(STRICT, replace(GOOD, unified=None, sharpness=1.0))


def test_measures_of_before_they_existed_have_no_fault() -> None:
    earlier = Quality(112.5, 51.25, 0.93, 0.5, 127.0, -3.5, 2.0, 0.25, 1)
    assert advice_on(earlier) == ()


def test_a_refusal_says_what_to_do() -> None:
    with pytest.raises(QualityTooLow) as caught:
        check(STANDARD, replace(GOOD, unified=3, yaw_deg=50.0, inter_eye_px=12.0))
    assert WORDS[Advice.MOVE_CLOSER] in caught.value.message
    assert WORDS[Advice.FACE_CAMERA] in caught.value.message
    assert WORDS[Advice.HOLD_STILL] not in caught.value.message


def test_every_advice_has_words() -> None:
    assert set(WORDS) == set(Advice)
    assert len(set(WORDS.values())) == len(WORDS)
