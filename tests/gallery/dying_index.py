"""An index that follows a seeded change log with snapshots and compactions, in a process that kills itself.

`python -m tests.gallery.dying_index FOLDER SEED` reads lines `UP_TO MOMENT`. For each it forks a child that opens the
index over the folder and follows the log up to that change. The child dies by SIGKILL at the moment, the n-th call of a
C function in any of its threads (a write, a rename, an encryption, a copy), at the latest when it is done; with moment
0 by SIGTERM when it is done. The answer is a line with the signal and the number of calls, 0 if it was not done.
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from service.domain import Embeddings
from service.gallery.segmented_index import SegmentedIndex
from service.gallery.snapshots import SnapshotFolder
from service.ports import GalleryIndex

DIMENSION, SEAL_AT, MAX_SEGMENT = 32, 700, 3000
COMPACT_EVERY = 9  # changes
_KEY = bytes(range(32))
Change = tuple[list[int], Embeddings | None]
"""Reference ids with their rows, or to be removed."""


def change_log(seed: int, count: int) -> list[Change]:
    """Return `count` changes: new templates, removals, and some that come back. A longer log begins like a shorter."""
    rng = np.random.default_rng(seed)
    live: dict[int, Embeddings] = {}
    gone: dict[int, Embeddings] = {}
    changes: list[Change] = []
    next_id = 1
    for _ in range(count):
        kind = rng.random()
        if live and kind < 0.35:
            number = int(rng.integers(1, 2 + len(live) // 4))
            ids = [int(each) for each in rng.choice(list(live), number, replace=False)]
            gone = {**dict(list(gone.items())[-100:]), **{each: live.pop(each) for each in ids}}
            changes.append((ids, None))
            continue
        if gone and kind < 0.45:
            ids = [int(each) for each in rng.choice(list(gone), min(len(gone), 20), replace=False)]
            added = {each: gone.pop(each) for each in ids}
        else:
            rows = rng.standard_normal((int(rng.integers(1, 400)), DIMENSION), dtype=np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            added = dict(enumerate(rows, start=next_id))
            next_id += len(rows)
        live |= added
        changes.append((list(added), np.stack(list(added.values()))))
    return changes


def open_index(folder: Path, last_seq: int, damages: list[str]) -> SegmentedIndex:
    snapshots = SnapshotFolder(
        folder,
        _KEY,
        gallery_id="camp",
        pack_id="pack",
        timeline_id="t1",
        model_id="m1",
        dimension=DIMENSION,
        on_damage=damages.append,
    )
    return SegmentedIndex(
        DIMENSION, threads=1, seal_at=SEAL_AT, max_segment=MAX_SEGMENT, snapshots=snapshots, last_seq=last_seq
    )


def follow(index: GalleryIndex, changes: Sequence[Change]) -> None:
    """Apply what the index has not seen, and compact it now and then."""
    while index.high_water_mark < len(changes):
        seq = index.high_water_mark + 1
        ids, rows = changes[seq - 1]
        if rows is None:
            index.remove(seq, ids)
        else:
            index.add(seq, ids, rows)
        if seq % COMPACT_EVERY == 0:
            index.compact()


def follow_and_die(folder: Path, changes: Sequence[Change], moment: int) -> int:
    """Follow the log, and kill the process at the moment; return how many calls there were."""
    calls = 0

    def count(frame: object, event: str, argument: Any) -> None:
        nonlocal calls
        if event == "c_call":
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(count)
    sys.setprofile(count)
    index = open_index(folder, len(changes), [])
    follow(index, changes)
    index.settle()
    sys.setprofile(None)
    return calls


def main() -> None:
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    for line in sys.stdin:
        up_to, moment = (int(each) for each in line.split())
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            calls = follow_and_die(folder, change_log(seed, up_to), moment)
            os.write(writing, str(calls).encode())
            os.kill(os.getpid(), signal.SIGKILL if moment else signal.SIGTERM)
        os.close(writing)
        told = os.read(reading, 64)
        os.close(reading)
        _, status = os.waitpid(child, 0)
        print(os.WTERMSIG(status), int(told or b"0"), flush=True)


if __name__ == "__main__":
    main()
