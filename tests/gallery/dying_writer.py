"""Writes a segment and a manifest that names it, once in each folder, and kills itself at a given moment of each.

`python -m tests.gallery.dying_writer MOMENT:FOLDER ...`: a moment is the n-th call of a C function (a write, an
encryption, an fsync, a rename), or 0 to live and print how many there are.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from service.gallery.manifest import Manifest, ManifestSegment, read_manifest, write_manifest
from service.gallery.segment_files import write_segment
from tests.gallery.segments import KEY, made_up_segment

GALLERY = "refugees-of-1951"


def next_manifest(folder: Path) -> Manifest:
    """Write one more segment; return the manifest that names the old ones and it."""
    before = read_manifest(folder, KEY, GALLERY)
    segments = before.segments if before else ()
    file = write_segment(folder, KEY, made_up_segment(len(segments), count=30))
    return Manifest(GALLERY, "timeline", "model", 8, len(segments) + 1, (*segments, ManifestSegment(file)))


def write_and_die(folder: Path, moment: int) -> int:
    """Write, and kill the process at the moment; return how many moments there were."""
    calls = 0

    def count(frame: object, event: str, argument: Any) -> None:
        nonlocal calls
        if event == "c_call":
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    write_manifest(folder, KEY, next_manifest(folder))
    sys.setprofile(None)
    return calls


def main() -> None:
    for argument in sys.argv[1:]:
        moment, _, folder = argument.partition(":")
        if moment == "0":
            print(write_and_die(Path(folder), 0))
        elif (child := os.fork()) == 0:
            write_and_die(Path(folder), int(moment))
            os._exit(0)
        else:
            os.waitpid(child, 0)


if __name__ == "__main__":
    main()
