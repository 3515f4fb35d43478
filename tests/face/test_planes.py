"""Planes hold exactly the pixels, channel by channel."""

import numpy as np
import pytest

from service.domain import Image
from service.face.planes import Colour, to_planes


@pytest.fixture
def image() -> Image:
    return np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)


@pytest.mark.parametrize(("colour", "order"), [("RGB", [0, 1, 2]), ("BGR", [2, 1, 0])])
def test_each_plane_is_a_channel(image: Image, colour: Colour, order: list[int]) -> None:
    planes = to_planes(image, colour)
    assert planes.shape == (1, 3, 50, 70)
    assert planes.dtype == np.float32
    assert np.array_equal(planes[0], image[:, :, order].transpose(2, 0, 1))


def test_what_is_missing_to_a_multiple_is_black_and_lies_right_and_below(image: Image) -> None:
    planes = to_planes(image, "RGB", multiple=32)
    assert planes.shape == (1, 3, 64, 96)
    assert np.array_equal(planes[0, :, :50, :70], image.transpose(2, 0, 1))
    assert not planes[0, :, 50:].any()
    assert not planes[0, :, :, 70:].any()


def test_a_turned_view_of_an_image_is_read_as_it_looks(image: Image) -> None:
    turned = np.rot90(image)
    assert np.array_equal(to_planes(turned, "RGB")[0], turned.transpose(2, 0, 1))
