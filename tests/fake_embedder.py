"""An embedder without weights: a text is a face, and the same words are the same person."""

import hashlib
from dataclasses import replace

import numpy as np

from service.calibration import Calibration
from service.decision import DecisionRule
from service.domain import Embedding, FacePolicy, Template
from service.errors import NoFace, Overloaded, SampleEmpty, SampleRejected, all_errors
from service.packs import Pack, Packs
from tests.synthetic import BLURRED, BOX, GOOD, calibration

DIMENSION = 512  # so that two of a few thousand random people never score above a threshold
PACK_ID = "fake"
_REJECTIONS = {f"reject {error.code}".encode(): error for error in all_errors(SampleRejected)}


class FakeEmbedder:
    """`anna/1` and `anna/2` are two captures of anna; they score about 0.9, two people about 0.

    A text that ends with `blurred` is a photograph of poor quality. `noface` has no face, `reject CODE` is rejected
    with that code, `busy` finds the queue full, `crash` is a fault.
    """

    pack_id = PACK_ID
    model_id = "fake-1"
    dimension = DIMENSION

    def extract(self, data: bytes, _policy: FacePolicy) -> Template:
        if not data:
            raise SampleEmpty("the sample is empty")
        if data.startswith(b"noface"):
            raise NoFace("no face was found")
        if data in _REJECTIONS:
            raise _REJECTIONS[data]("this sample cannot be used")
        if data == b"busy":
            raise Overloaded("too many samples are being worked on: try again later", retry_after_s=7)
        if data == b"crash":
            raise RuntimeError("crashed on anna")
        person = _random(data.partition(b"/")[0])
        quality = BLURRED if data.endswith(b"blurred") else GOOD
        return Template(PACK_ID, _unit(person + 0.33 * _random(b"capture of " + data)), quality, BOX)


def fake_packs() -> Packs:
    return Packs(
        {PACK_ID: Pack(FakeEmbedder(), DecisionRule(fake_calibration(), fnir_warning=0.1), judges_quality=True)}
    )


def fake_calibration() -> Calibration:
    """Return the synthetic one, for these templates."""
    return replace(calibration(), pack_id=PACK_ID, model_id=FakeEmbedder.model_id)


def _random(seed: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.random.default_rng(list(hashlib.sha256(seed).digest())).normal(size=DIMENSION)


def _unit(row: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Embedding:
    return (row / np.linalg.norm(row)).astype(np.float32)
