"""`biodedup receipts`: whether a receipt of an erasure is as it was signed."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.client import DEFAULT_URL, ServiceClient, UrlOption
from service.cli.failures import CommandFailed
from service.cli.show import console, plain, table
from service.receipts import verified
from service.signing import PublicKey

receipt_commands = typer.Typer(
    no_args_is_help=True,
    help="Verify receipts of erasures. docs/erasure.md says what stands in one, and what it promises.\n\n"
    "Example: biodedup receipts verify receipt.json --public-key receipts.pem\n\n"
    "Exit codes: 0 done, 1 changed, refused or no service, 2 wrong usage.",
)

ReceiptFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="A receipt, as the service sent it.", exists=True, dir_okay=False),
]


@receipt_commands.command("verify")
def verify_receipt(
    file: ReceiptFile,
    public_key: Annotated[
        Path | None,
        typer.Option("--public-key", metavar="FILE", help="The key (PEM); else the service is asked.", exists=True),
    ] = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Verify that a receipt was signed by the service and that not one byte of it was changed since.

    With --public-key nothing is asked of anybody: give that file to whom the receipts are for. Without it the running
    service says which key is its own.

    Example: biodedup receipts verify receipt.json --public-key receipts.pem

    Exit codes: 0 as it was signed, 1 changed, signed by another key, or no service, 2 wrong usage.
    """
    receipt = _read(file)
    if public_key is None:
        with ServiceClient(url) as client:
            pem = str(client.get("/v1/receipts/public-key")["pem"])
    else:
        pem = _read(public_key).decode(errors="replace")
    try:
        key = PublicKey.from_pem(pem)
    except ValueError as error:
        raise CommandFailed(f"{plain(public_key or url)}: {error}", "source_unreadable") from error
    found = verified(receipt, key)
    rows = [[name, plain(found[name])] for name in ("subject_id", "gallery_id", "erased_at", "compacted_by")]
    rows += [["backups of keys until", plain(found["key_backups_until"])], ["receipt", plain(found["receipt_id"])]]
    rows += [[name.replace("_", " "), f"{count:,}"] for name, count in found["parts"].items()]
    console().print(table("As it was signed", ["what", "erased"], rows))


@receipt_commands.command("public-key")
def show_public_key(url: UrlOption = DEFAULT_URL) -> None:
    """Print the key that verifies receipts (PEM). Give it to whom the receipts are for, on a way that they trust.

    Example: biodedup receipts public-key > receipts.pem

    Exit codes: 0 printed, 1 no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        typer.echo(client.get("/v1/receipts/public-key")["pem"], nl=False)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandFailed(f"{plain(path)} cannot be read", "source_unreadable") from error
