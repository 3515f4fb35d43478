"""The command line `biodedup`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from service.cli.agreements import agreement_commands
from service.cli.audit import audit_commands
from service.cli.calibrate import calibrate
from service.cli.calibrations import calibration_commands
from service.cli.checks import check
from service.cli.client import CA_FILE, key_file
from service.cli.clients import client_commands
from service.cli.enrol import enrol
from service.cli.evaluate import evaluate
from service.cli.faces import identify, verify
from service.cli.failures import CommandGroup
from service.cli.galleries import gallery_commands, stats
from service.cli.importing import import_templates
from service.cli.index import index_commands
from service.cli.keys import keys_commands
from service.cli.migrating import migrate_commands
from service.cli.packs import models_commands
from service.cli.plan import plan
from service.cli.receipts import receipt_commands
from service.cli.retention import retention_commands
from service.cli.serving import run_service
from service.cli.subjects import subject_commands
from service.settings import load_settings

commands = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    # its tables cut off the names of long options in a terminal of 80 columns
    rich_markup_mode=None,
    # a traceback shows local variables, and those hold photographs and scores
    pretty_exceptions_enable=False,
    help="Open face deduplication: send a face, learn whether the person is already enrolled.\n\n"
    "Start with `biodedup models fetch opencv-zoo` and `biodedup serve`; then, in another terminal, "
    "`biodedup enrol DIR` and `biodedup stats`.\n\n"
    "Exit codes: 0 done, 1 refused or failed (standard error says why), 2 wrong usage.",
)


@commands.callback()
def biodedup(
    file: Annotated[
        Path | None,
        typer.Option("--key-file", metavar="FILE", help="File with the API key; else it is in BIODEDUP_API_KEY."),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            "--ca-file",
            metavar="FILE",
            help="Certificates (PEM) to trust when the service is reached by https; else BIODEDUP_CA_FILE.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
) -> None:
    """Take what stands before the command."""
    key_file.set(file)
    if ca_file is not None:
        os.environ[CA_FILE] = str(ca_file)


@commands.command()
def serve() -> None:
    """Run the service until Ctrl-C or SIGTERM; accepted requests are finished first.

    It listens on this machine only (127.0.0.1:8000). BIODEDUP_PORT and BIODEDUP_HOST change that; docs/settings.md
    has every setting. Every request needs an API key; the first start makes one and shows it once. Its log is JSON,
    one line an event, on standard error.

    Example: BIODEDUP_PORT=8001 biodedup serve

    Exit codes: 0 stopped on request, 1 could not start (settings, port, model pack, folder in use), 2 wrong usage.
    """
    run_service(load_settings(os.environ))


@commands.command("export-openapi")
def export_openapi_document() -> None:
    """Print the description of the HTTP API (OpenAPI 3, YAML). It needs no models and no database.

    Example: biodedup export-openapi > openapi.yaml

    Exit codes: 0 done, 2 wrong usage.
    """
    from service.app import export_openapi  # noqa: PLC0415  (imports onnxruntime and faiss: a second)

    typer.echo(export_openapi(), nl=False)


@commands.command("export-access")
def export_access_page() -> None:
    """Print the page on who may call what (Markdown). It needs no models and no database.

    Example: biodedup export-access > docs/access.md

    Exit codes: 0 done, 2 wrong usage.
    """
    from service.cli.access_page import access_page  # noqa: PLC0415  (only this command needs the table)

    typer.echo(access_page(), nl=False)


commands.command()(enrol)
commands.command("import-templates")(import_templates)
commands.command()(identify)
commands.command()(verify)
commands.command()(stats)
commands.command()(evaluate)
commands.command()(calibrate)
commands.command()(plan)
commands.command()(check)
models_commands.add_typer(migrate_commands, name="migrate", cls=CommandGroup)
commands.add_typer(models_commands, name="models", cls=CommandGroup)
commands.add_typer(client_commands, name="clients", cls=CommandGroup)
commands.add_typer(gallery_commands, name="gallery", cls=CommandGroup)
commands.add_typer(calibration_commands, name="calibrations", cls=CommandGroup)
commands.add_typer(agreement_commands, name="agreements", cls=CommandGroup)
commands.add_typer(index_commands, name="index", cls=CommandGroup)
commands.add_typer(keys_commands, name="keys", cls=CommandGroup)
commands.add_typer(subject_commands, name="subject", cls=CommandGroup)
commands.add_typer(retention_commands, name="retention", cls=CommandGroup)
commands.add_typer(receipt_commands, name="receipts", cls=CommandGroup)
commands.add_typer(audit_commands, name="audit", cls=CommandGroup)


def main() -> None:
    """Entry point of the `biodedup` script."""
    commands(prog_name="biodedup")


if __name__ == "__main__":
    main()
