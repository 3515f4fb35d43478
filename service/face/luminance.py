"""Measures of light on and beside the face, after ISO/IEC 29794-5 (names and ranges as in OFIQ, its reference code)."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from service.domain import Image
from service.face.alignment import SIZE_PX, Landmarks, fit_similarity

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]

DARK = slice(0, 26)  # grey levels
LIGHT = slice(247, 256)

_BINS_A_LEVEL = 8  # grey levels that count as alike when both sides of the face are compared

_CENTRE, _AXES = (56, 64), (38, 48)  # pixels of the crop: an oval from the brows to the chin, without hair

_VIEW_PX = 64  # side of the view of what is beside the head
_VIEW_CROPS = 3.0  # crops that it is wide and high
_BESIDE_ROWS = 38  # of it: from above the head down to the mouth, above the shoulders
_FROM_CENTRE_PX = 15  # columns of it nearer to the face's middle may be hair
_LEAST_SEEN = 0.1  # share of what is beside the head that must lie in the image

_COLUMNS, _ROWS = np.meshgrid(np.arange(_VIEW_PX, dtype=np.float32), np.arange(_VIEW_PX, dtype=np.float32))
_BESIDE_HEAD = (np.abs(_COLUMNS - _VIEW_PX / 2) > _FROM_CENTRE_PX) & (_ROWS < _BESIDE_ROWS)
_BESIDE_HEAD.setflags(write=False)


@dataclass(frozen=True, slots=True)
class FaceLight:
    """How the face is lit; see `service.domain.Quality`."""

    under_exposure: float
    over_exposure: float
    dynamic_range: float
    illumination_uniformity: float


def _half_ovals() -> tuple[Mask, Mask]:
    """Return the image-left and the image-right half of the face in a crop, 255 inside."""
    oval = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    cv2.ellipse(oval, _CENTRE, _AXES, 0, 0, 360, 255, cv2.FILLED)
    left, right = oval.copy(), oval
    left[:, _CENTRE[0] :] = 0
    right[:, : _CENTRE[0]] = 0
    return left, right


_LEFT, _RIGHT = _half_ovals()


def face_light(grey: Grey) -> FaceLight:
    """Return how a face is lit.

    Args:
        grey: (112, 112) uint8, the aligned crop.

    Source: ISO/IEC 29794-5 as OFIQ 1.1 computes it: under-exposure prevention (share of the levels 0 to 25),
    over-exposure prevention (247 to 255), dynamic range (entropy of the histogram), illumination uniformity (what the
    histograms of both sides have in common). Here the face is an oval, the histograms of the sides have 32 levels, and
    the luminance is the grey of BT.601 without linearisation.
    """
    left, right = (cv2.calcHist([grey], [0], mask, [256], [0, 256]).ravel() for mask in (_LEFT, _RIGHT))
    both = left + right
    shares = both / both.sum()
    present = shares[shares > 0]
    coarse_left, coarse_right = (each.reshape(-1, _BINS_A_LEVEL).sum(axis=1) / each.sum() for each in (left, right))
    return FaceLight(
        under_exposure=float(shares[DARK].sum()),
        over_exposure=float(shares[LIGHT].sum()),
        dynamic_range=max(0.0, -float((present * np.log2(present)).sum())),
        illumination_uniformity=float(np.minimum(coarse_left, coarse_right).sum()),
    )


def background_gradient(image: Image, landmarks: Landmarks) -> float | None:
    """Return the mean Sobel gradient of the grey levels beside the head, None where too little of it is seen.

    Args:
        image: (H, W, 3) uint8, RGB.
        landmarks: (5, 2) float32, pixels.

    Returns:
        0 for an even wall; grey levels, in a view where the eyes are 6.7 pixels apart.

    Raises:
        LandmarksDegenerate: the five points do not span a face.

    Source: background uniformity of ISO/IEC 29794-5 as OFIQ 1.1 computes it, which segments the image; here the
    background is what lies left and right of the head, above the shoulders.
    """
    to_crop = fit_similarity(landmarks)
    factor = _VIEW_PX / (_VIEW_CROPS * SIZE_PX)
    to_view = to_crop * factor
    to_view[:, 2] += _VIEW_PX / 2 - factor * SIZE_PX / 2
    view = cv2.warpAffine(image, to_view, (_VIEW_PX, _VIEW_PX), flags=cv2.INTER_LINEAR)
    grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)
    seen = _BESIDE_HEAD & _is_inside(to_view, image.shape[1], image.shape[0])
    if seen.sum() < _LEAST_SEEN * _BESIDE_HEAD.sum():
        return None
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    return float(cv2.magnitude(across, down)[seen].mean())


def _is_inside(to_view: npt.NDArray[np.float64], width: int, height: int) -> npt.NDArray[np.bool_]:
    """Return which pixels of the view show the image, with their neighbours: its edge is no texture."""
    back = cv2.invertAffineTransform(to_view)
    margin = math.hypot(back[0, 0], back[1, 0])  # pixels of the image for one of the view
    across = back[0, 0] * _COLUMNS + back[0, 1] * _ROWS + back[0, 2]
    down = back[1, 0] * _COLUMNS + back[1, 1] * _ROWS + back[1, 2]
    inside: npt.NDArray[np.bool_] = (
        (across >= 2 * margin) & (across <= width - 2 * margin) & (down >= 2 * margin) & (down <= height - 2 * margin)
    )
    return inside
