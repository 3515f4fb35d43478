"""`biodedup index`: what a gallery's index consists of, whether it is right, and making it anew."""

from typing import Annotated

import httpx
import typer

from service.cli.client import DEFAULT_URL, Json, ServiceClient, UrlOption, gallery_path
from service.cli.show import console, plain, table
from service.decision import percent

GalleryArgument = Annotated[str, typer.Argument(metavar="[GALLERY]", help="Name of the gallery.")]

_UNTIL_DONE = httpx.Timeout(None, connect=5.0)  # millions of templates take minutes
_STEPS = ("B", "KiB", "MiB", "GiB")

index_commands = typer.Typer(
    no_args_is_help=True,
    help="Look after the index of a gallery: the copy of its templates that is searched. The record is the truth; an "
    "index can be thrown away and filled from it at any time.\n\nExample: biodedup index status default\n\n"
    "Exit codes: 0 done, 1 refused by the service, no service or a difference found, 2 wrong usage.",
)


@index_commands.command("status")
def show_index(gallery: GalleryArgument = "default", url: UrlOption = DEFAULT_URL) -> None:
    """Show the parts of an index, what they take in memory and on disk, and whether it is in step with the record.

    New templates go to the open part, which is compared in full. Every 16,384 of them are sealed: codes find the
    candidates and the templates themselves give the scores. "Removed" are places of erased templates, overwritten in
    memory at once, that `biodedup index compact` gives back.

    Example: biodedup index status default

    Exit codes: 0 shown, 1 no such gallery or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        _print_index(client.get(gallery_path(gallery, "index")))


@index_commands.command("verify")
def verify_index(gallery: GalleryArgument = "default", url: UrlOption = DEFAULT_URL) -> None:
    """Compare an index with the record, template by template and byte for byte.

    Searches and enrolments go on meanwhile. An index that differs is thrown away, and the next search fills it from the
    record: run `biodedup index verify` once more afterwards, and look at the memory and the disk of the machine.

    Example: biodedup index verify default

    Exit codes: 0 index and record are the same, 1 they differ (or no such gallery, no service), 2 wrong usage.
    """
    with ServiceClient(url) as client:
        found = _post(client, gallery, "verifications")
    rows = [
        ["templates of the record", f"{found['compared']:,}"],
        ["missing in the index", f"{found['missing']:,}"],
        ["only in the index", f"{found['surplus']:,}"],
        ["with other bytes", f"{found['different']:,}"],
        ["at the same change", "yes" if found["in_step"] else "no"],
    ]
    out = console()
    out.print(table(f"Index and record of {plain(gallery)}", ["what", "now"], rows))
    if found["result"] != "ok":
        out.print("[red]They differ.[/red] The index was thrown away; the next search fills it from the record.")
        raise typer.Exit(1)
    out.print("[green]The same.[/green]")


@index_commands.command("rebuild")
def rebuild_index(gallery: GalleryArgument = "default", url: UrlOption = DEFAULT_URL) -> None:
    """Throw an index and its files away and fill it from the record.

    Requests to this gallery wait until it is filled: seconds for 100,000 templates, minutes for millions. It is hardly
    ever needed: the service does it by itself where an index is damaged or differs from the record.

    Example: biodedup index rebuild default

    Exit codes: 0 filled, 1 no such gallery or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        _print_index(_post(client, gallery, "rebuilds"))


@index_commands.command("compact")
def compact_index(gallery: GalleryArgument = "default", url: UrlOption = DEFAULT_URL) -> None:
    """Leave nothing of erased templates in an index, neither in memory nor in its files.

    Who was erased is in no answer from that moment on. What is left is a coarse code in memory, and what encrypted
    files hold; both go by themselves once a tenth of a part was removed, and with this command at once. Searches and
    enrolments go on meanwhile.

    Example: biodedup index compact default

    Exit codes: 0 done, 1 no such gallery, no service or no room on the disk, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        _print_index(_post(client, gallery, "compactions"))


def _post(client: ServiceClient, gallery: str, what: str) -> Json:
    return client.send("POST", gallery_path(gallery, "index", what), timeout=_UNTIL_DONE)


def _print_index(index: Json) -> None:
    _print_one(index)
    if index["standby"] is not None:  # the gallery changes its model
        _print_one(index["standby"])


def _print_one(index: Json) -> None:
    rows = [
        [
            plain(part["state"]),
            f"{part['templates']:,}",
            f"{part['removed']:,}",
            _size(part["ram_bytes"]),
            _size(part["disk_bytes"]),
            plain(part["file_name"] or "-"),
        ]
        for part in index["parts"]
    ]
    out = console()
    columns = ["part", "templates", "removed", "memory", "disk", "file"]
    out.print(table(f"Index of {plain(index['gallery_id'])} ({plain(index['pack_id'])})", columns, rows))
    if index["in_step"]:
        step = f"In step with the record (change {index['last_seq']:,})"
    else:
        step = f"[red]Not in step[/red]: change {index['high_water_mark']:,} of {index['last_seq']:,}"
    out.print(
        f"{step}; {index['index_templates']:,} of {index['record_templates']:,} templates, "
        f"{_size(index['ram_bytes'])} in memory, {_size(index['disk_bytes'])} on disk. "
        f"A search misses at most {percent(index['miss_bound'])} of what it should find (95 % bound)."
    )


def _size(size_bytes: int) -> str:
    size, step = float(size_bytes), 0
    while size >= 1024 and step < len(_STEPS) - 1:
        size, step = size / 1024, step + 1
    return f"{size:,.0f} {_STEPS[step]}" if size >= 10 or step == 0 else f"{size:.1f} {_STEPS[step]}"
