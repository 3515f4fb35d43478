"""From bytes to a template: the right face, the right error, the same answer on every thread."""

import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from service.domain import Box, FacePolicy, Image
from service.errors import FaceTooSmall, NoFace, SeveralFaces
from service.face.alignment import TEMPLATE, align
from service.face.detection import DetectedFace, FaceDetector
from service.face.embedding import Recogniser
from service.face.extractor import PIPELINE_VERSION, Extractor, choose_face
from service.face.image import ImageLimits
from service.face.model_packs import InstalledPack
from service.face.refinement import refine

PHASES = ["decode", "detect", "refine", "align", "quality", "embed", "attack"]


def new_extractor(pack: InstalledPack, seen: list[str], min_face_width_px: float = 20) -> Extractor:
    return Extractor(
        pack,
        limits=ImageLimits(),
        min_face_width_px=min_face_width_px,
        observe=lambda phase, seconds: seen.append(phase),
    )


@pytest.fixture(scope="module")
def extractor(pack: InstalledPack) -> Extractor:
    return new_extractor(pack, [])


@pytest.fixture(scope="module")
def portrait(t1_image: Image) -> Image:
    """(300, 300, 3): one person of t1."""
    return np.ascontiguousarray(t1_image[220:520, 380:680])


def encoded(image: Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def face(left: float, width: float, score: float = 0.95) -> DetectedFace:
    return DetectedFace(Box(left, 100, left + width, 100 + width), TEMPLATE.astype(np.float32), score)


@pytest.mark.models
def test_a_template_says_who_made_it_and_where_the_face_lies(
    extractor: Extractor, pack: InstalledPack, portrait: Image
) -> None:
    template = extractor.extract(encoded(portrait), FacePolicy.REFUSE)
    assert template.pack_id == extractor.pack_id == pack.manifest.pack_id
    assert extractor.model_id == f"{pack.model_id}.{PIPELINE_VERSION}"
    assert template.embedding.shape == (extractor.dimension,)
    assert 80 < template.quality.face_width_px < 130
    assert template.quality.face_width_px == pytest.approx(template.box.width)
    assert template.quality.face_count == 1


@pytest.mark.models
def test_a_template_is_made_of_what_the_close_looks_show(
    extractor: Extractor, pack: InstalledPack, portrait: Image
) -> None:
    entry, detector = pack.manifest.recogniser, FaceDetector(pack.detector_path, pack.manifest.detector.kind)
    landmarks = refine(detector, portrait, detector.detect(portrait)[0].landmarks, pack.manifest.detector.close_looks)
    recogniser = Recogniser(
        pack.recogniser_path, dimension=extractor.dimension, mean=entry.mean, scale=entry.scale, centre=entry.centre
    )
    template = extractor.extract_image(portrait, FacePolicy.REFUSE)
    assert np.array_equal(template.embedding, recogniser.embed([align(portrait, landmarks)])[0])
    across = float(np.linalg.norm(landmarks[1] - landmarks[0]))
    assert template.quality.inter_eye_px == pytest.approx(across)


@pytest.mark.models
def test_a_turned_photograph_gives_the_same_person(extractor: Extractor, portrait: Image) -> None:
    upright = extractor.extract(encoded(portrait), FacePolicy.REFUSE)
    for turns in (1, 2, 3):
        turned = extractor.extract(encoded(np.ascontiguousarray(np.rot90(portrait, turns))), FacePolicy.REFUSE)
        assert float(turned.embedding @ upright.embedding) > 0.9


@pytest.mark.models
def test_a_very_large_photograph_tells_its_box_in_its_own_pixels(extractor: Extractor, portrait: Image) -> None:
    small = extractor.extract(encoded(portrait), FacePolicy.REFUSE)
    enlarged = np.array(PIL.Image.fromarray(portrait).resize((6000, 6000), PIL.Image.Resampling.BICUBIC))
    large = extractor.extract(encoded(enlarged, "JPEG", quality=90), FacePolicy.REFUSE)
    assert large.box.left == pytest.approx(20 * small.box.left, abs=60)
    assert large.quality.face_width_px == pytest.approx(20 * small.quality.face_width_px, rel=0.08)
    assert float(large.embedding @ small.embedding) > 0.9


@pytest.mark.models
def test_several_faces_are_refused_or_chosen_by_the_policy(extractor: Extractor, t1_path: Path) -> None:
    data = t1_path.read_bytes()
    with pytest.raises(SeveralFaces, match="alone"):
        extractor.extract(data, FacePolicy.REFUSE)
    central = extractor.extract(data, FacePolicy.CENTRAL).box
    largest = extractor.extract(data, FacePolicy.LARGEST).box
    assert abs((central.left + central.right) / 2 - 640) < 200
    assert largest.width >= central.width


@pytest.mark.models
def test_an_image_without_a_face_says_what_to_do(extractor: Extractor) -> None:
    with pytest.raises(NoFace, match="look at the camera"):
        extractor.extract(encoded(np.full((300, 300, 3), 90, np.uint8)), FacePolicy.REFUSE)


@pytest.mark.models
def test_a_face_below_the_smallest_width_is_refused(pack: InstalledPack, portrait: Image) -> None:
    strict = new_extractor(pack, [], min_face_width_px=150)
    with pytest.raises(FaceTooSmall, match="closer"):
        strict.extract(encoded(portrait), FacePolicy.REFUSE)


@pytest.mark.models
def test_every_phase_is_observed_once(pack: InstalledPack, portrait: Image) -> None:
    seen: list[str] = []
    new_extractor(pack, seen).extract(encoded(portrait), FacePolicy.REFUSE)
    assert seen == PHASES


@pytest.mark.models
def test_pixels_give_what_their_file_gives(extractor: Extractor, portrait: Image) -> None:
    from_file = extractor.extract(encoded(portrait), FacePolicy.REFUSE)
    from_pixels = extractor.extract_image(portrait, FacePolicy.REFUSE)
    assert np.array_equal(from_file.embedding, from_pixels.embedding)


@pytest.mark.models
def test_four_threads_extract_what_one_extracts(extractor: Extractor, t1_image: Image) -> None:
    samples = [encoded(np.ascontiguousarray(t1_image[200:520, left : left + 320])) for left in range(0, 900, 180)]
    alone = [extractor.extract(sample, FacePolicy.CENTRAL) for sample in samples]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda sample: extractor.extract(sample, FacePolicy.CENTRAL), samples * 3))
    for one, other in zip(alone * 3, together, strict=True):
        assert one.box == other.box
        assert one.quality == other.quality
        assert np.array_equal(one.embedding, other.embedding)


def test_people_far_behind_do_not_count_as_several() -> None:
    main, behind = face(100, 100), face(300, 39)
    assert choose_face([behind, main], FacePolicy.REFUSE, width=500, height=300) is main


def test_a_child_in_the_arm_counts_as_several() -> None:
    with pytest.raises(SeveralFaces):
        choose_face([face(100, 100), face(300, 41)], FacePolicy.REFUSE, width=500, height=300)


def test_the_central_face_is_the_one_nearest_to_the_centre() -> None:
    faces = [face(0, 120), face(210, 80), face(400, 100)]
    chosen = Counter(choose_face(faces, FacePolicy.CENTRAL, width=500, height=300).box.left for _ in range(3))
    assert chosen == {210.0: 3}
