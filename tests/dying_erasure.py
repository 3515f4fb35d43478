"""A process that erases a subject and kills itself at a point: `python -m tests.dying_erasure VAR URL SUBJECT POINT`.

Points: `committed`, `half-written`, `written`, `destroyed`, `noted`; URL may be empty.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from service.erasure_ledger import LEDGER_FILE, ErasureLedger, LedgerLine
from service.key_ring import KeyRing
from tests.records import record_of


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying_after(act: Callable[..., None]) -> Callable[..., None]:
    def both(*arguments: Any) -> None:
        act(*arguments)
        die()

    return both


def write_half(ledger: ErasureLedger, lines: Sequence[LedgerLine]) -> None:
    with (ledger._path.parent / LEDGER_FILE).open("a") as file:
        file.write(lines[0].text()[:40])
    die()


def main(var: Path, url: str | None, subject_id: str, point: str) -> None:
    """Erase until the point is reached, and end with the signal."""
    if point == "half-written":
        ErasureLedger.append = write_half  # type: ignore[assignment,method-assign]  # a death in the middle of it
    elif point == "written":
        ErasureLedger.append = dying_after(ErasureLedger.append)  # type: ignore[method-assign]  # a death behind it
    elif point == "destroyed":
        KeyRing.destroy = dying_after(KeyRing.destroy)  # type: ignore[method-assign]  # a death behind it
    with record_of(var, url) as store:
        if point == "committed":
            store.destroy_keys = die  # type: ignore[method-assign]  # a death before it
        elif point == "noted":
            store.destroy_keys = dying_after(store.destroy_keys)  # type: ignore[method-assign]  # a death behind it
        with store.writing("camp") as writing:
            writing.erase_subject(subject_id)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] or None, sys.argv[3], sys.argv[4])
