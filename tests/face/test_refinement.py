"""Close looks: the mean of what they show, whatever the size and turn of the photograph, and never another face's."""

import cv2
import numpy as np
import pytest

from service.domain import Image
from service.errors import LandmarksDegenerate
from service.face.alignment import TEMPLATE, Landmarks
from service.face.detection import DetectedFace, FaceDetector, Proposals
from service.face.model_packs import InstalledPack
from service.face.pack_manifest import CloseLook
from service.face.refinement import ROOM, refine

LOOKS = (CloseLook(side_px=128), CloseLook(side_px=160))
FIRST = (TEMPLATE + 100).astype(np.float32)
BLANK = np.zeros((312, 312, 3), np.uint8)


class StubDetector(FaceDetector):
    """Finds faces, in shares of a look's side from where the template lies in it; it keeps what it was shown."""

    def __init__(self, *shifts: float) -> None:
        self._shifts, self.shown = shifts, list[Image]()
        self.propose = self._propose

    def _propose(self, image: Image) -> Proposals:
        self.shown.append(image)
        side = image.shape[0]
        points = np.array([_in_look(side) + side * shift for shift in self._shifts], np.float32).reshape(-1, 5, 2)
        corners = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
        return corners, points, np.full(len(points), 0.9, np.float32)


def _in_look(side: int) -> Landmarks:
    return (((TEMPLATE - 56) / (112 * ROOM) + 0.5) * side).astype(np.float32)


@pytest.fixture(scope="module")
def detector(pack: InstalledPack) -> FaceDetector:
    return FaceDetector(pack.detector_path, pack.manifest.detector.kind)


@pytest.fixture(scope="module")
def portrait(t1_image: Image) -> Image:
    """(300, 300, 3): one person of t1."""
    return np.ascontiguousarray(t1_image[220:520, 380:680])


def first_of(detector: FaceDetector, image: Image) -> DetectedFace:
    return detector.detect(image)[0]


def test_without_looks_the_landmarks_stay_as_they_are() -> None:
    assert refine(StubDetector(0.05), BLANK, FIRST, ()) is FIRST


def test_each_look_is_a_square_of_its_side_around_the_face() -> None:
    stub = StubDetector(0.0)
    assert refine(stub, BLANK, FIRST, LOOKS) == pytest.approx(FIRST, abs=0.01)
    assert [image.shape for image in stub.shown] == [(128, 128, 3), (160, 160, 3)]


def test_what_the_looks_show_is_told_in_the_pixels_of_the_image() -> None:
    assert refine(StubDetector(0.02), BLANK, FIRST, LOOKS) == pytest.approx(FIRST + 0.02 * 112 * ROOM, abs=0.01)


def test_a_mirrored_look_is_turned_back() -> None:
    """What lies further right in the mirror lies further left; the template is its own mirror image within 2 pixels."""
    found = refine(StubDetector(0.03), BLANK, FIRST, [CloseLook(side_px=160, mirrored=True)])
    assert np.abs(found - (FIRST + np.array([-0.03, 0.03]) * 112 * ROOM)).max() < 2


def test_a_face_further_away_is_another_one() -> None:
    assert np.array_equal(refine(StubDetector(0.2), BLANK, FIRST, LOOKS), FIRST)
    nearest = refine(StubDetector(0.35, 0.01, -0.3), BLANK, FIRST, LOOKS)
    assert nearest == pytest.approx(FIRST + 0.01 * 112 * ROOM, abs=0.01)


def test_a_look_that_shows_no_face_leaves_the_first_landmarks() -> None:
    assert np.array_equal(refine(StubDetector(), BLANK, FIRST, LOOKS), FIRST)


def test_a_large_face_is_shrunk_by_averages_before_it_is_looked_at() -> None:
    """A fine chequerboard averages to grey; taken point by point it would stay black and white."""
    stub, huge = StubDetector(0.0), np.indices((2240, 2240)).sum(axis=0) % 2 * np.uint8(255)
    first = (TEMPLATE * 20).astype(np.float32)
    found = refine(stub, np.repeat(huge.astype(np.uint8)[:, :, None], 3, axis=2), first, LOOKS)
    assert np.abs(found - first).max() < 2
    assert all(np.ptp(image[40:80, 40:80]) < 40 for image in stub.shown)


@pytest.mark.parametrize("place", [-300, 0, 1000, 2400])
def test_a_large_face_is_looked_at_wherever_it_lies(place: int) -> None:
    """Also at the edges of the photograph, and beyond."""
    stub, first = StubDetector(0.02), (TEMPLATE * 10 + place).astype(np.float32)
    found = refine(stub, np.full((2300, 2100, 3), 200, np.uint8), first, LOOKS)
    assert np.abs(found - (first + 0.02 * 1120 * ROOM)).max() < 4
    assert len(stub.shown) == 2


def test_a_large_face_far_outside_the_photograph_shows_nothing_and_breaks_nothing() -> None:
    first = (TEMPLATE * 10 + 9000).astype(np.float32)
    assert np.array_equal(refine(StubDetector(), np.full((900, 700, 3), 200, np.uint8), first, LOOKS), first)


def test_landmarks_on_one_spot_are_refused() -> None:
    with pytest.raises(LandmarksDegenerate):
        refine(StubDetector(0.0), BLANK, np.full((5, 2), 50, np.float32), LOOKS)


@pytest.mark.models
@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0, 12.0])
def test_the_landmarks_of_a_photograph_hardly_depend_on_its_size(
    detector: FaceDetector, portrait: Image, factor: float
) -> None:
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    resized = np.asarray(cv2.resize(portrait, None, fx=factor, fy=factor, interpolation=interpolation), np.uint8)
    wanted = refine(detector, portrait, first_of(detector, portrait).landmarks, LOOKS)
    found = refine(detector, resized, first_of(detector, resized).landmarks, LOOKS)
    assert np.linalg.norm(found / factor - wanted, axis=1).mean() < 0.04 * first_of(detector, portrait).box.width


@pytest.mark.models
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_face_is_looked_at_upright(detector: FaceDetector, portrait: Image, turns: int) -> None:
    wanted = refine(detector, portrait, first_of(detector, portrait).landmarks, LOOKS)
    turned = np.ascontiguousarray(np.rot90(portrait, turns))
    found = refine(detector, turned, first_of(detector, turned).landmarks, LOOKS)
    for _ in range(turns):  # back by quarter turns clockwise
        found = np.stack([300 - found[:, 1], found[:, 0]], axis=1)
    assert np.linalg.norm(found - wanted, axis=1).mean() < 0.05 * first_of(detector, portrait).box.width


@pytest.mark.models
def test_each_of_several_faces_keeps_its_own_landmarks(detector: FaceDetector, t1_image: Image) -> None:
    for face in detector.detect(t1_image):
        refined = refine(detector, t1_image, face.landmarks, LOOKS)
        assert np.linalg.norm(refined - face.landmarks, axis=1).mean() < 0.1 * face.box.width
