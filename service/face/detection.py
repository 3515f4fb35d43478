"""Finds faces and their five landmarks: a few views of the image, cheapest first, until a face is surely found."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from service.domain import Box, Image
from service.errors import PackGraphUnsupported
from service.face import scrfd, yunet
from service.face.alignment import Landmarks
from service.face.sessions import open_session

FloatArray = npt.NDArray[np.float32]

Proposals = tuple[FloatArray, FloatArray, FloatArray]
"""Boxes (n, 4), landmarks (n, 5, 2) and scores (n,) in pixels of the detector's input, overlaps included."""


@dataclass(frozen=True, slots=True)
class DetectedFace:
    """One face in pixels of the image that was given, whichever way up it lies in it."""

    box: Box
    landmarks: Landmarks = field(repr=False)  # (5, 2) float32: in the face's own left-to-right order
    score: float  # 0..1, higher is surer

    @property
    def roll_deg(self) -> float:
        """Rotation of the line between the eyes, -180..180, positive clockwise as seen in the image."""
        across, down = self.landmarks[1] - self.landmarks[0]
        return math.degrees(math.atan2(float(down), float(across)))


@dataclass(frozen=True, slots=True)
class View:
    """One way of showing the image to the detector."""

    side_px: int  # a longer side above this is shrunk to it, border included; nothing is enlarged
    turns: int = 0  # quarter turns, counter-clockwise
    border: float = 0.0  # black border on each side, share of the longer side


@dataclass(frozen=True, slots=True)
class Kind:
    """What differs between detectors.

    Measured on the development half: 99 % of upright views reach a score of 0.90 (YuNet) and 97 % one of 0.70 (SCRFD).
    Of upside-down views, where the landmarks are wrong, 6 % and 17 % reach that too, none 0.92 and 0.78, and none has
    a higher score than the same view the right way up. Landmarks from a first view of 192 pixels make SFace err less
    than those at 250 (FNIR 0.047, not 0.064, at FPIR 1 %), at half the time; those of SCRFD at 250 are as good for its
    recogniser as at 320.
    """

    min_score: float  # below it nothing is called a face
    sure_score: float  # from it on no larger view is tried
    certain_score: float  # from it on not even the same view upside down is tried
    first_side_px: int  # longer side of the first view


KINDS = {
    "yunet": Kind(min_score=0.6, sure_score=0.9, certain_score=0.92, first_side_px=192),
    "scrfd": Kind(min_score=0.5, sure_score=0.7, certain_score=0.78, first_side_px=256),
}

# a narrower face in the first view is looked at again larger: its landmarks are coarse and smaller faces are missed
MIN_FIRST_WIDTH_PX = 40

# after the small first view, cheapest first: larger; with a border, for a face that the edge cuts off; turned, for
# telephones; larger still, for a small face in a large scene
FURTHER_VIEWS = (
    View(640),
    View(640, border=0.5),
    *(View(256, turns=turns) for turns in (1, 3, 2)),
    *(View(640, turns=turns) for turns in (1, 3, 2)),
    View(1280),
    View(2560),
    *(View(640, turns=turns, border=0.5) for turns in (1, 3, 2)),
    *(View(1280, turns=turns) for turns in (1, 3, 2)),
)

OVERLAP = 0.3  # faces that overlap more (intersection over union) are one face; cv2.FaceDetectorYN's value

# a face that lies further over than this is looked at again turned upright: landmarks of lying faces are poor
MAX_SURE_ROLL_DEG = 45.0


