"""The master key of the files of the index: a file under ./var, made at first use."""

import os
import secrets
import stat
from pathlib import Path

from service.durable_files import PART_SUFFIX, open_new, sync_folder
from service.errors import VarUnusable
from service.var_lock import make_var_folder

KEY_BYTES = 32  # AES-256


def load_or_create_master_key(path: Path) -> bytes:
    """Return the 32 bytes of the master key; the first call draws them.

    Processes that start at once all get the same key, and one that is killed meanwhile leaves no half key.

    Raises:
        VarUnusable: the file cannot be read or made, is not a key, or others than its owner may read it.
    """
    try:
        if not path.exists():
            _create(path)
        return load_key(path)
    except OSError as error:
        raise VarUnusable(f"the master key file cannot be used: {error.strerror or 'no access'}") from error


def _create(path: Path) -> None:
    make_var_folder(path.parent)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART_SUFFIX}")
    try:
        with open_new(part) as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            # a link, not a rename: of two processes the first wins and the second keeps off
            os.link(part, path)
        except FileExistsError:
            return
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def load_key(path: Path) -> bytes:
    """Raises VarUnusable, OSError."""
    # non-blocking, or a named pipe in its place would hold up the start
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise VarUnusable("the master key file may be read by others: chmod 600")
        key = file.read(KEY_BYTES + 1)
    # zeros are what some file systems leave of a file after a power failure
    if len(key) != KEY_BYTES or not any(key):
        raise VarUnusable(
            f"the master key file is not a key of {KEY_BYTES} bytes: restore it from its backup; nothing else opens "
            "what was written under it"
        )
    return key
