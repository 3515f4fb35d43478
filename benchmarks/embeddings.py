"""Templates of a data set's photographs through the service's extractor, kept for the next run."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.datasets import Dataset
from service import face
from service.domain import Embedding, Embeddings, FacePolicy, Quality, Template
from service.errors import SampleRejected
from service.face.extractor import Extractor
from service.face.image import ImageLimits
from service.face.model_packs import InstalledPack

# read once, at the start: code that changes on disk during a run is not the code that runs
_CODE = b"".join(source.read_bytes() for source in sorted(Path(face.__file__).parent.glob("*.py")))

Progress = Callable[[int], None]
"""Told after each photograph how many are done."""


@dataclass(frozen=True)
class FaceSet:
    """What the extractor made of the photographs of a data set."""

    embeddings: Embeddings  # (n, D) float32, one row a photograph that shows a usable face, in the data set's order
    row_of: Mapping[str, int]  # photograph -> row; those without a usable face are not in it
    rejected: Mapping[str, str]  # photograph -> code of the rejection
    qualities: Sequence[Quality] = ()  # of each row

    def get(self, photograph: str) -> Embedding | None:
        row = self.row_of.get(photograph)
        return None if row is None else self.embeddings[row]

    def rows(self, photographs: list[str]) -> Embeddings:
        return self.embeddings[[self.row_of[photograph] for photograph in photographs]]


def extract_faces(
    dataset: Dataset, pack: InstalledPack, *, workers: int, min_face_width_px: int, progress: Progress
) -> FaceSet:
    """Extract every photograph with the policy CENTRAL, `workers` at a time."""
    extractor = Extractor(
        pack,
        limits=ImageLimits(),
        min_face_width_px=min_face_width_px,
        observe=_unobserved,
    )

    def extract(photograph: str) -> Template | str:
        try:
            return extractor.extract(dataset.read(photograph), FacePolicy.CENTRAL)
        except SampleRejected as error:
            return error.code

    found: dict[str, Template] = {}
    rejected: dict[str, str] = {}
    with ThreadPoolExecutor(workers) as pool:
        for done, (photograph, result) in enumerate(
            zip(dataset.photographs, pool.map(extract, dataset.photographs), strict=True), start=1
        ):
            if isinstance(result, str):
                rejected[photograph] = result
            else:
                found[photograph] = result
            progress(done)
    embeddings = np.array([each.embedding for each in found.values()], np.float32).reshape(-1, extractor.dimension)
    qualities = [each.quality for each in found.values()]
    return FaceSet(embeddings, {photograph: row for row, photograph in enumerate(found)}, rejected, qualities)


def cache_path(folder: Path, dataset: Dataset, pack: InstalledPack, min_face_width_px: int) -> Path:
    """Return where the templates are kept: another model, other code of `service/face` or other files, other name.

    The files count by name, size and time of change: reading all of them would take as long as it saves.
    """
    digest = hashlib.sha256(f"{min_face_width_px} ".encode() + _CODE)
    for photograph in dataset.photographs:
        facts = (dataset.root / "images" / photograph).stat()
        digest.update(f"{photograph} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return folder / f"{pack.model_id}-{digest.hexdigest()[:16]}.npz"


def save(path: Path, faces: FaceSet) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")  # numpy adds .npz to any other ending
    names = json.dumps([list(faces.row_of), dict(faces.rejected)])
    qualities = json.dumps([asdict(each) for each in faces.qualities])
    np.savez(partial, embeddings=faces.embeddings, names=np.array(names), qualities=np.array(qualities))
    partial.replace(path)


def load(path: Path) -> FaceSet:
    with np.load(path) as kept:
        order, rejected = json.loads(str(kept["names"]))
        qualities = [Quality(**each) for each in json.loads(str(kept["qualities"]))]
        rows = {photograph: row for row, photograph in enumerate(order)}
        return FaceSet(kept["embeddings"], rows, rejected, qualities)


def _unobserved(_phase: str, _seconds: float) -> None:
    return
