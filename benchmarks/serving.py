"""`biodedup serve` with a part switched off, to measure what it costs: `python -m benchmarks.serving audit`.

No setting can do this: a service that people use always has all its parts.
"""

import os
import sys
from functools import partial

from service import encrypted_store
from service.cli.serving import run_service
from service.settings import load_settings
from service.store.sql_store import SqlStore

PARTS = ("audit",)


def main() -> None:
    """Switch off the parts that the command line names, and serve."""
    unknown = set(sys.argv[1:]) - set(PARTS)
    if unknown:
        sys.exit(f"error: the parts that can be switched off are {', '.join(PARTS)}")
    if "audit" in sys.argv[1:]:
        encrypted_store.SqlStore = partial(SqlStore, is_audited=False)  # type: ignore[assignment, attr-defined]  # on purpose
    run_service(load_settings(os.environ))


if __name__ == "__main__":
    main()
