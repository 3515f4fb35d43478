"""Synthetic people: an embedder whose templates have known scores, and a calibration that fits them."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np

from service.calibration import Calibration
from service.decision import DecisionRule
from service.domain import Box, Embedding, FacePolicy, Quality, Template
from service.errors import NoFace
from service.packs import KeptCalibrations, Pack, Packs
from service.ports import Embedder

DIMENSION = 128
PACK_ID = "synthetic"
QUALITY = Quality(90.0, 45.0, 0.9, 300.0, 120.0, 0.0, 0.0, 0.0, 1)
GOOD = replace(QUALITY, luminance_variance=2000.0, unified=50)
BLURRED = replace(GOOD, sharpness=4.0, unified=5)
FAINT = replace(GOOD, unified=20)  # without a fault that anything could be done about
QUALITIES = {b"blurred": BLURRED, b"faint": FAINT, b"good": GOOD}
BOX = Box(10.0, 10.0, 100.0, 110.0)


def sample_of(person: int, capture: int = 0, quality: str = "good") -> bytes:
    """Return a sample of a person; two captures of one person score about 0.9, two people about 0.

    `quality` is one of `QUALITIES`.
    """
    return f"face {person} {capture} {quality}".encode()


def _unit(row: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Embedding:
    return (row / np.linalg.norm(row)).astype(np.float32)


class PersonEmbedder:
    """Reads the samples of `sample_of`; anything else shows no face."""

    pack_id = PACK_ID
    model_id = "synthetic-1"
    dimension = DIMENSION

    def __init__(self, spread: float = 0.33) -> None:
        """`spread`: of the captures of one person, who score 1 / (1 + spread^2)."""
        self._spread = spread

    def extract(self, data: bytes, policy: FacePolicy) -> Template:
        words = data.split()
        if len(words) != 4 or words[0] != b"face":
            raise NoFace("no face was found: ask the person to look at the camera")
        person, capture = int(words[1]), int(words[2])
        face = np.random.default_rng([1, person]).normal(size=DIMENSION)
        noise = np.random.default_rng([2, person, capture]).normal(size=DIMENSION)
        return Template(PACK_ID, _unit(face + self._spread * noise), QUALITIES[words[3]], BOX)


def calibration() -> Calibration:
    """Return log10 FMR = -0.3 - 9 * score, measured to 0.4; random unit vectors score lower."""
    scores = tuple(step / 20 for step in range(21))
    curve = tuple(-0.3 - 9 * score for score in scores)
    return Calibration(
        pack_id=PACK_ID,
        model_id=PersonEmbedder.model_id,
        method="photographs",
        population="synthetic people",
        people=1500,
        comparisons=10**6,
        found_mates=0.0,
        scores=scores,
        log10_fmr=curve,
        log10_fmr_lower=tuple(value - 0.05 - 0.2 * score for score, value in zip(scores, curve, strict=True)),
        log10_fmr_upper=tuple(value + 0.05 + 0.2 * score for score, value in zip(scores, curve, strict=True)),
        measured_to=0.4,
        mated_scores=tuple(float(score) for score in np.linspace(0.35, 0.98, 101)),
        mated_people=400,
        mated_population="synthetic people",
    )


def forged(made: Calibration, **changes: object) -> dict[str, Any]:
    """Return the content of a calibration file with other values under the id that belongs to them."""
    content = made.as_json() | changes
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return {"calibration_id": f"{content['pack_id']}-{digest[:12]}", **content}


def packs(kept: KeptCalibrations | None = None, embedder: Embedder | None = None) -> Packs:
    rule = DecisionRule(calibration(), fnir_warning=0.1)
    return Packs({PACK_ID: Pack(embedder or PersonEmbedder(), rule, judges_quality=True)}, kept)
