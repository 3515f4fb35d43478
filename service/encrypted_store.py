"""Opens the record together with its keys: both belong together, or nothing is opened and nothing is written."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from service.audit_chain import AuditEvent
from service.erasure_ledger import ErasureLedger
from service.erasure_replay import replay
from service.errors import KeysMissing
from service.key_ring import KeyRing
from service.ports import MasterKey
from service.store.key_store import SqlKeyStore
from service.store.sql_store import SqlStore

KEYS_FOLDER, KEYS_FILE = "keys", "keys.sqlite"

Progress = Callable[[int, int], None]
"""Told how many subjects of how many are encrypted."""


def key_store_url(key_database_url: str | None, folder: Path) -> str:
    """Return the address of the key store: as it was set, or in the folder of the service."""
    return key_database_url or f"sqlite:///{folder / KEYS_FOLDER / KEYS_FILE}"


def open_encrypted(
    record_url: str,
    keys_url: str,
    open_master_key: Callable[[bool], MasterKey],
    held: ExitStack,
    *,
    ledger: ErasureLedger,
    on_adopted: Callable[[], None] = lambda: None,
    on_progress: Progress = lambda _done, _total: None,
    on_entry: Callable[[AuditEvent], None] = lambda _: None,
    on_replayed: Callable[[], None] = lambda: None,
) -> tuple[SqlStore, KeyRing]:
    """Open the record and its key store, migrate both, and encrypt what an earlier version wrote.

    Args:
        record_url: of the record.
        keys_url: of the key store; another database.
        open_master_key: told whether a new one may be made: only while nothing is wrapped by one.
        held: gives both back when it is closed.
        ledger: of the erasures: what it has and a restore brought back is erased again.
        on_adopted: called before the record is encrypted for the first time.
        on_entry: told of each entry of the audit trail.
        on_progress: told how far the encryption of an earlier version's record is.
        on_replayed: told of each subject that is erased again.

    Raises:
        LedgerCorrupt: nobody can tell whom a restore brought back.
        KeysMissing, MasterKeyUnusable: the keys of this record are not here.
        StoreUnavailable, SettingsInvalid, VarUnusable
    """
    if keys_url == record_url:
        raise KeysMissing("the key store must be another database than the record: one backup would hold both")
    lines = ledger.read()  # one that cannot be read stops the start before anything is written
    with closing(SqlStore(record_url)) as record:
        record.migrate()
        known = record.key_store_id()
    keys = SqlKeyStore(keys_url, may_create=known is None)
    held.callback(keys.close)
    _expect_store(keys, known)
    ring = KeyRing(keys, open_master_key(not keys.gallery_keys()))
    held.callback(ring.close)
    ring.check()
    ring.announce()
    store = SqlStore(record_url, cipher=ring, on_entry=on_entry, on_erased=ledger.append)
    held.callback(store.close)
    if known is None:
        on_adopted()
    store.adopt_key_store(ring.store_id)
    replay(store, keys, ledger, lines, on_replayed)
    store.finish_erasures()
    store.encrypt_earlier(on_progress)
    return store, ring


def check_keys(keys_url: str, open_master_key: Callable[[bool], MasterKey], known: str | None) -> None:
    """Look whether a start would find the keys of a record, and write nothing.

    Args:
        keys_url, open_master_key: as for `open_encrypted`.
        known: the key store that the record remembers; None: a start makes what is missing.

    Raises:
        KeysMissing, MasterKeyUnusable, StoreUnavailable, SettingsInvalid
    """
    if known is None:
        return
    with closing(SqlKeyStore(keys_url, may_create=False)) as keys:
        _expect_store(keys, known)
        if not keys.gallery_keys():
            return
        may_create = False
        master_key = open_master_key(may_create)
        try:
            KeyRing(keys, master_key).check()
        finally:
            master_key.close()


def _expect_store(keys: SqlKeyStore, known: str | None) -> None:
    if known not in {None, keys.store_id}:
        raise KeysMissing(
            "this key store is another record's: point BIODEDUP_KEY_DATABASE_URL to the one that this record was "
            "encrypted with; nothing was written"
        )
