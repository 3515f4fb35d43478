"""Templates that come from elsewhere, as they are brought into the record."""

from dataclasses import dataclass, field
from datetime import datetime

from service.domain import Embeddings


@dataclass(frozen=True, slots=True)
class ImportSource:
    """What is imported. The same rows with the same names are the same source, wherever the file lies."""

    source_id: str  # SHA-256 (hex) of the names and of a sample of the rows: known before all of them are read
    content_digest: str  # BLAKE2b (hex) of all rows
    pack_id: str
    model_id: str
    total: int  # rows


@dataclass(frozen=True, slots=True)
class ImportName:
    """Whose template a row is."""

    subject_id: str
    encounter_id: str
    captured_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ImportBlock:
    """Consecutive rows of a source, written in one transaction."""

    start: int  # number of the first row, from 0
    names: tuple[ImportName, ...]
    digests: tuple[str, ...]  # of each row with its name: an equal encounter has an equal one
    embeddings: Embeddings = field(repr=False)


@dataclass(frozen=True, slots=True)
class ImportState:
    """How far an import is. A gallery can hold fewer of its templates: who was erased since it began stays erased."""

    done: int  # rows that are dealt with, from the first on
    added: int  # of these, rows that were neither in the record before nor of a subject who was erased meanwhile
