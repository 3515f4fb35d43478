"""Made-up people with photographs: as alike as wanted, with any labels."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from service.domain import Embeddings
from service.evaluation.photographs import FaceSet, Photograph, Refused, photograph_of

DIMENSION = 32


def embeddings(sizes: Sequence[int], seed: int = 0, spread: float = 0.5) -> Embeddings:
    """Return unit rows, `sizes` of each person; photographs of a person differ the more, the larger `spread` is."""
    rng = np.random.default_rng(seed)
    persons = np.repeat(rng.normal(size=(len(sizes), DIMENSION)), sizes, axis=0)
    rows = persons + spread * rng.normal(size=persons.shape)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def face_set(
    sizes: Sequence[int],
    seed: int = 0,
    spread: float = 0.5,
    facts: Callable[[int, int], Mapping[str, str]] = lambda _person, _number: {},
    refused: Sequence[Refused] = (),
) -> FaceSet:
    """Return photographs of made-up people; `facts` says what is known of the n-th photograph of a person."""
    rows = embeddings(sizes, seed, spread)
    shown = [
        photograph_of(f"{person:04d}/{number}.jpg", f"{person:04d}", facts(person, number))
        for person, size in enumerate(sizes)
        for number in range(size)
    ]
    return FaceSet.of(list(zip(shown, rows, strict=True)), refused)


def unusable(person: str, code: str = "no_face") -> Refused:
    return Refused(Photograph(f"{person}/bad.jpg", person, None, {}), code)
