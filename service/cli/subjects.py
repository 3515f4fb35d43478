"""`biodedup subject`: what is held of one person, and its erasure."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from jinja2 import Environment, PackageLoader, StrictUndefined

from service import errors
from service.cli.client import DEFAULT_URL, GalleryOption, ServiceClient, UrlOption, gallery_path
from service.cli.failures import CommandFailed
from service.cli.show import console, for_owner, plain, warn

SubjectArgument = Annotated[str, typer.Argument(metavar="SUBJECT", help="The subject's id.", show_default=False)]
FolderOption = Annotated[
    Path, typer.Option("--out", help="Folder for the two files.", file_okay=False, show_default=True)
]

_REFUSED = {
    each.code
    for each in (
        errors.GalleryNotFound,
        errors.SubjectNotFound,
        errors.IdempotencyKeyReused,
        errors.InvalidRequest,
        errors.Unauthenticated,
        errors.Forbidden,
    )
}

subject_commands = typer.Typer(
    no_args_is_help=True,
    help="See what is held of one person, and who looked; erase it.\n\n"
    "Example: biodedup subject report P-1041 --gallery camp --out reports\n\n"
    "Exit codes: 0 done, 1 no such person, refused or no service, 2 wrong usage.",
)


@subject_commands.command("report")
def report(
    subject: SubjectArgument,
    gallery: GalleryOption = "default",
    out: FolderOption = Path(),
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Write a person's own access report: everything held of them, and everyone who looked.

    Two files: JSON for machines, and HTML to print and hand over. No template and no other person's identifier is in
    them. That the report was made becomes an entry of the audit trail.

    Example: biodedup subject report P-1041 --gallery camp --out reports

    Exit codes: 0 written, 1 no such person, refused or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        found = client.get(gallery_path(gallery, "subjects", subject, "access-report"))
    # ids have no separator of folders in them, and could be called like a device
    stem = f"access-report-{subject}".replace(":", "_")
    pages = {".json": json.dumps(found, indent=2, ensure_ascii=False) + "\n", ".html": page_of(found)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for suffix, content in pages.items():
            with open(out / f"{stem}{suffix}", "w", encoding="utf-8", opener=for_owner) as file:
                file.write(content)
    except OSError as error:
        raise CommandFailed(f"{plain(out)} cannot be written", "source_unreadable") from error
    console().print(
        f"Written to {plain(out / stem)}.json and .html: encounters {len(found['encounters']):,}, cases "
        f"{len(found['cases']):,}, looks {len(found['looks']):,}."
    )


@subject_commands.command("erase")
def erase(
    subject: SubjectArgument,
    receipt: Annotated[
        Path, typer.Option("--receipt", metavar="FILE", help="Where the signed receipt goes.", dir_okay=False)
    ],
    gallery: GalleryOption = "default",
    *,
    key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="Of an earlier try whose answer was lost: its receipt comes again."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Erase all that is held of a person: record, samples, templates, place in the index, data key. It is final.

    The signed receipt goes into a file: the service keeps nothing of which it could be made again, so keep it. An
    answer that is lost on the way is asked for again with the same key, and the receipt is the same.

    Example: biodedup subject erase P-1041 --gallery camp --receipt P-1041.json

    Exit codes: 0 erased, 1 no such person, refused, no service or not confirmed, 2 wrong usage.
    """
    if receipt.exists():
        raise CommandFailed(f"{plain(receipt)} is there already", "report_unwritable", advice="Name another file.")
    if not yes and not typer.confirm(f"Erase {subject} in {gallery}? Nothing brings it back."):
        raise typer.Exit(1)
    chosen = key or str(uuid.uuid4())
    with ServiceClient(url) as client, _kept(receipt) as file:
        try:
            file.write(client.erase(gallery_path(gallery, "subjects", subject), chosen))
            file.flush()
        except CommandFailed as failure:
            if failure.code == errors.LegalHold.code:
                failure.advice = "A supervisor lifts it: biodedup retention lift --help"
            elif failure.code not in _REFUSED:  # it may have been done all the same
                failure.advice = f"To ask again for the same receipt: --idempotency-key {chosen}"
            raise
        except (OSError, KeyboardInterrupt):
            # a full disk, Ctrl-C: the person may be erased, and the receipt is not here
            warn([f"to ask for the receipt again: --idempotency-key {chosen}"])
            raise
    console().print(f"{plain(subject)} is erased. The receipt is in {plain(receipt)}")


@contextmanager
def _kept(path: Path) -> Iterator[BinaryIO]:
    """Give a new file to write, before anything is erased; an empty one is left by nobody. Raises CommandFailed."""
    try:
        with open(path, "xb", opener=for_owner) as file:
            yield file
    except OSError as error:
        raise CommandFailed(f"{plain(path)} cannot be written", "report_unwritable") from error
    finally:
        if path.exists() and path.stat().st_size == 0:
            path.unlink()


def page_of(found: dict[str, object]) -> str:
    """Return an access report, as the service answered it, as a page."""
    environment = Environment(
        loader=PackageLoader("service.cli", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("access_report.html").render(report=found)
