"""Backups of the key store: written with a date in the name, and deleted in time for what receipts promise."""

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service.durable_files import PART_SUFFIX, open_new, sync_folder
from service.errors import VarUnusable
from service.store.key_copies import copy_keys, sqlite_url
from service.var_lock import make_var_folder

_NAME = re.compile(r"biodedup-keys-(\d{8}T\d{6}Z)\.sqlite")
_STAMP = "%Y%m%dT%H%M%SZ"

BEFORE_LAST_DAY = timedelta(days=2)
"""So long before it a backup goes: the next look may come a day later, and receipts count from the erasure, while a key
that could not be destroyed at once may still be in a backup of the day after it."""


def write_backup(keys_url: str, folder: Path, now: datetime) -> tuple[Path, int]:
    """Copy the key store into a new file of the folder; return it, and how many subject keys it holds.

    Args:
        keys_url: of the key store, which may be in use.
        folder: made where there is none, for its owner only.
        now: time zone aware; its seconds name the file.

    Raises:
        KeysMissing, StoreUnavailable, SettingsInvalid
        VarUnusable: the folder cannot be written, or holds a backup of this second.
    """
    make_var_folder(folder)
    path = folder / f"biodedup-keys-{now.astimezone(UTC).strftime(_STAMP)}.sqlite"
    part = path.with_name(path.name + PART_SUFFIX)
    if path.exists():
        raise VarUnusable("the folder of the backups has one of this second already")
    try:
        open_new(part).close()
        count = copy_keys(keys_url, sqlite_url(part))
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(folder)
    except OSError as error:
        raise VarUnusable(f"the folder of the backups cannot be written: {error.strerror or 'no access'}") from error
    finally:
        for left in folder.glob(part.name + "*"):  # with what SQLite puts beside a file
            left.unlink(missing_ok=True)
    return path, count


def delete_old(folder: Path, now: datetime, kept: timedelta) -> list[Path]:
    """Delete the backups of this folder that would be older than `kept` within two days; return which these were.

    Their age is what their name says. The newest stays, whatever its age: without any, a lost key store would take the
    whole record along. No other file is touched. Raises VarUnusable.
    """
    gone = []
    try:
        named_so = [(path, named) for path in sorted(folder.iterdir()) if (named := _NAME.fullmatch(path.name))]
        for path, named in named_so[:-1]:
            made = datetime.strptime(named[1], _STAMP).replace(tzinfo=UTC)
            if now - made > kept - BEFORE_LAST_DAY:
                path.unlink()
                gone.append(path)
        sync_folder(folder)
    except OSError as error:
        raise VarUnusable(f"old backups cannot be deleted: {error.strerror or 'no access'}") from error
    return gone
