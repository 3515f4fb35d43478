"""From the bytes of a sample to a template: decode, detect, choose, refine, align, measure, embed, doubt."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from service.domain import Box, FacePolicy, Image, Template
from service.errors import FaceTooSmall, NoFace, SeveralFaces
from service.face.alignment import align
from service.face.detection import DetectedFace, FaceDetector
from service.face.embedding import Recogniser
from service.face.image import ImageLimits, ScaledImage, decode_scaled
from service.face.model_packs import InstalledPack
from service.face.presentation_attack import detector_of
from service.face.quality import measure
from service.face.refinement import refine
from service.face.unified import scale_of

Observe = Callable[[str, float], None]
"""Told the phase (decode, detect, refine, align, quality, embed, attack) and the seconds it took."""

# part of the model id: raised whenever detection, alignment or decoding move the embeddings of a photograph
PIPELINE_VERSION = 1

# a face of less than this share of the widest one's width stands well behind it and is not meant
RIVAL_WIDTH_SHARE = 0.4


def template_model_id(pack: InstalledPack) -> str:
    """Return what a template of this pack bears as its model: the pack's files and our pipeline."""
    return f"{pack.model_id}.{PIPELINE_VERSION}"


class Extractor:
    """One model pack, loaded and warmed. Safe for use by many threads; each call computes on its caller's."""

    def __init__(
        self,
        pack: InstalledPack,
        *,
        limits: ImageLimits,
        min_face_width_px: float,
        observe: Observe,
    ) -> None:
        """Load and warm the pack.

        Args:
            pack: checked files.
            limits: of one sample.
            min_face_width_px: in pixels of the file; a narrower face is refused.
            observe: called on the thread that extracts, once a phase.

        Raises:
            PackGraphUnsupported: a graph cannot be loaded or does not fit its manifest.
            PackManifestInvalid: its quality.json cannot be read.
        """
        manifest = pack.manifest
        entry = manifest.recogniser
        self.pack_id: str = manifest.pack_id
        self.model_id = template_model_id(pack)
        self.dimension = manifest.dimension
        self._detector = FaceDetector(pack.detector_path, manifest.detector.kind)
        self._recogniser = Recogniser(
            pack.recogniser_path,
            dimension=manifest.dimension,
            mean=entry.mean,
            scale=entry.scale,
            colour=entry.colour,
            input_name=entry.input_name,
            centre=entry.centre,
        )
        self._close_looks = manifest.detector.close_looks
        self._scale = scale_of(pack)
        attack = manifest.presentation_attack
        self._attacks = detector_of(pack.attack_model_path, attack.threshold if attack else 0.0)
        self._limits = limits
        self._min_face_width_px = min_face_width_px
        self._observe = observe
        # the first run of a graph plans its memory, so it is slow: let no caller wait for that
        self._detector.detect(np.zeros((256, 256, 3), np.uint8))

    def extract(self, data: bytes, policy: FacePolicy) -> Template:
        """Return the template of the face in an image file; its box is in the upright file's own pixels.

        Raises:
            SampleRejected: no usable face; the subclass and its message say why and what to do.
        """
        with self._phase("decode"):
            image = decode_scaled(data, self._limits)
        return self._template(image, policy)

    def extract_image(self, image: Image, policy: FacePolicy) -> Template:
        """Return the template of the face in pixels, (H, W, 3) uint8, RGB, upright. Raises what `extract` raises."""
        return self._template(ScaledImage(image, 1.0), policy)

    def _template(self, image: ScaledImage, policy: FacePolicy) -> Template:
        with self._phase("detect"):
            faces = self._detector.detect(image.pixels)
        height, width = image.pixels.shape[:2]
        face = choose_face(faces, policy, width=width, height=height)
        if face.box.width / image.scale < self._min_face_width_px:
            raise FaceTooSmall(
                f"the face is {face.box.width / image.scale:.0f} pixels wide, {self._min_face_width_px:g} are needed: "
                "go closer or use a camera with more pixels"
            )
        with self._phase("refine"):
            face = replace(face, landmarks=refine(self._detector, image.pixels, face.landmarks, self._close_looks))
        with self._phase("align"):
            crop = align(image.pixels, face.landmarks)
        with self._phase("quality"):
            quality = measure(face, crop, image.pixels, faces, scale=image.scale)
        with self._phase("embed"):
            embeddings, norms = self._recogniser.embed_with_norms([crop])
        norm = float(norms[0])
        unified = None if self._scale is None else self._scale.score(norm)
        quality = replace(quality, embedding_norm=round(norm, 4), unified=unified)
        with self._phase("attack"):
            attack = self._attacks.assess(image.pixels, face.landmarks)
        return Template(self.pack_id, embeddings[0], quality, _unscaled(face.box, image.scale), attack)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._observe(name, time.perf_counter() - started)


def choose_face(faces: Sequence[DetectedFace], policy: FacePolicy, *, width: int, height: int) -> DetectedFace:
    """Return the face that is meant.

    REFUSE returns the widest face when no rival stands beside it. A rival is another face of at least
    `RIVAL_WIDTH_SHARE` of its width: someone at the same desk, or a child in the arm. Narrower faces are people
    behind, pictures on the wall and false finds; a gallery that must not enrol a bystander loses nothing by them,
    because the widest face is the one that is enrolled. When in doubt the sample is refused: another photograph
    costs a minute, the wrong person's template a wrong accusation.
    LARGEST returns the widest face, CENTRAL the one whose centre lies nearest to that of the image.

    Raises:
        NoFace: there is none.
        SeveralFaces: the policy is REFUSE and there is a rival.
    """
    if not faces:
        raise NoFace(
            "no face was found: ask the person to look at the camera, with light on the face and nothing before it"
        )
    widest = max(faces, key=lambda face: face.box.width)
    if policy is FacePolicy.CENTRAL:
        return min(faces, key=lambda face: _distance_to(face.box, width / 2, height / 2))
    rivals = sum(face.box.width >= RIVAL_WIDTH_SHARE * widest.box.width for face in faces) - 1
    if policy is FacePolicy.REFUSE and rivals:
        raise SeveralFaces(
            f"the image shows {rivals + 1} faces: photograph the person alone, or cut the image to one face"
        )
    return widest


def _distance_to(box: Box, across: float, down: float) -> float:
    """Squared distance in pixels from the centre of a box."""
    return ((box.left + box.right) / 2 - across) ** 2 + ((box.top + box.bottom) / 2 - down) ** 2


def _unscaled(box: Box, scale: float) -> Box:
    return Box(box.left / scale, box.top / scale, box.right / scale, box.bottom / scale)
