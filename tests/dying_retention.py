"""A process that acts on a retention report until it is killed: `python -m tests.dying_retention URL NOW PAUSE_S`."""

import sys
import time
from datetime import datetime

from service.domain import Lease
from service.retention import RetentionService
from service.retention_rule import RetentionItem, RetentionRun
from service.store.sql_store import SqlStore
from tests.retaining import LEASE
from tests.world import World


class Telling(RetentionService):
    """Says after each line how many are done, and makes a pause."""

    pause_s = 0.0

    def _deal_with(self, job: RetentionRun, line: RetentionItem, lease: Lease) -> None:
        super()._deal_with(job, line, lease)
        print(self._runs.run(job).done, flush=True)
        time.sleep(self.pause_s)


def main(url: str, now: str, pause_s: float) -> None:
    store = SqlStore(url, lambda: datetime.fromisoformat(now))
    world = World.beside(store)
    retention = Telling(store.retention, store.retention_runs, world.erasure, world.metrics, store._clock)
    retention.pause_s = pause_s
    (waiting,) = retention.unfinished()
    run = retention.take(waiting, LEASE)
    while run is not None and run.needs_work:
        run = retention.advance(run, LEASE)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
