"""Turns a face upright and scales it to the template that the recognisers were trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from service.domain import Image
from service.errors import LandmarksDegenerate

Landmarks = npt.NDArray[np.float32]
"""(5, 2) float32, pixels, x before y: image-left eye, image-right eye, nose, image-left mouth corner, the right one."""

Crop = npt.NDArray[np.uint8]
"""(112, 112, 3) uint8, RGB, upright."""

SIZE_PX = 112

# the five-point template of the ArcFace reference code for crops of 112 x 112
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float64
)
TEMPLATE.setflags(write=False)


@dataclass(frozen=True, slots=True)
class FacePoints:
    """Where the five landmarks of an aligned face lie, as complex numbers of pixels around their centre."""

    centre: complex
    points: tuple[complex, ...]
    variance: float

    @classmethod
    def of(cls, places: Sequence[Sequence[float]]) -> "FacePoints":
        """Return the points of (5, 2) places, x before y."""
        points = [complex(x, y) for x, y in places]
        centre = sum(points) / len(points)
        around = tuple(point - centre for point in points)
        return cls(centre, around, sum(abs(point) ** 2 for point in around))


_ARCFACE = FacePoints.of(TEMPLATE.tolist())

# below this spread (root mean square distance to their centre, pixels) five points say nothing about rotation
MIN_SPREAD_PX = 2.0

# share of the template's variance that the fit must explain; even a full profile has 0.6, a mirror image 0.05
MIN_EXPLAINED = 0.3


def fit_similarity(landmarks: Landmarks, target: FacePoints = _ARCFACE) -> npt.NDArray[np.float64]:
    """Return the (2, 3) rotation, scale and shift that brings the landmarks closest to the template.

    In two dimensions and without reflection the least-squares fit has a closed form over complex numbers:
    the factor is the cross moment divided by the variance.

    Raises:
        LandmarksDegenerate: the points coincide, are not finite, or fit the template no way up.

    Source: Umeyama, PAMI 13(4), 1991.
    """
    if landmarks.shape != (5, 2) or not np.isfinite(landmarks).all():
        raise LandmarksDegenerate("the face's landmarks could not be read: take another photograph from the front")
    # five points: plain complex numbers are several times quicker than arrays
    points = [complex(x, y) for x, y in landmarks.tolist()]
    centre = sum(points) / 5
    source = [point - centre for point in points]
    variance = sum(abs(point) ** 2 for point in source)
    if variance < 5 * MIN_SPREAD_PX**2:
        raise LandmarksDegenerate("the face's landmarks lie on one spot: take a sharper, closer photograph")
    moment = sum(point.conjugate() * wanted for point, wanted in zip(source, target.points, strict=True))
    turn = moment / variance
    if abs(turn) ** 2 * variance < MIN_EXPLAINED * target.variance:
        raise LandmarksDegenerate("the landmarks do not form a face: ask the person to look at the camera")
    shift = target.centre - turn * centre
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def align(image: Image, landmarks: Landmarks) -> Crop:
    """Return the face rotated and scaled to the ArcFace template.

    Args:
        image: (H, W, 3) uint8, RGB.
        landmarks: (5, 2) float32, pixels, x before y; left eye first as seen in the image.

    Returns:
        (112, 112, 3) uint8, RGB; pixels outside the image are black.

    Raises:
        LandmarksDegenerate: the five points do not span a face.

    Source: five-point template of the ArcFace reference code; similarity fit after Umeyama, PAMI 13(4), 1991.
    """
    matrix = fit_similarity(landmarks)
    crop = cv2.warpAffine(image, matrix, (SIZE_PX, SIZE_PX), flags=cv2.INTER_LINEAR)
    return np.asarray(crop, np.uint8)
