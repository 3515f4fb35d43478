"""Detection: equal to the reference libraries, and every way of holding the camera is found."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from service.domain import Box, Image
from service.errors import PackGraphUnsupported
from service.face.detection import DetectedFace, FaceDetector, suppress
from service.face.model_packs import InstalledPack

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def detector(pack: InstalledPack) -> FaceDetector:
    return FaceDetector(pack.detector_path, pack.manifest.detector.kind)


@pytest.fixture(scope="module")
def portrait(t1_image: Image) -> Image:
    """(300, 300, 3): one person of t1, head and shoulders."""
    return np.ascontiguousarray(t1_image[220:520, 380:680])


def golden(pack_id: str) -> list[dict[str, Any]]:
    faces: list[dict[str, Any]] = json.loads((GOLDEN / f"t1_half_{pack_id}.json").read_text())
    return faces


def half(image: Image) -> Image:
    return np.asarray(cv2.resize(image, (640, 443), interpolation=cv2.INTER_AREA), np.uint8)


def sides(box: Box) -> list[float]:
    return [box.left, box.top, box.right, box.bottom]


def overlap(one: Box, other: Box) -> float:
    """Intersection over union, 0..1."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(width, 0) * max(height, 0)
    return shared / (one.width * one.height + other.width * other.height - shared)


def turned(face: DetectedFace, width: int) -> DetectedFace:
    """The face in pixels of `np.rot90(image)`, a quarter turn counter-clockwise; the image is `width` wide."""
    box = Box(face.box.top, width - face.box.right, face.box.bottom, width - face.box.left)
    landmarks = np.stack([face.landmarks[:, 1], width - face.landmarks[:, 0]], axis=1)
    return DetectedFace(box, landmarks, face.score)


@pytest.mark.models
def test_faces_equal_those_of_the_reference_library(
    detector: FaceDetector, pack: InstalledPack, t1_image: Image
) -> None:
    found = detector.detect(half(t1_image))
    wanted = golden(pack.manifest.pack_id)
    assert len(found) == len(wanted) == 6
    for face, reference in zip(found, sorted(wanted, key=lambda one: -float(one["score"])), strict=True):
        assert sides(face.box) == pytest.approx(reference["box"], abs=1)
        assert np.abs(face.landmarks - np.array(reference["landmarks"])).max() < 1
        assert face.score == pytest.approx(reference["score"], abs=0.01)


@pytest.mark.models
def test_a_tight_portrait_is_found(detector: FaceDetector, portrait: Image) -> None:
    box = detector.detect(portrait)[0].box
    left, top, right, bottom = (round(side) for side in sides(box))
    tight = cv2.resize(portrait[top:bottom, left:right], None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC)
    found = detector.detect(np.asarray(tight, np.uint8))
    assert overlap(found[0].box, Box(0, 0, 6 * (right - left), 6 * (bottom - top))) > 0.7


@pytest.mark.models
@pytest.mark.parametrize("side_px", [70, 40])
def test_a_small_face_in_a_large_scene_is_found(detector: FaceDetector, portrait: Image, side_px: int) -> None:
    scene = np.full((1500, 2000, 3), 110, np.uint8)
    small = cv2.resize(portrait, (side_px, side_px), interpolation=cv2.INTER_AREA)
    scene[900 : 900 + side_px, 1600 : 1600 + side_px] = small
    box = detector.detect(portrait)[0].box
    left, top, right, bottom = (side * side_px / 300 for side in sides(box))
    found = detector.detect(scene)
    assert overlap(found[0].box, Box(1600 + left, 900 + top, 1600 + right, 900 + bottom)) > 0.6


@pytest.mark.models
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_photograph_is_found_with_its_landmarks(detector: FaceDetector, portrait: Image, turns: int) -> None:
    wanted, image = detector.detect(portrait)[0], portrait
    for _ in range(turns):
        wanted, image = turned(wanted, image.shape[1]), np.rot90(image)
    found = detector.detect(np.ascontiguousarray(image))[0]
    assert overlap(found.box, wanted.box) > 0.8
    assert np.abs(found.landmarks - wanted.landmarks).max() < 0.08 * wanted.box.width


@pytest.mark.models
def test_an_image_without_a_face_gives_none(detector: FaceDetector) -> None:
    assert detector.detect(np.full((240, 320, 3), 90, np.uint8)) == []


@pytest.mark.models
@pytest.mark.parametrize("shape", [(32, 32), (33, 700), (700, 33), (1, 1), (3000, 40)])
def test_every_shape_of_image_is_taken(detector: FaceDetector, shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    assert isinstance(detector.detect(noise), list)


@pytest.mark.models
def test_four_threads_find_what_one_finds(detector: FaceDetector, t1_image: Image) -> None:
    images = [half(t1_image), t1_image, np.ascontiguousarray(t1_image[200:600, 300:700])]
    alone = [[sides(face.box) for face in detector.detect(image)] for image in images]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            together = list(threads.map(detector.detect, images * 2))
            assert [[sides(face.box) for face in faces] for faces in together] == alone * 2


def test_overlapping_boxes_count_once_and_the_surest_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [5, 0, 15, 10]], np.float32)
    scores = np.array([0.7, 0.9, 0.8, 0.6], np.float32)
    assert suppress(boxes, scores).tolist() == [1, 2]


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackGraphUnsupported, match="kind"):
        FaceDetector(tmp_path / "detector.onnx", "haar")


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "detector.onnx").write_bytes(b"not a graph")
    with pytest.raises(PackGraphUnsupported):
        FaceDetector(tmp_path / "detector.onnx", "yunet")


@pytest.mark.models
@pytest.mark.faces
def test_photographs_are_found_cut_and_turned_with_their_landmarks(detector: FaceDetector, faces_dir: Path) -> None:
    names = json.loads((faces_dir / "openset.json").read_text())["gallery"][:40]
    for name in names:
        with PIL.Image.open(faces_dir / "images" / name) as picture:
            image = np.array(picture.convert("RGB"))
        wanted = detector.detect(image)[0]
        left, top, right, bottom = (max(0, round(side)) for side in sides(wanted.box))
        cut = cv2.resize(image[top:bottom, left:right], None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC)
        found = detector.detect(np.asarray(cut, np.uint8))[0]
        assert overlap(found.box, Box(0, 0, cut.shape[1], cut.shape[0])) >= 0.5
        for turns in (1, 2):
            wanted = turned(wanted, 250)
            found_turned = detector.detect(np.ascontiguousarray(np.rot90(image, turns)))
            nearest = max(found_turned, key=lambda face: overlap(face.box, wanted.box))
            assert overlap(nearest.box, wanted.box) >= 0.5
            assert np.abs(nearest.landmarks - wanted.landmarks).mean() < 0.1 * wanted.box.width
