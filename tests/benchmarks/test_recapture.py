"""Re-captures differ from their first photograph as a second photograph would, and are the same in every run."""

import io
from dataclasses import astuple

import numpy as np
import pytest
from PIL import Image

from benchmarks.recapture import draw_conditions, recapture


@pytest.fixture
def photograph() -> Image.Image:
    """A grey gradient with a bright square in its middle, 200 x 240 pixels."""
    pixels = np.tile(np.linspace(60, 180, 200), (240, 1))
    pixels[90:150, 70:130] = 220
    return Image.fromarray(np.repeat(pixels[:, :, None], 3, axis=2).astype(np.uint8))


def decoded(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "JPEG"
        return image.convert("RGB")


def test_equal_seeds_give_equal_bytes_and_others_differ(photograph: Image.Image) -> None:
    assert recapture(photograph, 1) == recapture(photograph, 1)
    assert recapture(photograph, 1) != recapture(photograph, 2)


def test_each_condition_varies_and_stays_mild() -> None:
    drawn = [draw_conditions(seed) for seed in range(200)]
    assert len({astuple(conditions) for conditions in drawn}) == 200
    assert {conditions.tilt_deg > 0 for conditions in drawn} == {True, False}
    for conditions in drawn:
        assert 3 <= abs(conditions.tilt_deg) <= 7
        assert all(0.02 <= share <= 0.10 for share in conditions.crop)
        assert 0.75 <= conditions.zoom <= 0.95
        assert 0.8 <= conditions.gamma <= 1.3
        assert 60 <= conditions.jpeg_quality < 80


@pytest.mark.parametrize("seed", range(5))
def test_the_picture_is_smaller_by_its_crop_and_zoom(photograph: Image.Image, seed: int) -> None:
    conditions = draw_conditions(seed)
    left, top, right, bottom = conditions.crop
    width, height = decoded(recapture(photograph, seed)).size
    assert width == pytest.approx(200 * (1 - left - right) * conditions.zoom, abs=2)
    assert height == pytest.approx(240 * (1 - top - bottom) * conditions.zoom, abs=2)


def test_a_tilt_leaves_no_black_corner() -> None:
    wall = Image.new("RGB", (200, 240), (200, 200, 200))
    for seed in range(20):
        assert np.asarray(decoded(recapture(wall, seed))).min() > 100, seed


@pytest.mark.parametrize("seed", range(5))
def test_what_is_in_the_middle_stays_there(photograph: Image.Image, seed: int) -> None:
    pixels = np.asarray(decoded(recapture(photograph, seed)))[:, :, 1].astype(float)
    middle = pixels[pixels.shape[0] // 2 - 5 : pixels.shape[0] // 2 + 5, pixels.shape[1] // 2 - 5 :][:, :10]
    assert middle.mean() > pixels.mean() + 20


def test_any_mode_of_image_is_taken(photograph: Image.Image) -> None:
    for mode in ("L", "RGBA", "P"):
        assert decoded(recapture(photograph.convert(mode), 1)).mode == "RGB"
