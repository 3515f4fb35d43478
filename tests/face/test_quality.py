"""Quality facts: each moves with what it names."""

import cv2
import numpy as np
import pytest

from service.domain import Box, Image, Quality
from service.face.alignment import TEMPLATE
from service.face.detection import DetectedFace
from service.face.quality import CHIN, estimate_pose, measure

# eyes, nose, mouth of a head in distances between the eyes: x to the image's right, y down, z to the camera
HEAD = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0, 0.58, 0.6], [-0.42, 1.15, 0], [0.42, 1.15, 0]])


def seen(yaw_deg: float = 0, pitch_deg: float = 0, roll_deg: float = 0) -> np.ndarray:
    """The head turned to the image's right and up, as five landmarks."""
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    in_plane = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    return np.asarray((HEAD @ (about_y @ about_x).T)[:, :2] @ in_plane.T * 40 + 100, np.float32)


def face(landmarks: np.ndarray = TEMPLATE) -> DetectedFace:
    return DetectedFace(Box(10, 20, 90, 130), landmarks.astype(np.float32), 0.93)


def smooth_noise(sigma: float) -> Image:
    noise = np.random.default_rng(0).integers(0, 255, (112, 112, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma), np.uint8)


def measured(crop: Image) -> Quality:
    """Measure a crop that is the whole image too."""
    only = face()
    return measure(only, crop, crop, [only])


def test_sizes_are_told_in_pixels_of_the_file() -> None:
    quality = measure(face(), smooth_noise(1), smooth_noise(1), [face(), face(), face()], scale=0.5)
    assert quality.face_width_px == 160
    assert quality.inter_eye_px == pytest.approx(2 * 35.24, abs=0.01)
    assert quality.detector_score == 0.93
    assert quality.face_count == 3


def test_a_blurred_face_is_less_sharp() -> None:
    sharp, blurred = (measured(smooth_noise(sigma)).sharpness for sigma in (1, 3))
    assert sharp > 5 * blurred


def test_brightness_is_the_mean_grey_level() -> None:
    assert measured(np.full((112, 112, 3), 37, np.uint8)).brightness == 37


def test_the_head_is_measured_from_the_eyes_to_the_chin_as_a_share_of_the_image() -> None:
    crop = smooth_noise(1)
    only = face(seen())
    quality = measure(only, crop, np.zeros((400, 200, 3), np.uint8), [only])
    assert quality.head_size == pytest.approx(CHIN * 1.15 * 40 / 400, abs=1e-3)


def test_the_second_face_is_the_largest_other_one() -> None:
    only = face()  # 80 x 110
    half = DetectedFace(Box(200, 0, 280, 55), TEMPLATE.astype(np.float32), 0.9)
    small = DetectedFace(Box(300, 0, 308, 11), TEMPLATE.astype(np.float32), 0.9)
    crop = smooth_noise(1)
    assert measure(only, crop, crop, [only, small, half]).second_face_share == 0.5
    assert measure(only, crop, crop, [only]).second_face_share == 0


@pytest.mark.parametrize("angle_deg", [-40, -20, 0, 20, 40])
def test_yaw_pitch_and_roll_are_estimated(angle_deg: float) -> None:
    assert estimate_pose(seen(yaw_deg=angle_deg))[0] == pytest.approx(angle_deg, abs=8)
    assert estimate_pose(seen(pitch_deg=angle_deg))[1] == pytest.approx(angle_deg, abs=14)
    assert face(seen(roll_deg=angle_deg)).roll_deg == pytest.approx(angle_deg, abs=0.1)


def test_pose_does_not_depend_on_roll() -> None:
    upright, lying = estimate_pose(seen(25, 10)), estimate_pose(seen(25, 10, 90))
    assert upright == pytest.approx(lying, abs=0.1)


def test_the_template_itself_is_frontal() -> None:
    assert estimate_pose(TEMPLATE.astype(np.float32)) == pytest.approx((0, 0), abs=2)


def test_landmarks_without_extent_have_no_pose() -> None:
    assert estimate_pose(np.zeros((5, 2), np.float32)) == (0.0, 0.0)
