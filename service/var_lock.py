"""One process owns the folder of the embedded record: a lock, and a note that says who holds it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from service.errors import VarInUse, VarUnusable

_LOCK_FILE = "lock"
_NOTE_FILE = "lock.json"
_PATIENCE_S = 0.5


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds a folder, and where it serves (None: it serves nobody)."""

    pid: int
    url: str | None


class VarLock:
    """Held until `release` or the end of the process, however it ends: the operating system drops it then."""

    def __init__(self, folder: Path, url: str | None) -> None:
        """Take the folder and say who took it.

        Raises:
            VarInUse: another process has it; the message says which, and where it serves.
            VarUnusable: it cannot be made or written.
        """
        make_var_folder(folder)
        self._note = folder / _NOTE_FILE
        # not bound to a thread: it is taken by the thread that starts the service and released by another
        self._lock = FileLock(folder / _LOCK_FILE, thread_local=False)
        try:
            # `owner_of` of a command may hold it for a moment
            self._lock.acquire(timeout=_PATIENCE_S, poll_interval=0.05)
        except Timeout:
            raise VarInUse(_explain(_read_note(self._note))) from None
        except OSError as error:
            raise _unusable(error) from error
        try:
            self.tell(url)
        except OSError as error:
            self._lock.release()
            raise _unusable(error) from error

    def tell(self, url: str | None) -> None:
        """Write down where this process serves."""
        part = self._note.with_suffix(".part")
        part.write_text(json.dumps({"pid": os.getpid(), "url": url}))
        part.replace(self._note)  # a reader sees the old note or the new one, never half of it

    def release(self) -> None:
        self._note.unlink(missing_ok=True)
        self._lock.release()


def make_var_folder(folder: Path) -> None:
    """Make the folder of the record where there is none, for its owner only: faces are nobody else's business.

    Raises:
        VarUnusable: it cannot be made, or is no folder.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(error) from error


def owner_of(folder: Path) -> Owner | None:
    """Return who holds the folder, None if nobody does.

    Raises:
        VarUnusable: the folder cannot be looked into, or the lock in it cannot be opened.
    """
    try:
        if not (folder / _LOCK_FILE).exists():
            return None
        lock = FileLock(folder / _LOCK_FILE, thread_local=False)
        lock.acquire(blocking=False)
    except Timeout:
        return _read_note(folder / _NOTE_FILE)
    except OSError as error:
        raise _unusable(error) from error
    lock.release()
    return None


def refuse_owned(folder: Path) -> None:
    """Raise VarInUse where another process holds the folder, VarUnusable where that cannot be found out."""
    owner = owner_of(folder)
    if owner is not None:
        raise VarInUse(_explain(owner))


def _unusable(error: OSError) -> VarUnusable:
    return VarUnusable(f"the folder of the record (BIODEDUP_VAR_DIR) cannot be used: {error.strerror or 'no access'}")


def _read_note(path: Path) -> Owner:
    """Return what the holder wrote; it may be between taking the lock and writing."""
    try:
        note = json.loads(path.read_text())
        return Owner(pid=int(note["pid"]), url=note["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return Owner(pid=0, url=None)


def _explain(owner: Owner) -> str:
    who = f"process {owner.pid}" if owner.pid else "another process"
    if owner.url is None:
        return f"{who} works on this folder"
    return f"{who} serves this folder at {owner.url} (for commands: BIODEDUP_URL={owner.url})"
