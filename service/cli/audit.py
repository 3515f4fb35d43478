"""`biodedup audit`: verify and export the audit trail, also from a file, without access to the service."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from service.audit_anchors import read_anchors
from service.audit_chain import SERVICE_CHAIN, AuditEntry
from service.audit_check import FaultKind, check_chain
from service.cli.client import DEFAULT_URL, Json, ServiceClient, UrlOption, gallery_path
from service.cli.failures import CommandFailed
from service.cli.show import console, for_owner, plain, warn
from service.errors import AuditChainBroken

_MOST_ANCHORS = 900  # a request takes 1000, and the last of a chain says of all before it
_BLOCK = 50_000  # entries that the service verifies in one request

Anchors = Mapping[int, bytes]

GalleryChoice = Annotated[
    str | None, typer.Option("--gallery", "-g", help="Gallery whose chain is meant; without it: all chains.")
]
ChainChoice = Annotated[
    str | None, typer.Option("--gallery", "-g", help="Gallery whose chain is meant; without it: the service's own.")
]
AnchorsOption = Annotated[
    Path | None,
    typer.Option(
        "--anchors", help="Anchor file, or a log with the events `audit.anchored`.", exists=True, dir_okay=False
    ),
]
FileOption = Annotated[
    Path | None,
    typer.Option("--file", help="Verify this export (jsonl) and ask no service.", exists=True, dir_okay=False),
]
OutOption = Annotated[Path, typer.Option("--out", help="File to write.", dir_okay=False, show_default=False)]
FormatOption = Annotated[
    Literal["jsonl", "csv"], typer.Option("--format", help="jsonl can be verified; csv is for spreadsheets.")
]

audit_commands = typer.Typer(
    no_args_is_help=True,
    help="Verify and export the audit trail: who did what, when, what for.\n\n"
    "Each gallery has a chain of entries, the service has one more; docs/audit.md describes them.\n\n"
    "Example: biodedup audit verify --anchors /mnt/worm/anchors.jsonl\n\n"
    "Exit codes: 0 done and whole, 1 a chain is broken, refused or no service, 2 wrong usage.",
)


@audit_commands.command("verify")
def verify(
    gallery: GalleryChoice = None, anchors: AnchorsOption = None, file: FileOption = None, url: UrlOption = DEFAULT_URL
) -> None:
    """Find the first entry that was changed, removed, inserted or put elsewhere.

    The service computes the chains anew while it runs. With --file an export is verified here, by whoever has it. Only
    anchors show that a whole chain was written anew, or its end cut off, by somebody who may write to the database.

    Example: biodedup audit verify --file audit-camp.jsonl --anchors anchors.jsonl

    Exit codes: 0 whole, 1 a chain is broken, refused or no service, 2 wrong usage.
    """
    known = {} if anchors is None else _anchors_in(anchors)
    if file is not None:
        broken = _verify_file(file, known)
    else:
        with ServiceClient(url) as client:
            broken = _verify_chains(client, gallery, known)
    if not known and not broken:
        warn(["without --anchors nobody can tell whether a whole chain was written anew, or its end cut off"])
    if broken:
        raise CommandFailed(
            f"{len(broken)} of the chains {'is' if len(broken) == 1 else 'are'} not as written: "
            + ", ".join(plain(chain) for chain in broken),
            AuditChainBroken.code,
            advice='Keep the database as it is, and read "When a chain is broken" in docs/audit.md.',
        )


@audit_commands.command("export")
def export(
    out: OutOption, gallery: ChainChoice = None, form: FormatOption = "jsonl", url: UrlOption = DEFAULT_URL
) -> None:
    """Write a whole chain to a file. That it was exported becomes an entry of the chain.

    Example: biodedup audit export --gallery camp --out audit-camp.jsonl

    Exit codes: 0 written, 1 refused or no service, 2 wrong usage.
    """
    lines = 0
    with ServiceClient(url) as client, _written(out) as write:
        for part in client.stream(f"{_path(gallery)}/export", format=form):
            write(part)
            lines += part.count(b"\n")
    count = lines if form == "jsonl" else lines - 1
    console().print(f"{count:,} entries of {plain(gallery or 'the service')} are in {plain(out)}")


def _path(gallery: str | None) -> str:
    return "/v1/audit" if gallery is None else gallery_path(gallery, "audit")


def _anchors_in(path: Path) -> dict[str, dict[int, bytes]]:
    """Raises CommandFailed."""
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return read_anchors(lines)
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{plain(path)}: {error}", "source_unreadable") from error


def _verify_chains(client: ServiceClient, gallery: str | None, anchors: Mapping[str, Anchors]) -> list[str]:
    """Return the chains that are broken."""
    wanted = [gallery]
    if gallery is None:
        wanted += [each["gallery_id"] for each in client.get("/v1/galleries")["items"]]
    broken = [each or SERVICE_CHAIN for each in wanted if not _is_whole(client, each, anchors)]
    verified = {each or SERVICE_CHAIN for each in wanted}
    for chain in sorted(set(anchors) - verified):
        if gallery is None:
            console().print(f"{plain(chain)}: [red]REMOVED[/red]: there are anchors of it, and no such chain")
            broken.append(chain)
    return broken


def _is_whole(client: ServiceClient, gallery: str | None, anchors: Mapping[str, Anchors]) -> bool:
    try:
        return _verify_chain(client, gallery, anchors)
    except CommandFailed as failure:
        if failure.code != AuditChainBroken.code:
            raise
        console().print(f"{plain(gallery or SERVICE_CHAIN)}: [red]REMOVED[/red]: {plain(failure.message)}")
        return False


def _verify_chain(client: ServiceClient, gallery: str | None, anchors: Mapping[str, Anchors]) -> bool:
    chain = gallery or SERVICE_CHAIN
    own, met = anchors.get(chain, {}), 0
    if anchors and not own:
        warn([f"the file has no anchor of {chain}"])
    body: Json = {}
    with _progress(chain) as (bar, task):
        while True:
            found = client.post_json(f"{_path(gallery)}/verifications", {**body, "anchors": _next(own, body)})
            met += found["anchors_met"]
            bar.update(task, completed=found["reached_seq"], total=found["head_seq"])
            if found["is_finished"]:
                break
            body = {"after_seq": found["reached_seq"], "after_hash": found["reached_hash"]}
    right = found["reached_seq"]
    if found["result"] == FaultKind.REWRITTEN:  # the parts before were whole, and perhaps no anchor says that of them
        right = max((seq for seq in own if seq <= right), default=0)
    _say(chain, found["result"], found["fault_seq"], right, met)
    return bool(found["result"] == "whole")


def _next(anchors: Anchors, body: Json) -> dict[str, str]:
    """Return the anchors of the next block, and the last of all: it tells whether the end was cut off."""
    start = body.get("after_seq", 0)
    within = sorted(seq for seq in anchors if start < seq <= start + _BLOCK)[-_MOST_ANCHORS:]
    chosen = {*within, *([max(anchors)] if anchors and max(anchors) > start else [])}
    return {str(seq): anchors[seq].hex() for seq in sorted(chosen)}


def _verify_file(path: Path, anchors: Mapping[str, Anchors]) -> list[str]:
    """Return the chain of the file where it is broken. Raises CommandFailed."""
    try:
        with path.open(encoding="utf-8") as lines:
            first = AuditEntry.from_line(next(iter(lines), ""))
        own = anchors.get(first.chain, {})
        if anchors and not own:
            warn([f"the file has no anchor of {first.chain}"])
        with path.open(encoding="utf-8") as lines, _progress(first.chain, path.stat().st_size) as (bar, task):
            report = check_chain(_entries(lines, first.chain, bar, task), anchors=own)
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{plain(path)} is no export of a chain: {error}", "source_unreadable") from error
    fault = report.fault
    result = "whole" if fault is None else fault.kind.value
    _say(first.chain, result, None if fault is None else fault.seq, report.reached.seq, report.anchors_met)
    return [] if fault is None else [first.chain]


def _entries(lines: Iterator[str], chain: str, bar: Progress, task: TaskID) -> Iterator[AuditEntry]:
    """Raises ValueError: a line is no entry, or one of another chain."""
    for line in lines:
        entry = AuditEntry.from_line(line)
        if entry.chain != chain:
            raise ValueError("it holds entries of several chains")
        bar.advance(task, len(line))
        yield entry


def _say(chain: str, result: str, fault_seq: int | None, reached_seq: int, met: int) -> None:
    anchored = f", {met:,} anchors met" if met else ""
    if result == "whole":
        console().print(f"{plain(chain)}: [green]whole[/green], {reached_seq:,} entries{anchored}")
        return
    where = "or before" if result == FaultKind.REWRITTEN else ""
    console().print(
        f"{plain(chain)}: [red]{plain(result).upper()}[/red] at entry {fault_seq:,} {where}".rstrip()
        + f"; up to {reached_seq:,} everything is as it was written{anchored}"
    )


@contextmanager
def _progress(chain: str, total: int | None = None) -> Iterator[tuple[Progress, TaskID]]:
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield bar, bar.add_task(f"verifying {plain(chain)}", total=total)


@contextmanager
def _written(path: Path) -> Iterator[Callable[[bytes], object]]:
    """Give what writes to a file that is there as a whole or not at all. Raises CommandFailed."""
    partial = path.with_name(path.name + ".part")
    try:
        with open(partial, "wb", opener=for_owner) as file:
            yield file.write
        partial.replace(path)
    except OSError as error:
        raise CommandFailed(f"{plain(path)} cannot be written", "source_unreadable") from error
    finally:
        partial.unlink(missing_ok=True)