class FaceDetector:
    """YuNet or SCRFD through ONNX Runtime. One detector may be used by many threads at once."""

    def __init__(self, path: Path, kind: str) -> None:
        """Load the detector's graph.

        Raises:
            PackGraphUnsupported: the file cannot be loaded, or the kind is not known.
        """
        if kind not in KINDS:
            raise PackGraphUnsupported(f"a detector of kind {kind!r} is not known: {', '.join(KINDS)}")
        self._kind = KINDS[kind]
        self._session = open_session(path)
        self._input: str = self._session.get_inputs()[0].name
        self._outputs: list[str] = [output.name for output in self._session.get_outputs()]
        self.propose: Callable[[Image], Proposals] = self._run_yunet if kind == "yunet" else self._run_scrfd

    def detect(self, image: Image) -> list[DetectedFace]:
        """Return the faces of the first view that surely shows one, else of the view with the highest score.

        Args:
            image: (H, W, 3) uint8, RGB.

        Returns:
            Faces with the highest score first, empty when no view shows any.
        """
        best: list[DetectedFace] = []
        for view in self._useful_views(image):
            found = self.look(image, view)
            if found and (not best or found[0].score > best[0].score):
                best = found
            if found and self._is_sure(found[0], view, image):
                return self._right_way_up(found, view, image)
        return best

    def _right_way_up(self, found: list[DetectedFace], view: View, image: Image) -> list[DetectedFace]:
        """Return what was found, or what the view shows upside down if that is surer."""
        if found[0].score >= self._kind.certain_score:
            return found
        opposite = self.look(image, View(view.side_px, (view.turns + 2) % 4, view.border))
        return opposite if opposite and opposite[0].score > found[0].score else found

    def _is_sure(self, face: DetectedFace, view: View, image: Image) -> bool:
        # turning the view counter-clockwise takes 90 degrees off the roll that it shows
        roll_in_view_deg = (face.roll_deg - 90 * view.turns + 180) % 360 - 180
        if face.score < self._kind.sure_score or abs(roll_in_view_deg) > MAX_SURE_ROLL_DEG:
            return False
        longer = max(image.shape[:2])
        is_first = view.side_px == self._kind.first_side_px < longer
        return not (is_first and face.box.width * view.side_px < MIN_FIRST_WIDTH_PX * longer)

    def _useful_views(self, image: Image) -> Iterator[View]:
        """The views in order, without those that would show a small image the same way again."""
        longer = max(image.shape[:2])
        shown: set[tuple[float, int, float]] = set()
        for view in (View(self._kind.first_side_px), *FURTHER_VIEWS):
            effective = (min(view.side_px, longer * (1 + 2 * view.border)), view.turns, view.border)
            if effective not in shown:
                shown.add(effective)
                yield view

    def look(self, image: Image, view: View) -> list[DetectedFace]:
        """Detect in one view and return the faces in the image's own pixels, surest first."""
        shrunk, border = _shrink(image, view)
        shown = np.rot90(shrunk, view.turns) if view.turns else shrunk
        boxes, landmarks, scores = self.propose(shown)
        kept = suppress(boxes, scores)
        inner_height, inner_width = shrunk.shape[0] - 2 * border, shrunk.shape[1] - 2 * border
        corners = np.concatenate([boxes[kept].reshape(-1, 2, 2), landmarks[kept]], axis=1) - np.float32(border)
        points = _turn_back(corners, view.turns, inner_width, inner_height)
        # the sides are rounded to whole pixels, so each axis has its own factor
        points *= np.array([image.shape[1] / inner_width, image.shape[0] / inner_height], np.float32)
        return [
            DetectedFace(_box_around(pair[:2]), pair[2:], score)
            for pair, score in zip(points, scores[kept].tolist(), strict=True)
        ]

    def _run_yunet(self, image: Image) -> Proposals:
        pixels = yunet.to_input(image)
        outputs = self._session.run(self._outputs, {self._input: pixels})
        return yunet.decode(dict(zip(self._outputs, outputs, strict=True)), pixels.shape[3], self._kind.min_score)

    def _run_scrfd(self, image: Image) -> Proposals:
        pixels = scrfd.to_input(image)
        outputs = self._session.run(self._outputs, {self._input: pixels})
        return scrfd.decode(outputs, pixels.shape[3], self._kind.min_score)


def suppress(boxes: FloatArray, scores: FloatArray) -> npt.NDArray[np.intp]:
    """Return the indices of the boxes that overlap no better one by more than `OVERLAP`, surest first."""
    order = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[np.intp] = []
    while order.size:
        first, rest = order[0], order[1:]
        kept.append(first)
        best, others = boxes[first], boxes[rest]
        sides = np.minimum(best[2:], others[:, 2:]) - np.maximum(best[:2], others[:, :2])
        sides = np.maximum(sides, 0)
        shared = sides[:, 0] * sides[:, 1]
        order = rest[shared <= OVERLAP * (area[first] + area[rest] - shared)]
    return np.array(kept, np.intp)


def _shrink(image: Image, view: View) -> tuple[Image, int]:
    """Return the image as the view shows it and the width of its border in pixels."""
    height, width = image.shape[:2]
    factor = min(1.0, view.side_px / (max(height, width) * (1 + 2 * view.border)))
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        # averaging areas costs as much as the detector; it matters only where many pixels become one
        interpolation = cv2.INTER_AREA if factor < 0.5 else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(np.ascontiguousarray(image), size, interpolation=interpolation), np.uint8)
    border = round(view.border * max(image.shape[:2]))
    if border:
        image = np.pad(image, ((border, border), (border, border), (0, 0)))
    return image, border


def _turn_back(points: FloatArray, turns: int, width: int, height: int) -> FloatArray:
    """Return points of the turned image (n, k, 2) in pixels of the image itself, which is `width` x `height`."""
    if not turns:
        return points
    across, down = points[..., 0], points[..., 1]
    if turns == 1:
        across, down = width - down, across
    elif turns == 2:
        across, down = width - across, height - down
    elif turns == 3:
        across, down = down, height - across
    return np.stack([across, down], axis=-1).astype(np.float32)


def _box_around(corners: FloatArray) -> Box:
    (left, top), (right, bottom) = corners.tolist()  # a turned view may have them the other way round
    return Box(min(left, right), min(top, bottom), max(left, right), max(top, bottom))
