"""`biodedup keys`: which master key wraps the keys of the galleries, and its rotation."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import httpx
import typer

from service.cli.client import DEFAULT_URL, Json, ServiceClient, UrlOption
from service.cli.failures import CommandFailed
from service.cli.show import console, plain, table
from service.settings import load_settings
from service.var_lock import refuse_owned

_UNTIL_DONE = httpx.Timeout(None, connect=5.0)  # a token or a server wraps each key of thousands of galleries

keys_commands = typer.Typer(
    no_args_is_help=True,
    help="Look after the keys of the encryption at rest. The master key wraps a key of each gallery, this "
    "one of each subject; docs/encryption.md says where each is kept and what to back up.\n\n"
    "Example: biodedup keys status\n\n"
    "Exit codes: 0 done, 1 refused by the service or no service, 2 wrong usage.",
)


@keys_commands.command("status")
def show_keys(url: UrlOption = DEFAULT_URL) -> None:
    """Show the name of the master key that wraps now, and how many gallery keys each master key has wrapped.

    A name tells keys apart and gives nothing of them away. Two of them mean that a rotation was interrupted:
    `biodedup keys rotate` finishes it.

    Example: biodedup keys status

    Exit codes: 0 shown, 1 no service, or the master key does not answer, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        _print_keys(client.get("/v1/keys"))


@keys_commands.command("rotate")
def rotate_keys(url: UrlOption = DEFAULT_URL) -> None:
    """Wrap every gallery key under a new master key. Enrolments and searches go on meanwhile.

    A file, a token and a transit engine draw the new key by themselves. For a key in the environment, first start the
    service with BIODEDUP_NEXT_MASTER_KEY; after the rotation, start it with the new key as BIODEDUP_MASTER_KEY alone.
    Back the new key up before you delete the old one. Old backups of the key store need the old one.

    Example: biodedup keys rotate

    Exit codes: 0 rotated: no key is under the old one, 1 refused or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        done = client.send("POST", "/v1/keys/rotations", timeout=_UNTIL_DONE)
    console().print(f"{done['rewrapped']:,} gallery keys are wrapped anew. Back up the new master key now.")
    _print_keys(done)


@keys_commands.command("backup")
def backup_keys(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the backups.", show_default=False)],
) -> None:
    """Write a copy of the key store into a folder, and delete copies there that become too old.

    The service may run meanwhile; SQLite or PostgreSQL, the copy is a file of SQLite with its date in the name. It
    holds wrapped keys: nobody opens them without the master key, and whoever was erased is gone from the next one on.
    A copy is deleted two days before it is BIODEDUP_KEY_BACKUP_DAYS old, so run this once a day: receipts of erasures
    print that date. Never put the copies into a backup of the record. It reads the settings of the service.

    Example: biodedup keys backup /backup/keys

    Exit codes: 0 written, 1 no key store, or the folder is unfit, 2 wrong usage.
    """
    from service.app import keys_folder, keys_url  # noqa: PLC0415  (imports onnxruntime and faiss: a second)
    from service.key_backups import delete_old, write_backup  # noqa: PLC0415  (slow to import)

    settings = load_settings(os.environ)
    var = keys_folder(settings).resolve()
    if folder.resolve().is_relative_to(var):
        raise CommandFailed(
            "backups of the keys must not lie in the folder of the record",
            "folder_unfit",
            advice="Name a folder on another disk: who copies the record must not copy its keys.",
        )
    now = datetime.now(UTC)
    gone = []
    try:
        path, count = write_backup(keys_url(settings), folder, now)
    finally:
        if folder.is_dir():  # also where no new one could be written: receipts say when the old ones end
            gone = delete_old(folder, now, timedelta(days=settings.key_backup_days))
    console().print(f"{count:,} subject keys are in {plain(path)}; {len(gone):,} older copies were deleted.")


@keys_commands.command("restore")
def restore_keys(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A copy of the key store.", exists=True, dir_okay=False)],
) -> None:
    """Put a copy of the key store where the settings say that the key store is; there must be none yet.

    Take the newest one: the record is refused by a key store that lacks the keys of people who came since. Whoever was
    erased since is erased again at the next start, by the ledger. The service must be stopped.

    Example: biodedup keys restore /backup/keys/biodedup-keys-20260301T020000Z.sqlite

    Exit codes: 0 restored, 1 there is a key store already, or the file is none, 2 wrong usage.
    """
    from service.app import keys_folder, keys_url  # noqa: PLC0415  (imports onnxruntime and faiss: a second)
    from service.store.key_copies import copy_keys, sqlite_url  # noqa: PLC0415  (slow to import)

    settings = load_settings(os.environ)
    refuse_owned(keys_folder(settings))
    os.umask(0o077)  # the new file is for its owner only
    count = copy_keys(sqlite_url(file), keys_url(settings))
    console().print(f"{count:,} subject keys are restored. `biodedup serve` compares them with the ledger of erasures.")


def _print_keys(keys: Json) -> None:
    newest = keys["master_key_id"]
    rows = [
        [plain(key_id), f"{count:,}", "wraps now" if key_id == newest else "a rotation was interrupted"]
        for key_id, count in {newest: 0, **keys["gallery_keys"]}.items()
    ]
    console().print(table("Master keys", ["name", "gallery keys", ""], rows))
