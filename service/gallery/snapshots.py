"""The sealed segments of a gallery's index on disk: what a start loads instead of reading the whole record again."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from service.durable_files import set_aside, sync_folder, writing_errors
from service.gallery.basis import Basis
from service.gallery.coarse_codes import CoarseCodes
from service.gallery.code_error import CodeError, CodeErrors
from service.gallery.damage import Damage, SnapshotDamaged
from service.gallery.fine_codes import FineCodes
from service.gallery.index_folders import folder_name
from service.gallery.manifest import (
    MANIFEST_NAME,
    Manifest,
    ManifestSegment,
    read_manifest,
    remove_orphans,
    write_manifest,
)
from service.gallery.rows import FiledRows, HeldRows, Rows
from service.gallery.sealed_segment import SealedSegment, Tally
from service.gallery.segment_files import OpenedSegment, Segment, SegmentFile, open_segment, write_segment
from service.logs import log_event
from service.var_lock import make_var_folder

ON_DEMAND = "rebuild"
"""Why files are set aside that were asked to be made anew."""

_log = logging.getLogger(__name__)


class SnapshotFolder:
    """Where one gallery's index of one timeline and one model keeps its segments. One thread writes at a time.

    The files are encrypted under the master key. A segment belongs to the index once the manifest names it; the
    manifest is replaced as a whole, and what it does not name is deleted.
    """

    def __init__(
        self,
        var_index: Path,
        key: bytes,
        *,
        gallery_id: str,
        pack_id: str,
        timeline_id: str,
        model_id: str,
        dimension: int,
        on_damage: Callable[[str], None],
    ) -> None:
        """Make the folder.

        Args:
            var_index: folder of all galleries' folders.
            key: 32 bytes, the master key.
            gallery_id: kept in the encrypted manifest.
            pack_id: of the templates; the folder is named for the two.
            timeline_id: the record's; segments of another are of no use.
            model_id: of the templates.
            dimension: of the embeddings.
            on_damage: told the reason whenever files are set aside.

        Raises:
            VarUnusable: the folder cannot be made.
        """
        self._folder = var_index / folder_name(gallery_id, pack_id)
        self._key, self._on_damage = key, on_damage
        self._gallery_id, self._timeline_id, self._model_id = gallery_id, timeline_id, model_id
        self._dimension = dimension
        make_var_folder(self._folder)

    def load(self, last_seq: int) -> tuple[list[SealedSegment], int]:
        """Return the segments, and the last change that they hold together with the open segment left empty.

        Nothing and 0 where there are none, where one is damaged, or where they are of another timeline or model or
        ahead of the record's change `last_seq`: the index is then filled from the record, and the manifest and any
        damaged file are set aside.

        Raises:
            VarUnusable: the folder cannot be written.
        """
        try:
            manifest = read_manifest(self._folder, self._key, self._gallery_id)
        except SnapshotDamaged as error:
            self._set_aside(error.reason)
            manifest = None
        foreign = self._foreign(manifest, last_seq) if manifest is not None else None
        if foreign is not None:
            self._set_aside(foreign)
            manifest = None
        remove_orphans(self._folder, manifest)
        if manifest is None:
            return [], 0
        segments: list[SealedSegment] = []
        bases: dict[bytes, Basis] = {}
        for entry in manifest.segments:
            try:
                segments.append(self._restored(entry, bases))
            except SnapshotDamaged as error:
                self._set_aside(error.reason, entry.file.name)
                return [], 0
        return segments, manifest.high_water_mark

    def save(self, segment: SealedSegment) -> tuple[SegmentFile, Rows]:
        """Write a segment, which counts from the next `commit` on; return its file and what to search its rows in.

        Raises:
            VarUnusable: the folder cannot be written.
            SnapshotDamaged: the file cannot be read again.
        """
        held = segment.rows
        if not isinstance(held, HeldRows):
            raise TypeError("a segment without a file has its rows in memory")
        parts = [
            segment.codes.basis.stored(),
            segment.codes.stored(),
            segment.odd_rows.astype("<f4").view(np.uint8).ravel(),
            segment.fine.stored(),
        ]
        metadata: dict[str, object] = {
            "coarse": asdict(segment.errors.coarse),
            "fine": asdict(segment.errors.fine),
            "odd": segment.errors.odd.tolist(),
            "parts": [len(part) for part in parts],
            "pairs": segment.tally.pairs,
            "missed": segment.tally.missed,
        }
        file = write_segment(self._folder, self._key, Segment(segment.ids, np.concatenate(parts), held.array, metadata))
        opened = open_segment(self._folder / file.name, self._key, file)
        opened.take_codes()
        opened.ids = segment.ids  # the same: one copy is enough
        return file, FiledRows(opened)

    def commit(self, segments: Sequence[tuple[SegmentFile, Sequence[int]]], high_water_mark: int) -> None:
        """Make `segments`, each with the references removed from it, the index as of change `high_water_mark`.

        Raises:
            VarUnusable: the folder cannot be written.
        """
        manifest = Manifest(
            gallery_id=self._gallery_id,
            timeline_id=self._timeline_id,
            model_id=self._model_id,
            dimension=self._dimension,
            high_water_mark=high_water_mark,
            segments=tuple(ManifestSegment(file, tuple(erased)) for file, erased in segments),
        )
        write_manifest(self._folder, self._key, manifest)
        remove_orphans(self._folder, manifest)

    def forget(self, reason: str = "differs_from_record") -> None:
        """Set the manifest aside: none of its files is used any more."""
        if reason == ON_DEMAND:  # nothing is wrong
            set_aside(self._folder / MANIFEST_NAME)
        else:
            self._set_aside(reason)

    def delete_set_aside(self) -> None:
        """Delete what was set aside, by this start and by earlier ones. Raises VarUnusable."""
        with writing_errors():
            for path in self._folder.glob("*.damaged-*"):
                path.unlink()
            sync_folder(self._folder)

    def _foreign(self, manifest: Manifest, last_seq: int) -> str | None:
        if manifest.timeline_id != self._timeline_id:
            return "other_timeline"
        if (manifest.model_id, manifest.dimension) != (self._model_id, self._dimension):
            return "other_model"
        return "ahead_of_record" if manifest.high_water_mark > last_seq else None

    def _restored(self, entry: ManifestSegment, bases: dict[bytes, Basis]) -> SealedSegment:
        """Return a segment; `bases` are those of other segments, which it shares. Raises SnapshotDamaged."""
        opened = open_segment(self._folder / entry.file.name, self._key, entry.file)
        try:
            segment = _segment_of(opened, bases)
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:  # the last is FAISS's
            raise SnapshotDamaged(Damage.CONTENTS, "the codes of a segment are not what they should be") from error
        segment.file = entry.file
        segment.remove(entry.erased)
        segment.first_removal = 0 if entry.erased else None
        return segment

    def _set_aside(self, reason: str, *names: str) -> None:
        for name in (MANIFEST_NAME, *names):
            set_aside(self._folder / name)
        self._on_damage(reason)
        log_event(_log, "index.files_set_aside", level=logging.ERROR, gallery_id=self._gallery_id, reason=reason)


def _segment_of(opened: OpenedSegment, bases: dict[bytes, Basis]) -> SealedSegment:
    """Put together what `save` wrote. Raises one of several errors if it did not write that."""
    facts: dict[str, Any] = opened.metadata
    errors = CodeErrors(CodeError(**facts["coarse"]), CodeError(**facts["fine"]), np.array(facts["odd"], np.int64))
    basis_data, coarse, odd_rows, fine = np.split(opened.take_codes(), np.cumsum(facts["parts"])[:-1])
    basis = bases.setdefault(hashlib.sha256(basis_data.data).digest(), Basis.restored(basis_data, opened.dimension))
    segment = SealedSegment(
        opened.ids,
        FiledRows(opened),
        CoarseCodes.restored(basis, coarse),
        FineCodes.restored(basis, fine),
        errors,
        odd_rows=np.array(odd_rows.view("<f4"), np.float32).reshape(len(errors.odd), opened.dimension),
    )
    if not len(segment.codes) == len(segment.fine) == len(opened):
        raise ValueError("there is not a code for each template")
    segment.tally = Tally(int(facts["pairs"]), int(facts["missed"]))
    return segment
