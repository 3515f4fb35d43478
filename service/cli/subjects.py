"""`biodedup subject`: what is held of one person."""

import json
from pathlib import Path
from typing import Annotated

import typer
from jinja2 import Environment, PackageLoader, StrictUndefined

from service.cli.client import DEFAULT_URL, GalleryOption, ServiceClient, UrlOption, gallery_path
from service.cli.failures import CommandFailed
from service.cli.show import console, plain

SubjectArgument = Annotated[str, typer.Argument(metavar="SUBJECT", help="The subject's id.", show_default=False)]
FolderOption = Annotated[
    Path, typer.Option("--out", help="Folder for the two files.", file_okay=False, show_default=True)
]

subject_commands = typer.Typer(
    no_args_is_help=True,
    help="See what is held of one person, and who looked.\n\n"
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
            (out / f"{stem}{suffix}").write_text(content, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"{plain(out)} cannot be written", "source_unreadable") from error
    console().print(
        f"{len(found['encounters']):,} encounters, {len(found['cases']):,} cases and {len(found['looks']):,} looks: "
        f"{plain(out / stem)}.json and .html"
    )


def page_of(found: dict[str, object]) -> str:
    """Return an access report, as the service answered it, as a page."""
    environment = Environment(
        loader=PackageLoader("service.cli", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("access_report.html").render(report=found)
