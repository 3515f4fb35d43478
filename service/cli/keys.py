"""`biodedup keys`: which master key wraps the keys of the galleries, and its rotation."""

import httpx
import typer

from service.cli.client import DEFAULT_URL, Json, ServiceClient, UrlOption
from service.cli.show import console, plain, table

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


def _print_keys(keys: Json) -> None:
    newest = keys["master_key_id"]
    rows = [
        [plain(key_id), f"{count:,}", "wraps now" if key_id == newest else "a rotation was interrupted"]
        for key_id, count in {newest: 0, **keys["gallery_keys"]}.items()
    ]
    console().print(table("Master keys", ["name", "gallery keys", ""], rows))
