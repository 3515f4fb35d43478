"""Alignment: any similarity is undone, and points that form no face are refused."""

import math

import cv2
import numpy as np
import pytest

from service.errors import LandmarksDegenerate
from service.face.alignment import TEMPLATE, align, fit_similarity


def moved(angle_deg: float, factor: float, shift: tuple[float, float]) -> np.ndarray:
    angle = math.radians(angle_deg)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.asarray(factor * TEMPLATE @ turn.T + shift, np.float32)


@pytest.mark.parametrize("angle_deg", [0, 17, 90, 180, -135])
@pytest.mark.parametrize("factor", [0.3, 1, 6])
def test_landmarks_come_to_lie_on_the_template(angle_deg: float, factor: float) -> None:
    landmarks = moved(angle_deg, factor, (300, -40))
    matrix = fit_similarity(landmarks)
    assert np.allclose(landmarks @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=0.01)


def test_the_fit_is_the_least_squares_one() -> None:
    rng = np.random.default_rng(1)
    landmarks = (moved(20, 2, (50, 60)) + rng.normal(0, 3, (5, 2))).astype(np.float32)

    def error(matrix: np.ndarray) -> float:
        return float(((landmarks @ matrix[:, :2].T + matrix[:, 2] - TEMPLATE) ** 2).sum())

    best = fit_similarity(landmarks)
    for _ in range(200):
        turn, shift = rng.normal(0, 0.01, 2), rng.normal(0, 0.5, 2)
        other = best + np.array([[turn[0], -turn[1], shift[0]], [turn[1], turn[0], shift[1]]])
        assert error(other) >= error(best)


def test_a_turned_picture_gives_the_same_crop() -> None:
    rng = np.random.default_rng(2)
    image = np.asarray(cv2.GaussianBlur(rng.integers(0, 255, (200, 200, 3), dtype=np.uint8), (0, 0), 3), np.uint8)
    landmarks = moved(0, 1, (44, 44))
    turned = np.ascontiguousarray(np.rot90(image))
    # np.rot90 turns counter-clockwise: x becomes the distance from the bottom
    turned_landmarks = np.stack([landmarks[:, 1], 199 - landmarks[:, 0]], axis=1)
    difference = align(image, landmarks).astype(int) - align(turned, turned_landmarks)
    assert np.abs(difference).max() <= 2


def test_a_crop_beyond_the_edge_is_black_there() -> None:
    crop = align(np.full((112, 112, 3), 200, np.uint8), moved(0, 1, (-56, 0)))
    assert crop.shape == (112, 112, 3)
    assert crop[:, :50].max() == 0
    assert crop[:, 62:].min() == 200


@pytest.mark.parametrize(
    "landmarks",
    [
        np.zeros((5, 2)),
        np.full((5, 2), np.nan),
        moved(0, 0.01, (50, 50)),
        TEMPLATE * (-1, 1) + (112, 0),
    ],
    ids=["one spot", "not finite", "too small", "mirrored"],
)
def test_points_that_form_no_face_are_refused(landmarks: np.ndarray) -> None:
    with pytest.raises(LandmarksDegenerate):
        align(np.zeros((112, 112, 3), np.uint8), landmarks.astype(np.float32))
