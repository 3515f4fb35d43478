"""One process owns the folder of the embedded record: a lock, and a note that says who holds it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from service.errors import VarInUse

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
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # faces are nobody else's business
        self._note = folder / _NOTE_FILE
        # not bound to a thread: it is taken by the thread that starts the service and released by another
        self._lock = FileLock(folder / _LOCK_FILE, thread_local=False)
        try:
            # `owner_of` of a command may hold it for a moment
            self._lock.acquire(timeout=_PATIENCE_S, poll_interval=0.05)
        except Timeout:
            raise VarInUse(_explain(_read_note(self._note))) from None
        self.tell(url)

    def tell(self, url: str | None) -> None:
        """Write down where this process serves."""
        part = self._note.with_suffix(".part")
        part.write_text(json.dumps({"pid": os.getpid(), "url": url}))
        part.replace(self._note)  # a reader sees the old note or the new one, never half of it

    def release(self) -> None:
        self._note.unlink(missing_ok=True)
        self._lock.release()


def owner_of(folder: Path) -> Owner | None:
    """Return who holds the folder, None if nobody does."""
    if not (folder / _LOCK_FILE).exists():
        return None
    lock = FileLock(folder / _LOCK_FILE, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return _read_note(folder / _NOTE_FILE)
    lock.release()
    return None


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
        return f"{who} works on this folder: wait until it is done, or set another BIODEDUP_VAR_DIR"
    return (
        f"{who} serves this folder at {owner.url}: talk to it over HTTP (BIODEDUP_URL={owner.url}), stop it, "
        "or set another BIODEDUP_VAR_DIR"
    )
