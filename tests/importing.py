"""Files to import, and the gallery that they go into."""

from pathlib import Path

import numpy as np

from service.domain import Embeddings, Gallery
from service.import_request import ImportBlock, ImportName, ImportSource
from service.import_source import MadeNames, Names, TemplateFile
from service.importing import ImportRecord, TemplateImport
from tests.world import GALLERY

MODEL_ID = "synthetic-1"


def unit_rows(count: int, dimension: int = 128, seed: int = 5) -> Embeddings:
    rows = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    found: Embeddings = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


def saved(path: Path, rows: object) -> Path:
    np.save(path, np.asarray(rows))
    return path


def import_of(
    record: ImportRecord, path: Path, names: Names | None = None, *, gallery_id: str = GALLERY, model_id: str = MODEL_ID
) -> TemplateImport:
    with record.reading() as reading:
        gallery: Gallery = reading.gallery(gallery_id)
    file = TemplateFile(path)
    return TemplateImport(record, gallery, file, names or MadeNames("p-"), model_id=model_id, dimension=file.dimension)


def source_of(
    total: int = 100, source_id: str = "a-file", model_id: str = "opencv-zoo@1", content_digest: str = "rows"
) -> ImportSource:
    return ImportSource(source_id, content_digest, "opencv-zoo", model_id, total)


def block_of(*people: str, start: int = 0, content: str = "") -> ImportBlock:
    """Rows of subjects `s-PERSON` in encounters `e-PERSON`."""
    names = tuple(ImportName(f"s-{person}", f"e-{person}") for person in people)
    digests = tuple(f"{content}{person}" for person in people)
    return ImportBlock(start, names, digests, unit_rows(len(people)))
