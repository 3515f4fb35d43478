"""Presentation attack detection: does a sample show a living face, or a print, a screen or a mask?

It is a hint for a human and decides nothing. Words after ISO/IEC 30107-3: bona fide presentation, presentation attack.
"""

import math
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from service.domain import NO_ATTACK_MODEL, AttackFinding, Image, NotAssessed, PresentationAttack
from service.errors import LandmarksDegenerate, PackGraphUnsupported
from service.face.alignment import FacePoints, Landmarks, fit_similarity
from service.face.graph_comparison import ORT_REFUSALS
from service.face.sessions import open_session

# InsightFace's liveness add-on (`insightface/addons/liveness.py` of the installed package): side, points, limits
SIDE_PX = 80
POINTS = FacePoints.of([[32.03, 38.06], [47.89, 37.98], [40.01, 47.08], [33.50, 56.36], [46.63, 56.29]])
MAX_OUTSIDE = 0.30
"""Share of the crop that may lie outside the image; beyond it the model would judge what was made up."""


class PresentationAttackDetector(Protocol):
    """Looks at one face. An attack it suspects is a finding, never an error."""

    def assess(self, image: Image, landmarks: Landmarks) -> PresentationAttack:
        """Return what it makes of the face with these landmarks, (5, 2), in an image (H, W, 3) uint8, RGB."""
        ...


class NoDetector:
    """Where no model is installed: says so, rather than nothing."""

    def assess(self, image: Image, landmarks: Landmarks) -> PresentationAttack:  # noqa: ARG002  (the port's form)
        return NO_ATTACK_MODEL


class LivenessModel:
    """InsightFace's liveness model, or any graph of its form. One may be used by many threads at once.

    Form: one input (N, 3, 80, 80) float32, RGB, 0..1; one output (N,) float32, the probability that the face is live.
    """

    def __init__(self, path: Path, threshold: float) -> None:
        """Load the graph; from `threshold` (0..1) on a face is bona fide.

        Raises:
            PackGraphUnsupported: it cannot be loaded or does not have that form.
        """
        self._session = open_session(path)
        self._threshold = threshold
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if (
            len(inputs) != 1
            or len(outputs) != 1
            or {inputs[0].type, outputs[0].type} != {"tensor(float)"}
            or list(inputs[0].shape[1:]) != [3, SIDE_PX, SIDE_PX]
            or len(outputs[0].shape) != 1
        ):
            raise PackGraphUnsupported(
                f"{path.name} is no liveness model: it takes (N, 3, {SIDE_PX}, {SIDE_PX}) and gives (N,) float32"
            )
        self._input = inputs[0].name

    def assess(self, image: Image, landmarks: Landmarks) -> PresentationAttack:
        """Return what the model makes of the face; see the port."""
        try:
            matrix = fit_similarity(landmarks, POINTS)
        except LandmarksDegenerate:
            return PresentationAttack(NotAssessed.NOT_ENOUGH_IMAGE)
        size = SIDE_PX, SIDE_PX
        inside = cv2.warpAffine(np.ones(image.shape[:2], np.float32), matrix, size, flags=cv2.INTER_LINEAR)
        if 1.0 - float(np.mean(inside)) > MAX_OUTSIDE:
            return PresentationAttack(NotAssessed.NOT_ENOUGH_IMAGE)
        crop = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        pixels = crop.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
        return self._judged(pixels)

    def _judged(self, pixels: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> PresentationAttack:
        try:
            scores = np.asarray(self._session.run(None, {self._input: pixels})[0])
        except ORT_REFUSALS:
            scores = np.empty(0)
        score = float(scores[0]) if scores.shape == (1,) else math.nan
        # a hint that fails must not turn anybody away
        if not 0.0 <= score <= 1.0:
            return PresentationAttack(NotAssessed.MODEL_FAILED)
        finding = AttackFinding.BONA_FIDE if score >= self._threshold else AttackFinding.ATTACK
        return PresentationAttack(None, finding, round(score, 4), self._threshold)


def detector_of(path: Path | None, threshold: float) -> PresentationAttackDetector:
    """Return the detector of a pack; `path` is None where it has no file. Raises PackGraphUnsupported."""
    return NoDetector() if path is None else LivenessModel(path, threshold)
