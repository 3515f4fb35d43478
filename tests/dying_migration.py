"""A process that makes the templates of a migration until it is killed: `python -m tests.dying_migration URL PAUSE`."""

import sys
import time

from service.store.sql_store import SqlStore
from tests.migrating import LEASE, making_of, two_packs
from tests.world import START, World


def main(url: str, pause_s: float) -> None:
    """Say after each block how many samples were looked at, or templates deleted."""
    store = SqlStore(url, lambda: START)
    world = World.beside(store, two_packs())
    making = making_of(world)
    (waiting,) = making.unfinished()
    migration = making.take(waiting, LEASE)
    while migration is not None and migration.needs_work:
        migration = making.advance(migration, LEASE)
        if migration is not None:
            print(migration.done, flush=True)
        time.sleep(pause_s)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
