"""`biodedup serve` with parts of it switched off, to measure what they cost. No setting switches off the last two.

Example: python -m benchmarks.bare_service encryption
"""

import os
import sys
from contextlib import ExitStack
from functools import partial
from typing import Any

import service.app
from service import encrypted_store
from service.cli.serving import run_service
from service.key_ring import KeyRing
from service.settings import load_settings
from service.store.key_store import SqlKeyStore
from service.store.sql_store import SqlStore


def switch_off(part: str) -> None:
    """Raises KeyError: there is no such part."""
    _SWITCHES[part]()


def _without_encryption() -> None:
    """Have the record opened without keys; the index keeps its encrypted files, as it had them before."""

    def open_plain(
        record_url: str, keys_url: str, open_master_key: Any, held: ExitStack, **_: Any
    ) -> tuple[SqlStore, KeyRing]:
        keys = SqlKeyStore(keys_url)
        held.callback(keys.close)
        ring = KeyRing(keys, open_master_key(not keys.gallery_keys()))
        store = encrypted_store.SqlStore(record_url)  # type: ignore[attr-defined]  # perhaps the one without audit
        held.callback(store.close)
        store.migrate()
        return store, ring

    vars(service.app)["open_encrypted"] = open_plain


def _without_audit() -> None:
    vars(encrypted_store)["SqlStore"] = partial(SqlStore, is_audited=False)


def _without_authentication() -> None:
    os.environ["BIODEDUP_AUTH"] = "off"


def _without_limits() -> None:
    for counted in ("REQUESTS", "SEARCHES", "MIB"):
        os.environ[f"BIODEDUP_LIMIT_{counted}_PER_MINUTE"] = "0"


_SWITCHES = {
    "authentication": _without_authentication,
    "limits": _without_limits,
    "encryption": _without_encryption,
    "audit": _without_audit,
}
PARTS = tuple(_SWITCHES)


if __name__ == "__main__":
    for part in sys.argv[1:]:
        switch_off(part)
    run_service(load_settings(os.environ))
