"""Looks again at the face that was chosen, upright and at set sizes, and averages its landmarks.

A detector's landmarks jump when the image is moved or shrunk by a little (YuNet: 3 to 4 pixels of a face 100 wide),
and the crop for the recogniser with them. Each close look shows the face where and as large as the alignment puts it,
whatever the size and turn of the photograph, and errs anew: their mean errs less.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from service.domain import Image
from service.face.alignment import SIZE_PX, Landmarks, fit_similarity
from service.face.detection import FaceDetector, FloatArray, suppress
from service.face.pack_manifest import CloseLook

# side of what a close look shows, in sides of the aligned crop: the whole head with some room around it
ROOM = 160 / SIZE_PX

# landmarks that lie further from the first ones on average, in shares of the look's side, are another face's: an eighth
# is a quarter of the face's width
MAX_SHIFT = 1 / 8

_MIRRORED_ORDER = [1, 0, 2, 4, 3]  # an eye that was the left one is the right one in a mirror


def refine(detector: FaceDetector, image: Image, first: Landmarks, looks: Sequence[CloseLook]) -> Landmarks:
    """Return the mean of the landmarks of all close looks that show the face, `first` where none does.

    Args:
        detector: that found the face.
        image: (H, W, 3) uint8, RGB.
        first: (5, 2) float32, pixels, as first found.
        looks: of the pack; none leave `first` as it is.

    Raises:
        LandmarksDegenerate: the first landmarks do not span a face.
    """
    if not looks:
        return first
    scene, shift, shrunk = _surroundings(image, first, max(look.side_px for look in looks))
    here = ((first - shift) * shrunk).astype(np.float32)
    found = [points for look in looks if (points := _look(detector, scene, here, look)) is not None]
    return (np.mean(found, axis=0) / shrunk + shift).astype(np.float32) if found else first


def _look(detector: FaceDetector, scene: Image, first: Landmarks, look: CloseLook) -> Landmarks | None:
    """Return the face's landmarks in pixels of the scene, None where no face is found near the first ones."""
    side = look.side_px
    matrix = fit_similarity(first) * (side / (ROOM * SIZE_PX))
    matrix[:, 2] += side / 2 * (1 - 1 / ROOM)
    if look.mirrored:
        matrix[0] *= -1
        matrix[0, 2] += side - 1
    shown = np.asarray(cv2.warpAffine(scene, matrix, (side, side), flags=cv2.INTER_LINEAR), np.uint8)
    boxes, landmarks, scores = detector.propose(shown)
    if not len(scores):
        return None
    points = landmarks[suppress(boxes, scores)]
    if look.mirrored:
        points = points[:, _MIRRORED_ORDER]
    shifts = np.linalg.norm(points - (first @ matrix[:, :2].T + matrix[:, 2]), axis=2).mean(axis=1)
    nearest = int(shifts.argmin())
    if shifts[nearest] > MAX_SHIFT * side:
        return None
    back = cv2.invertAffineTransform(matrix)
    return np.asarray(points[nearest] @ back[:, :2].T + back[:, 2], np.float32)


def _surroundings(image: Image, first: Landmarks, side_px: int) -> tuple[Image, FloatArray, FloatArray]:
    """Return what looks of `side_px` can show of the image, shrunk where many of its pixels become one of theirs.

    Returns:
        the pixels, where their corner lies in the image (2,), and by what each axis was shrunk (2,): x before y.
    """
    turn = fit_similarity(first)
    scale = math.hypot(*turn[:, 0]) * side_px / (ROOM * SIZE_PX)
    if scale >= 0.5:
        return image, np.zeros(2, np.float32), np.ones(2, np.float32)
    reach = side_px / scale  # more than half the diagonal of the square that the look shows
    centre = first.mean(axis=0)
    last = np.array([image.shape[1] - 1, image.shape[0] - 1])
    left, top = np.clip(np.floor(centre - reach), 0, last).astype(int).tolist()
    right, bottom = (np.clip(np.ceil(centre + reach), 0, last).astype(int) + 1).tolist()
    cut = np.ascontiguousarray(image[top:bottom, left:right])
    size = (max(1, round(cut.shape[1] * 2 * scale)), max(1, round(cut.shape[0] * 2 * scale)))
    factors = np.array([size[0] / cut.shape[1], size[1] / cut.shape[0]], np.float32)
    shrunk = np.asarray(cv2.resize(cut, size, interpolation=cv2.INTER_AREA), np.uint8)
    return shrunk, np.array([left, top], np.float32), factors
