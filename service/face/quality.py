"""Measures what a person at a desk can change about a photograph."""

import math

import cv2

from service.domain import Quality
from service.face.alignment import TEMPLATE, Crop, Landmarks
from service.face.detection import DetectedFace

# how far the tip of the nose stands out of the plane of eyes and mouth corners, in distances between the eyes:
# an average of adult heads, so angles are estimates within about 10 degrees
NOSE_DEPTH = 0.6

_FRONTAL_NOSE_LEVEL = float(
    (TEMPLATE[2, 1] - TEMPLATE[:2, 1].mean()) / (TEMPLATE[3:, 1].mean() - TEMPLATE[:2, 1].mean())
)
"""Share of the way from the eyes down to the mouth at which the tip of the nose of a level face appears."""


def measure(face: DetectedFace, crop: Crop, *, face_count: int, scale: float = 1.0) -> Quality:
    """Return the quality facts of one face.

    Args:
        face: in pixels of the decoded image.
        crop: (112, 112, 3) uint8, RGB: the same face, aligned.
        face_count: faces seen in the image.
        scale: decoded pixels for one pixel of the file; widths are told in the file's pixels.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    _, edges_deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_32F))
    yaw_deg, pitch_deg = estimate_pose(face.landmarks)
    return Quality(
        face_width_px=face.box.width / scale,
        inter_eye_px=math.dist(face.landmarks[0].tolist(), face.landmarks[1].tolist()) / scale,
        detector_score=face.score,
        sharpness=float(edges_deviation[0, 0]) ** 2,
        brightness=cv2.mean(grey)[0],
        yaw_deg=yaw_deg,
        pitch_deg=pitch_deg,
        roll_deg=face.roll_deg,
        face_count=face_count,
    )


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
