"""Opens the record itself, for commands that write too much for HTTP. No service may run on the same folder."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.failures import CommandFailed
from service.settings import Settings
from service.var_lock import VarLock, refuse_owned

if TYPE_CHECKING:
    from service.store.sql_store import SqlStore


@contextmanager
def open_record(settings: Settings) -> Iterator["SqlStore"]:
    """Open the record of the settings as its owner; leave it when the block ends.

    Raises:
        VarInUse, VarUnusable: a service runs on the folder, or it cannot be used.
        StoreUnavailable, SettingsInvalid, KeysUnusable
        CommandFailed: there is no record yet, or it is of an older version.
    """
    from service.app import database_url, keys_folder, keys_url, ledger_folder, local_folder, master_key_source  # noqa: PLC0415  (imports onnxruntime and faiss: a second)
    from service.encrypted_store import open_encrypted  # noqa: PLC0415  (slow to import)
    from service.erasure_ledger import ErasureLedger  # noqa: PLC0415  (slow to import)
    from service.store.sql_store import SqlStore  # noqa: PLC0415  (slow to import)

    url, folder = database_url(settings), local_folder(settings)
    if folder is not None and not Path(url.partition(":///")[2]).is_file():
        refuse_owned(folder)
        raise _unprepared("there is no record yet")
    lock = VarLock(folder, None) if folder is not None else None
    try:
        with closing(SqlStore(url)) as record:
            if not record.is_migrated():
                raise _unprepared("the record was made by another version")
        with ExitStack() as held:
            master_key = master_key_source(settings).opener(keys_folder(settings))
            ledger = ErasureLedger(ledger_folder(settings))
            yield open_encrypted(url, keys_url(settings), master_key, held, ledger=ledger)[0]
    finally:
        if lock is not None:
            lock.release()


def _unprepared(message: str) -> CommandFailed:
    return CommandFailed(
        message,
        "record_not_ready",
        advice="Start `biodedup serve` once, make the gallery with `biodedup gallery create`, and stop it again.",
    )
