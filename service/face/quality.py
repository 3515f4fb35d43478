"""Measures what a person at a desk can change about a photograph."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from service.domain import Image, Quality
from service.face.alignment import TEMPLATE, Crop, Landmarks
from service.face.detection import DetectedFace
from service.face.luminance import background_gradient, face_light

# how far the tip of the nose stands out of the plane of eyes and mouth corners, in distances between the eyes:
# an average of adult heads, so angles are estimates within about 10 degrees
NOSE_DEPTH = 0.6

# from the eyes to the chin, in distances from the eyes to the mouth: an average of adult faces
CHIN = 1.63

_FRONTAL_NOSE_LEVEL = float(
    (TEMPLATE[2, 1] - TEMPLATE[:2, 1].mean()) / (TEMPLATE[3:, 1].mean() - TEMPLATE[:2, 1].mean())
)
"""Share of the way from the eyes down to the mouth at which the tip of the nose of a level face appears."""


def measure(
    face: DetectedFace, crop: Crop, image: Image, faces: Sequence[DetectedFace], *, scale: float = 1.0
) -> Quality:
    """Return the quality facts of one face; all but those that the recogniser gives.

    Args:
        face: in pixels of the decoded image.
        crop: (112, 112, 3) uint8, RGB: the same face, aligned.
        image: (H, W, 3) uint8, RGB: the decoded image.
        faces: all that were seen in it.
        scale: decoded pixels for one pixel of the file; widths are told in the file's pixels.
    """
    grey = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), np.uint8)
    _, edges_deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_32F))
    mean, deviation = cv2.meanStdDev(grey)
    light = face_light(grey)
    gradient = background_gradient(image, face.landmarks)
    yaw_deg, pitch_deg = estimate_pose(face.landmarks)
    return Quality(
        face_width_px=face.box.width / scale,
        inter_eye_px=math.dist(face.landmarks[0].tolist(), face.landmarks[1].tolist()) / scale,
        detector_score=face.score,
        sharpness=float(edges_deviation[0, 0]) ** 2,
        brightness=float(mean[0, 0]),
        yaw_deg=yaw_deg,
        pitch_deg=pitch_deg,
        roll_deg=face.roll_deg,
        face_count=len(faces),
        luminance_variance=round(float(deviation[0, 0]) ** 2, 2),
        under_exposure=round(light.under_exposure, 4),
        over_exposure=round(light.over_exposure, 4),
        dynamic_range=round(light.dynamic_range, 3),
        illumination_uniformity=round(light.illumination_uniformity, 4),
        background_gradient=None if gradient is None else round(gradient, 2),
        head_size=round(_head_size(face.landmarks, image.shape[0]), 4),
        second_face_share=round(_second_face_share(face, faces), 4),
    )


def _head_size(landmarks: Landmarks, image_height: int) -> float:
    """Return the estimated distance from the middle of the eyes to the chin, share of the image's height.

    Source: head size of ISO/IEC 29794-5, which measures to a landmark on the chin; five landmarks end at the mouth.
    """
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    return CHIN * math.dist(eyes.tolist(), mouth.tolist()) / image_height


def _second_face_share(face: DetectedFace, faces: Sequence[DetectedFace]) -> float:
    """Return the area of the largest other face, share of this one's.

    Source: single face present of ISO/IEC 29794-5, where it is told of the two largest faces.
    """
    # by its box: the landmarks of the chosen one were looked at again
    others = [each.box.width * each.box.height for each in faces if each.box != face.box]
    return max(others, default=0.0) / (face.box.width * face.box.height)


def estimate_pose(landmarks: Landmarks) -> tuple[float, float]:
    """Return yaw (positive to the image's right) and pitch (positive upwards), degrees, -90..90.

    The offset of the nose from where it lies in a frontal face, measured along and across the line between the
    eyes, is the sine of the angle times the depth of the nose. Landmarks without extent count as frontal.
    """
    left_eye, right_eye, nose, left_mouth, right_mouth = (complex(x, y) for x, y in landmarks.tolist())
    eyes, mouth = (left_eye + right_eye) / 2, (left_mouth + right_mouth) / 2
    across = right_eye - left_eye
    width = abs(across)
    if width < 1e-6:
        return 0.0, 0.0
    # divided by this direction, a point's real part lies along the line between the eyes, its imaginary part below it
    direction = across / width
    height = ((mouth - eyes) / direction).imag
    # a turned head narrows the distance between the eyes but not the height of the face, so the larger rules
    unit = max(width, height)
    expected = eyes + _FRONTAL_NOSE_LEVEL * (mouth - eyes)
    offset = (nose - expected) / direction / (NOSE_DEPTH * unit)
    return _arcsine_deg(offset.real), _arcsine_deg(-offset.imag)


def _arcsine_deg(sine: float) -> float:
    return math.degrees(math.asin(max(-1.0, min(1.0, sine))))
