"""After a restore: whoever was erased since the backup was made is erased again, before anything is answered."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime

from service.erasure_ledger import ErasureLedger, LedgerLine
from service.logs import log_event
from service.ports import KeyStore
from service.store.sql_store import SqlStore

_BETWEEN_TELLS = 500  # people: some seconds

_log = logging.getLogger(__name__)


def replay(
    store: SqlStore,
    keys: KeyStore,
    ledger: ErasureLedger,
    lines: dict[str, LedgerLine],
    on_replayed: Callable[[], None],
) -> None:
    """Compare the ledger with record and key store by the ids of keys, and erase what came back.

    The ledger also gets what it lacks of the keys that were destroyed, so that either of the two can be lost. Of
    several processes that start at once one does it, and the others wait.

    Args:
        store: of the record, migrated and with its keys.
        keys: its key store.
        ledger: of all erasures.
        lines: what it holds, by key.
        on_replayed: told of each subject that is erased again.

    Raises:
        StoreUnavailable, VarUnusable
    """
    with store.replaying():
        destroyed = keys.all_destroyed()
        lines = _completed(ledger, lines, destroyed)
        returned = store.subjects_under(lines)
        records = [line.record for line in lines.values() if line.record is not None]
        if returned or store.lacking_erasures(records):
            _begin_another_history(store)
        for done, (gallery_id, subject_id, key_id) in enumerate(returned):
            if done % _BETWEEN_TELLS == 0:
                log_event(_log, "erasure.replaying", level=logging.WARNING, done=done, total=len(returned))
            store.erase_again(gallery_id, subject_id, lines[key_id])
            on_replayed()
        # and who was enrolled and erased after the backup: a repeat of that request must not erase who has the id now
        store.restore_erasures(records)
        store.finish_erasures()
        undone = [key_id for key_id in lines if key_id not in destroyed]
        if undone:
            keys.destroy(undone)
    if returned or undone:
        log_event(_log, "erasure.replayed", level=logging.WARNING, done=len(returned), total=len(lines))


def _completed(
    ledger: ErasureLedger, lines: dict[str, LedgerLine], destroyed: Mapping[str, datetime]
) -> dict[str, LedgerLine]:
    """Return the lines of the ledger, with those that it lacked of destroyed keys; they are written into it."""
    if not destroyed.keys() <= lines.keys():
        lines = ledger.read()  # another process may have erased since, and written its line before
    lacking = [LedgerLine(key_id, when) for key_id, when in destroyed.items() if key_id not in lines]
    if lacking:
        ledger.append(lacking)
        log_event(_log, "ledger.completed", count=len(lacking))
    return lines | {line.key_id: line for line in lacking}


def _begin_another_history(store: SqlStore) -> None:
    """An older record was restored: trust nothing that may have gone further than it."""
    # indexes must not be taken for some of this history. First, so that a start that is stopped in between leaves
    # nothing by which the restore would not be known again
    store.renew_timelines()
    # whoever confirmed a run did not know of the holds and rules that are lost now
    withdrawn = store.retention_runs.withdraw()
    log_event(_log, "retention.withdrawn", level=logging.WARNING, count=withdrawn)
