"""Moves SQLite's write-ahead log into the database beside the requests, not inside one of them."""

import threading
from contextlib import closing, suppress
from sqlite3 import OperationalError

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

# by itself SQLite does it within every sixtieth enrolment: all others waited for that commit, a tenth of their time
COMMITS_BETWEEN = 600  # about 50 MB of log: a page that several commits changed is moved once
_PATIENCE_MS = 50  # of the last step for readers of older states, while writers wait; then the log grows on for a while


class Checkpoints:
    """Counts the commits of one SQLite engine and empties its log now and then, on a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._commits = 0
        self._thread: threading.Thread | None = None

    def committed(self) -> None:
        """Count a commit; called with the writers' lock held."""
        self._commits += 1
        if self._commits >= COMMITS_BETWEEN and (self._thread is None or not self._thread.is_alive()):
            self._commits = 0
            self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait for the one that runs."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        # a log that cannot be moved now is moved next time: nothing is lost by it, and SQLite itself has a limit too
        with suppress(OperationalError, SQLAlchemyError), closing(self._engine.raw_connection()) as connection:
            cursor = connection.cursor()
            # the bulk while others write, then what they wrote meanwhile, then the rest with the writers held back, so
            # that the log can begin anew instead of growing for ever
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
            cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
            previous = cursor.execute("PRAGMA busy_timeout").fetchone()[0]
            cursor.execute(f"PRAGMA busy_timeout={_PATIENCE_MS}")
            try:
                cursor.execute("PRAGMA wal_checkpoint(RESTART)")
            finally:
                cursor.execute(f"PRAGMA busy_timeout={previous}")
