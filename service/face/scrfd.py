"""Turns pixels into SCRFD's input and its outputs into faces."""

import numpy as np
import numpy.typing as npt

from service.domain import Image
from service.face.planes import to_planes

STRIDES = (8, 16, 32)
ANCHORS = 2  # a cell proposes two faces
MULTIPLE = 32  # the coarsest stride: each side of the input is a multiple of it

FloatArray = npt.NDArray[np.float32]


def to_input(image: Image) -> FloatArray:
    """Return (1, 3, H', W') float32, RGB, (x - 127.5) / 128, black-padded right and bottom to multiples of 32."""
    canvas = to_planes(image, "RGB", multiple=MULTIPLE)
    canvas -= 127.5
    canvas *= 1 / 128
    return canvas


def decode(outputs: list[FloatArray], input_width: int, min_score: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the faces of at least `min_score` before suppression of overlaps.

    Args:
        outputs: nine arrays in the order of the graph: scores, boxes, landmarks, each for strides 8, 16, 32.
            Cells are in row-major order, two anchors a cell; boxes are distances from the cell's corner to the
            four sides and landmarks are offsets from it, both in strides.
        input_width: pixels, of the padded input.
        min_score: 0..1.

    Returns:
        boxes (n, 4) as left, top, right, bottom; landmarks (n, 5, 2), image-left eye first; scores (n,), all
        float32, in pixels of the input.

    Source: Guo et al., "Sample and Computation Redistribution for Efficient Face Detection", 2021, and the
        outputs of insightface's SCRFD, which these equal.
    """
    boxes, landmarks, scores = [], [], []
    for level, stride in enumerate(STRIDES):
        score = outputs[level].reshape(-1)
        anchors = np.flatnonzero(score >= min_score)
        row, column = np.divmod(anchors // ANCHORS, input_width // stride)
        corner = np.stack([column, row], axis=1).astype(np.float32) * stride
        distance = outputs[level + 3].reshape(-1, 4)[anchors] * stride
        boxes.append(np.concatenate([corner - distance[:, :2], corner + distance[:, 2:]], axis=1))
        offset = outputs[level + 6].reshape(-1, 5, 2)[anchors] * stride
        landmarks.append(corner[:, None] + offset)
        scores.append(score[anchors])
    return (
        np.concatenate(boxes).astype(np.float32),
        np.concatenate(landmarks).astype(np.float32),
        np.concatenate(scores).astype(np.float32),
    )
