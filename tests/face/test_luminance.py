"""Measures of light: images of which the answer is known."""

import math

import cv2
import numpy as np
import pytest

from service.face.alignment import TEMPLATE
from service.face.luminance import Grey, background_gradient, face_light

LANDMARKS = TEMPLATE.astype(np.float32)


def even(level: int) -> Grey:
    return np.full((112, 112), level, np.uint8)


def levels(*shown: int) -> Grey:
    """Columns of two pixels in turn, so that each side of the face has every level."""
    return np.asarray(np.tile(np.repeat(shown, 2), 112)[: 112 * 112 // 112][None].repeat(112, 0), np.uint8)


@pytest.mark.parametrize(("level", "under", "over"), [(0, 1, 0), (25, 1, 0), (26, 0, 0), (246, 0, 0), (247, 0, 1)])
def test_exposure_counts_the_levels_that_the_standard_names(level: int, under: float, over: float) -> None:
    light = face_light(even(level))
    assert (light.under_exposure, light.over_exposure) == (under, over)


@pytest.mark.parametrize(("shown", "bits"), [((100,), 0), ((60, 160), 1), ((40, 90, 140, 190), 2)])
def test_dynamic_range_is_the_entropy_of_the_levels(shown: tuple[int, ...], bits: float) -> None:
    assert face_light(levels(*shown)).dynamic_range == pytest.approx(bits, abs=0.02)


def test_what_lies_outside_the_face_does_not_count() -> None:
    grey = even(128)
    grey[:12], grey[:, :12], grey[:, -12:] = 0, 255, 255
    light = face_light(grey)
    assert (light.under_exposure, light.over_exposure, light.dynamic_range) == (0, 0, 0)


def test_a_face_lit_from_one_side_is_less_uniform() -> None:
    noise = np.random.default_rng(0).normal(128, 20, (112, 112))
    lamp = np.linspace(-1, 1, 112)[None]
    uniformity = [
        face_light(np.clip(noise + strength * lamp, 0, 255).astype(np.uint8)).illumination_uniformity
        for strength in (0, 20, 40, 80)
    ]
    assert uniformity[0] > 0.9
    assert sorted(uniformity, reverse=True) == uniformity
    assert uniformity[-1] < 0.4


def test_uniformity_does_not_depend_on_which_side_is_dark() -> None:
    grey = np.clip(np.random.default_rng(1).normal(100, 30, (112, 112)), 0, 255).astype(np.uint8)
    grey[:, :56] //= 2
    left, right = face_light(grey), face_light(np.ascontiguousarray(grey[:, ::-1]))
    assert left.illumination_uniformity == pytest.approx(right.illumination_uniformity, abs=0.02)


def scene(texture: float) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A head-sized disc at the template's place, 400 x 400, before a wall with so much texture."""
    wall = np.random.default_rng(0).normal(128, texture, (100, 100, 3))
    image = cv2.resize(np.clip(wall, 0, 255).astype(np.uint8), (400, 400), interpolation=cv2.INTER_NEAREST)
    cv2.ellipse(image, (200, 200), (50, 80), 0, 0, 360, (200, 30, 90), cv2.FILLED)
    return np.asarray(image, np.uint8)


def test_an_even_wall_has_no_gradient_whatever_the_face_is_like() -> None:
    assert background_gradient(scene(0), LANDMARKS + 144) == 0


def test_what_is_below_the_mouth_is_clothing_and_no_background() -> None:
    image = scene(0)
    image[250:] = scene(60)[250:]
    assert background_gradient(image, LANDMARKS + 144) == 0


def test_a_wall_with_more_texture_has_more_gradient() -> None:
    found = [background_gradient(scene(texture), LANDMARKS + 144) or 0.0 for texture in (0, 5, 20, 60)]
    assert sorted(found) == found
    assert found[-1] > 10 * found[1] / 2 > 0


def test_the_background_is_found_whichever_way_the_photograph_lies() -> None:
    upright = background_gradient(scene(30), LANDMARKS + 144)
    turned = np.ascontiguousarray(np.rot90(scene(30)))
    points = LANDMARKS + 144
    lying = np.stack([points[:, 1], 400 - points[:, 0]], axis=1).astype(np.float32)
    assert background_gradient(turned, lying) == pytest.approx(upright, rel=0.1)


def test_a_face_that_fills_the_image_shows_no_background() -> None:
    assert background_gradient(np.zeros((112, 112, 3), np.uint8), LANDMARKS) is None


def test_the_edge_of_the_image_is_no_texture() -> None:
    image = np.full((240, 240, 3), 200, np.uint8)
    assert background_gradient(image, LANDMARKS + 64) == 0


def test_an_even_face_has_no_range_and_no_side() -> None:
    light = face_light(even(90))
    assert light.dynamic_range == 0
    assert not math.copysign(1, light.dynamic_range) < 0
    assert light.illumination_uniformity == 1
