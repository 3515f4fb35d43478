"""A process that imports until it is killed: `python -m tests.dying_import URL FILE PAUSE_S`."""

import sys
import time
from pathlib import Path

from service.store.sql_store import SqlStore
from tests.importing import import_of
from tests.world import START


def main(url: str, path: Path, pause_s: float) -> None:
    """Say after each block how many rows are done."""

    def report(done: int) -> None:
        print(done, flush=True)
        time.sleep(pause_s)

    import_of(SqlStore(url, lambda: START), path).run(report)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
