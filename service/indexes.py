"""Which index a gallery gets, and where it keeps its files."""

import logging
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from service.domain import Gallery
from service.errors import VarInUse, VarUnusable
from service.gallery.exact_index import ExactIndex
from service.gallery.faiss_index import FaissIndex
from service.gallery.index_folders import adopt_folder, delete_other_folders
from service.gallery.meter import Meter
from service.gallery.segmented_index import SegmentedIndex
from service.gallery.snapshots import SnapshotFolder
from service.logs import log_event
from service.metrics import Metrics
from service.ports import Embedder, GalleryIndex, NewIndex
from service.var_lock import VarLock

Kind = Literal["segmented", "faiss", "exact"]

_INDEX_FOLDER = "index"

_log = logging.getLogger(__name__)


def spare_folder(folder: Path, url: str | None, held: ExitStack) -> Path | None:
    """Own `folder` until `held` is closed, for the files of indexes beside a database server.

    Returns:
        It, or None where another process has it or it cannot be written: the indexes are then in memory alone.
    """
    try:
        held.callback(VarLock(folder, url).release)
    except (VarInUse, VarUnusable) as error:
        log_event(_log, "index.kept_in_memory", level=logging.WARNING, code=error.code)
        return None
    return folder


def index_maker(kind: Kind, folder: Path | None, metrics: Metrics, gallery_key: Callable[[str], bytes]) -> NewIndex:
    """Return what makes the index of a gallery.

    Args:
        kind: setting BIODEDUP_INDEX.
        folder: of the files, which this process owns; None: in memory alone.
        metrics: told what the indexes do.
        gallery_key: returns the 32 bytes of a gallery's key, which wraps those of its files.

    Raises:
        VarUnusable: the folder cannot be written.
    """
    if kind == "exact":
        return lambda _gallery, embedder: ExactIndex(embedder.dimension)
    if kind == "faiss":
        return lambda _gallery, embedder: FaissIndex(embedder.dimension)
    meter = Meter(metrics)
    if folder is None:
        return lambda _gallery, embedder: SegmentedIndex(embedder.dimension, meter=meter)

    def new(gallery: Gallery, embedder: Embedder) -> GalleryIndex:
        # a gallery of an earlier version has one pack, and its files lie under the gallery's name alone
        adopt_folder(folder / _INDEX_FOLDER, gallery.gallery_id, gallery.pack_id)
        snapshots = SnapshotFolder(
            folder / _INDEX_FOLDER,
            gallery_key(gallery.gallery_id),
            gallery_id=gallery.gallery_id,
            pack_id=gallery.pack_id,
            timeline_id=gallery.timeline_id,
            model_id=embedder.model_id,
            dimension=embedder.dimension,
            on_damage=lambda reason: metrics.index_files_set_aside.labels(reason=reason).inc(),
        )
        return SegmentedIndex(embedder.dimension, snapshots=snapshots, last_seq=gallery.last_seq, meter=meter)

    return new


def delete_index_files(folder: Path | None) -> None:
    """Delete the index files of all galleries: those of an earlier version are under another key, and made anew."""
    if folder is not None:
        shutil.rmtree(folder / _INDEX_FOLDER, ignore_errors=True)


def files_forgetter(folder: Path | None) -> Callable[[Gallery], None]:
    """Return what deletes the index files of packs that a gallery does not have; `folder` as for `index_maker`."""
    if folder is None:
        return lambda _gallery: None
    return lambda gallery: delete_other_folders(folder / _INDEX_FOLDER, gallery.gallery_id, gallery.pack_ids)
