"""Files that are there whole or not at all, whenever the process or the machine stops."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from service.errors import VarUnusable
from service.var_lock import make_var_folder

PART_SUFFIX = ".part"


@contextmanager
def durable_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write that takes the name `path` when the block ends well, replacing what was there.

    Its folder is made where there is none. Both are for their owner only.

    Raises:
        VarUnusable: the folder cannot be made or written, or is full; nothing is left of the new file.
    """
    make_var_folder(path.parent)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART_SUFFIX}")
    try:
        with writing_errors():
            with open_new(part) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # before it has its name: a name must never lead to half a file
            part.replace(path)
            sync_folder(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def open_new(path: Path) -> BinaryIO:
    """Open a file that did not exist, readable by its owner only, whatever the umask."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_aside(path: Path) -> Path | None:
    """Rename a damaged file to `<name>.damaged-<n>`, n the first free number from 1; return its new path.

    None when there is no such file: another start may have set it aside.

    Raises:
        VarUnusable: the folder cannot be written.
    """
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    with writing_errors():
        try:
            path.rename(aside)
        except FileNotFoundError:
            return None
        sync_folder(path.parent)
    return aside


@contextmanager
def writing_errors() -> Iterator[None]:
    """Turn a refusal of the operating system into VarUnusable."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or "no access"
        raise VarUnusable(f"the folder of the gallery index cannot be written: {reason}") from error
