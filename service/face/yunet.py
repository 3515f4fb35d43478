"""Turns pixels into YuNet's input and its outputs into faces."""

import numpy as np
import numpy.typing as npt

from service.domain import Image

STRIDES = (8, 16, 32)
MULTIPLE = 32  # the coarsest stride: each side of the input is a multiple of it

FloatArray = npt.NDArray[np.float32]

_NONE = (np.empty((0, 4), np.float32), np.empty((0, 5, 2), np.float32), np.empty(0, np.float32))


def to_input(image: Image) -> FloatArray:
    """Return (1, 3, H', W') float32, BGR, 0..255, zero-padded right and bottom to multiples of 32."""
    height, width = image.shape[:2]
    canvas = np.zeros((1, 3, -(-height // MULTIPLE) * MULTIPLE, -(-width // MULTIPLE) * MULTIPLE), np.float32)
    canvas[0, :, :height, :width] = image[:, :, ::-1].transpose(2, 0, 1)
    return canvas


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
    boxes, landmarks, scores = [_NONE[0]], [_NONE[1]], [_NONE[2]]
    for stride in STRIDES:
        certainty = (outputs[f"cls_{stride}"] * outputs[f"obj_{stride}"]).reshape(-1)
        cells = np.flatnonzero(certainty >= min_score * min_score)
        if not cells.size:
            continue
        row, column = np.divmod(cells, input_width // stride)
        corner = np.stack([column, row], axis=1).astype(np.float32)
        raw_box = outputs[f"bbox_{stride}"].reshape(-1, 4)[cells]
        centre = (corner + raw_box[:, :2]) * stride
        half = np.exp(raw_box[:, 2:]) * (stride / 2)
        boxes.append(np.concatenate([centre - half, centre + half], axis=1))
        points = outputs[f"kps_{stride}"].reshape(-1, 5, 2)[cells]
        landmarks.append((points + corner[:, None]) * stride)
        scores.append(np.sqrt(np.minimum(certainty[cells], 1)))
    return np.concatenate(boxes), np.concatenate(landmarks), np.concatenate(scores)
