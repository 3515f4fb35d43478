"""From pixels side by side to one plane a channel, as the graphs take them."""

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from service.domain import Image

Colour = Literal["RGB", "BGR"]


def to_planes(image: Image, colour: Colour, *, multiple: int = 1) -> npt.NDArray[np.float32]:
    """Return (1, 3, H', W') float32, 0..255, channels in the order of `colour`.

    Args:
        image: (H, W, 3) uint8, RGB.
        colour: the order of the planes.
        multiple: of the returned height and width; what is added right and below is black.
    """
    height, width = image.shape[:2]
    planes = np.zeros((1, 3, height + -height % multiple, width + -width % multiple), np.float32)
    # split before they become numbers four times as long: half the time of the other way round
    channels = cv2.split(np.ascontiguousarray(image))
    for plane, channel in zip(planes[0], channels if colour == "RGB" else channels[::-1], strict=True):
        plane[:height, :width] = channel
    return planes
