"""Share of photographs in which the face is found, however it was taken: `python -m benchmarks.detection`."""

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track
from rich.table import Table

from benchmarks.datasets import Dataset, load_dataset
from benchmarks.screen import console
from service.domain import Box, Image
from service.face.detection import DetectedFace, FaceDetector
from service.face.image import ImageLimits, decode
from service.face.model_packs import installed_pack, list_packs
from service.settings import Settings

ENOUGH_OVERLAP = 0.5  # intersection over union with the face of the untouched image
_SCENE_SIZE = (1500, 2000)
_PASTED_PX = 110


@dataclass(frozen=True)
class Form:
    """A photograph taken another way, and where its face lies in it."""

    image: Image
    box: Box


def cut(image: Image, box: Box, _number: int) -> Form:
    """Nothing but the face: a portrait that fills the image."""
    left, top, right, bottom = _inside(box, image)
    return Form(np.ascontiguousarray(image[top:bottom, left:right]), Box(0, 0, right - left, bottom - top))


def enlarged(image: Image, box: Box, _number: int) -> Form:
    """Six times as large."""
    return _scaled(image, box, 6.0)


def cut_and_enlarged(image: Image, box: Box, number: int) -> Form:
    """Nothing but the face, six times as large."""
    form = cut(image, box, number)
    return _scaled(form.image, form.box, 6.0)


def in_a_scene(image: Image, box: Box, number: int) -> Form:
    """The photograph shrunk to 110 px, somewhere in a scene of 2000 x 1500."""
    small = _scaled(image, box, _PASTED_PX / max(image.shape[:2]))
    height, width = small.image.shape[:2]
    random = np.random.default_rng(number)
    scene = np.full((*_SCENE_SIZE, 3), random.integers(40, 200, 3), np.uint8)
    top, left = random.integers(0, _SCENE_SIZE[0] - height), random.integers(0, _SCENE_SIZE[1] - width)
    scene[top : top + height, left : left + width] = small.image
    face = small.box
    return Form(scene, Box(face.left + left, face.top + top, face.right + left, face.bottom + top))


def turned(image: Image, box: Box, _number: int) -> Form:
    """Turned by 90 degrees, counter-clockwise, without a word of it in the file."""
    width = image.shape[1]
    return Form(np.ascontiguousarray(np.rot90(image)), Box(box.top, width - box.right, box.bottom, width - box.left))


FORMS: dict[str, Callable[[Image, Box, int], Form]] = {
    "cut to the face": cut,
    "enlarged six times": enlarged,
    "cut and enlarged six times": cut_and_enlarged,
    "110 px in a scene of 2000 x 1500": in_a_scene,
    "turned by 90 degrees": turned,
}


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes, 0..1."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (one.width * one.height + other.width * other.height - shared)


def found_forms(detector: FaceDetector, image: Image, number: int) -> dict[str, bool] | None:
    """Return for each form whether the face is found in it, None where the untouched image shows none."""
    faces = detector.detect(image)
    if not faces:
        return None
    box = _central(faces, image).box
    forms = {name: make(image, box, number) for name, make in FORMS.items()}
    return {
        name: any(overlap(face.box, form.box) >= ENOUGH_OVERLAP for face in detector.detect(form.image))
        for name, form in forms.items()
    }


def measure(detector: FaceDetector, dataset: Dataset, count: int) -> dict[str, float]:
    """Return the share of the first `count` people's photographs found in each form."""
    photographs = dataset.open_set.gallery[:count]

    def look(number: int) -> dict[str, bool] | None:
        image = decode(dataset.read(photographs[number]), ImageLimits())
        return found_forms(detector, image, number)

    with ThreadPoolExecutor(2) as threads:
        looked = track(threads.map(look, range(len(photographs))), "looking", len(photographs), console=console)
        answers = list(looked)
    return {name: sum(bool(answer and answer[name]) for answer in answers) / len(answers) for name in FORMS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each installed pack, print a table, write the figures if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("--dataset", type=Path, default=Path("../shared/data/lfw-dev"), help="folder of photographs")
    parser.add_argument("--count", type=int, default=300, help="photographs, one a person (default 300)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    dataset = load_dataset(options.dataset)
    models_dir = Settings().models_dir
    shares = {}
    for status in list_packs(models_dir):
        if status.installed:
            # measuring is no production use, and its licence was accepted when it was fetched
            pack = installed_pack(models_dir, status.pack_id, accepted_licences=frozenset({status.pack_id}))
            detector = FaceDetector(pack.detector_path, pack.manifest.detector.kind)
            shares[status.pack_id] = measure(detector, dataset, options.count)
    table = Table("form", *shares, title=f"share of {options.count} photographs in which the face is found")
    for name in FORMS:
        table.add_row(name, *(f"{found[name]:.1%}" for found in shares.values()))
    console.print(table)
    if options.json is not None:
        options.json.write_text(json.dumps({"packs": shares}, indent=2) + "\n")
    return 0


def _central(faces: Sequence[DetectedFace], image: Image) -> DetectedFace:
    height, width = image.shape[:2]

    def distance(face: DetectedFace) -> float:
        across = (face.box.left + face.box.right - width) / 2
        down = (face.box.top + face.box.bottom - height) / 2
        return float(across * across + down * down)

    return min(faces, key=distance)


def _inside(box: Box, image: Image) -> tuple[int, int, int, int]:
    height, width = image.shape[:2]
    return max(0, round(box.left)), max(0, round(box.top)), min(width, round(box.right)), min(height, round(box.bottom))


def _scaled(image: Image, box: Box, factor: float) -> Form:
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    interpolation = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    resized = np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)
    return Form(resized, Box(box.left * factor, box.top * factor, box.right * factor, box.bottom * factor))


if __name__ == "__main__":
    raise SystemExit(main())
