"""A process that sweeps a record until it is killed: `python -m tests.dying_sweep URL PAUSE_S`."""

import sys
import time

from service.store.sql_store import SqlStore
from tests.sweeping import LEASE, sweeps_of
from tests.world import START, World


def main(url: str, pause_s: float) -> None:
    """Say after each block how many references are done."""
    store = SqlStore(url, lambda: START)
    world = World.beside(store)
    sweeps = sweeps_of(world, block_size=20)
    (waiting,) = sweeps.unfinished()
    sweep = sweeps.take(waiting, LEASE)
    while sweep is not None and not sweep.state.has_ended:
        sweep = sweeps.advance(sweep, LEASE)
        if sweep is not None:
            print(sweep.done, flush=True)
        time.sleep(pause_s)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
