"""Import templates that were made elsewhere: into the record, block by block, compared with nobody yet."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Protocol

from service.domain import Embeddings, Gallery
from service.errors import PackMismatch, TemplatesInvalid
from service.import_request import ImportBlock, ImportName, ImportSource, ImportState
from service.import_source import Names, TemplateFile
from service.ports import Reading

# few enough that an enrolment beside it, on PostgreSQL, catches up: matching.NEWCOMER_LIMIT is twice as many
BLOCK_ROWS = 500

Report = Callable[[int], None]
"""Told how many rows are done."""


class ImportRecord(Protocol):
    """What an import asks of the record."""

    def reading(self) -> AbstractContextManager[Reading]: ...

    def import_state(self, gallery_id: str, source_id: str) -> ImportState: ...

    def check_import(self, gallery_id: str, source: ImportSource) -> None: ...

    def import_block(self, gallery_id: str, source: ImportSource, block: ImportBlock) -> ImportState:
        """Write the rows of a block that are not there yet, and how far the import is, in one transaction."""
        ...


class TemplateImport:
    """One file of templates on its way into a gallery. Nothing is written before `run`."""

    def __init__(
        self, record: ImportRecord, gallery: Gallery, file: TemplateFile, names: Names, *, model_id: str, dimension: int
    ) -> None:
        """Check whatever can be checked without reading the templates themselves.

        Args:
            record: to write into.
            gallery: as it is in the record.
            file: the templates.
            names: whose they are.
            model_id: of the model that made them, as the caller states it.
            dimension: of the gallery's model.

        Raises:
            PackMismatch: the gallery has templates of another model.
            TemplatesInvalid: the file has another dimension, or the names are wrong.
        """
        if gallery.model_id not in {None, model_id}:
            raise PackMismatch(f"the gallery holds templates of {gallery.model_id}, these are of {model_id}")
        if file.dimension != dimension:
            raise TemplatesInvalid(f"the templates have {file.dimension} dimensions, the gallery's have {dimension}")
        self._record = record
        self._gallery_id = gallery.gallery_id
        self._file = file
        self._names = names
        self._pack_id, self._model_id = gallery.pack_id, model_id
        self._source_id = _source_id(gallery, file, names, model_id)
        self._checked: ImportSource | None = None

    @property
    def total(self) -> int:
        return self._file.count

    def state(self) -> ImportState:
        return self._record.import_state(self._gallery_id, self._source_id)

    def check(self, report: Report = lambda _done: None) -> ImportSource:
        """Read every template, so that a bad file is refused before a row is written; return what is to be imported.

        Raises:
            TemplatesInvalid: the first bad row is named.
            EncounterExists: this import began, or ended, with other templates under the same names.
        """
        content = self._file.check(report)
        source = ImportSource(self._source_id, content, self._pack_id, self._model_id, self.total)
        self._record.check_import(self._gallery_id, source)
        self._checked = source
        return source

    def run(self, report: Report = lambda _done: None) -> ImportState:
        """Import what is not imported yet. Killed at any moment, it goes on there when it is run again.

        What was not checked is checked first.

        Raises:
            TemplatesInvalid, EncounterExists: a row cannot be imported; the blocks before its own are.
            PackMismatch, StoreUnavailable
        """
        source = self._checked or self.check()
        state = self.state()
        names, following = self._names.after(state.done), state.done
        while state.done < self.total:
            if state.done != following:  # another process imports the same file, and was a block ahead
                names = self._names.after(state.done)
            start, following = state.done, min(state.done + BLOCK_ROWS, self.total)
            block = self._block(start, following, list(islice(names, following - start)))
            state = self._record.import_block(self._gallery_id, source, block)
            report(state.done)
        return state

    def _block(self, start: int, stop: int, names: Sequence[ImportName]) -> ImportBlock:
        if len(names) != stop - start:
            raise TemplatesInvalid(f"the file of names became shorter while it was imported: row {start + len(names)}")
        embeddings = self._file.read(start, stop)
        return ImportBlock(start, tuple(names), _digests(self._model_id, names, embeddings), embeddings)


def _source_id(gallery: Gallery, file: TemplateFile, names: Names, model_id: str) -> str:
    parts = (file.digest(), names.check(file.count), gallery.pack_id, model_id)
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _digests(model_id: str, names: Sequence[ImportName], embeddings: Embeddings) -> tuple[str, ...]:
    """Return for each row the SHA-256 (hex) of all that is imported of it."""
    return tuple(
        hashlib.sha256(
            f"{model_id} {name.subject_id} {name.encounter_id} {name.captured_at} ".encode() + row.tobytes()
        ).hexdigest()
        for name, row in zip(names, embeddings, strict=True)
    )
