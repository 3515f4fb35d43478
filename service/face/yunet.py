"""Turns pixels into YuNet's input and its outputs into faces."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from service.domain import Image
from service.face.planes import to_planes

STRIDES = (8, 16, 32)
MULTIPLE = 32  # the coarsest stride: each side of the input is a multiple of it

FloatArray = npt.NDArray[np.float32]


def to_input(image: Image) -> FloatArray:
    """Return (1, 3, H', W') float32, BGR, 0..255, zero-padded right and bottom to multiples of 32."""
    return to_planes(image, "BGR", multiple=MULTIPLE)


def decode(
    outputs: dict[str, FloatArray], input_width: int, min_score: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the faces of at least `min_score` before suppression of overlaps.

    Args:
        outputs: `cls_s`, `obj_s`, `bbox_s`, `kps_s` for each stride s; cells in row-major order.
        input_width: pixels, of the padded input.
        min_score: 0..1.

    Returns:
        boxes (n, 4) as left, top, right, bottom; landmarks (n, 5, 2), image-left eye first; scores (n,), all
        float32, in pixels of the input.

    Source: measured equal to `cv2.FaceDetectorYN` (tests/golden).
    """
    certainty, raw_boxes, raw_points = (
        np.concatenate([outputs[f"{name}_{stride}"].reshape(-1, size) for stride in STRIDES])
        for name, size in (("cls", 1), ("bbox", 4), ("kps", 10))
    )
    certainty *= np.concatenate([outputs[f"obj_{stride}"].reshape(-1, 1) for stride in STRIDES])
    cells = np.flatnonzero(certainty >= min_score * min_score)
    input_height = outputs[f"cls_{STRIDES[0]}"].size * STRIDES[0] ** 2 // input_width
    corner, stride = (each[cells] for each in _grid(input_width, input_height))
    raw_box = raw_boxes[cells]
    centre = (corner + raw_box[:, :2]) * stride
    half = np.exp(raw_box[:, 2:]) * (stride / 2)
    points = (raw_points[cells].reshape(-1, 5, 2) + corner[:, None]) * stride[:, None]
    scores = np.sqrt(np.minimum(certainty[cells, 0], 1))
    return np.concatenate([centre - half, centre + half], axis=1), points, scores


@lru_cache(maxsize=64)
def _grid(width: int, height: int) -> tuple[FloatArray, FloatArray]:
    """Return the column and row (n, 2) and the stride (n, 1), in pixels, of every cell, finest stride first."""
    corners, strides = [], []
    for stride in STRIDES:
        row, column = np.indices((height // stride, width // stride), np.float32).reshape(2, -1)
        corners.append(np.stack([column, row], axis=1))
        strides.append(np.full((row.size, 1), stride, np.float32))
    return np.concatenate(corners), np.concatenate(strides)
