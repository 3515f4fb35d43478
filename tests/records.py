"""The record of a service that was started on a folder, opened beside it with its keys."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from service.encrypted_store import key_store_url, open_encrypted
from service.erasure_ledger import ErasureLedger
from service.keys.sources import MasterKeySource
from service.store.sql_store import SqlStore


@contextmanager
def record_of(var_dir: Path, url: str | None = None) -> Iterator[SqlStore]:
    """Open the record in `var_dir`, or at `url`; the keys are in the folder."""
    with ExitStack() as held:
        record_url = url or f"sqlite:///{var_dir}/biodedup.sqlite"
        master_key = MasterKeySource().opener(var_dir)
        ledger = ErasureLedger(var_dir / "ledger")
        yield open_encrypted(record_url, key_store_url(None, var_dir), master_key, held, ledger=ledger)[0]
