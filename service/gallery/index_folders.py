"""The folders in which indexes keep their files, one a gallery and pack."""

import hashlib
import shutil
from collections.abc import Collection
from pathlib import Path

from service.durable_files import sync_folder, writing_errors


def folder_name(gallery_id: str, pack_id: str) -> str:
    """Return a name that tells neither."""
    return f"{_of_gallery(gallery_id)}-{hashlib.sha256(pack_id.encode()).hexdigest()[:16]}"


def adopt_folder(var_index: Path, gallery_id: str, pack_id: str) -> None:
    """Give the folder of an earlier version, which named it for the gallery alone, its new name. Raises VarUnusable."""
    before, after = var_index / _of_gallery(gallery_id), var_index / folder_name(gallery_id, pack_id)
    if before.is_dir() and not after.exists():
        with writing_errors():
            before.rename(after)
            sync_folder(var_index)


def delete_other_folders(var_index: Path, gallery_id: str, pack_ids: Collection[str]) -> None:
    """Delete the index files of all packs of a gallery but these. Raises VarUnusable."""
    kept = {folder_name(gallery_id, pack_id) for pack_id in pack_ids}
    with writing_errors():
        for path in var_index.glob(f"{_of_gallery(gallery_id)}-*"):
            if path.name not in kept:
                shutil.rmtree(path)
                sync_folder(var_index)


def _of_gallery(gallery_id: str) -> str:
    return hashlib.sha256(gallery_id.encode()).hexdigest()[:32]
