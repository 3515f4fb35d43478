"""`biodedup enrol`: a whole folder or CSV file, with a progress bar, and a report of every file."""

import os
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.cli.bulk import BulkEnrolment, Limits
from service.cli.client import DEFAULT_URL, GalleryOption, ServiceClient, UrlOption, gallery_path
from service.cli.failures import EXIT_FAILED, EXIT_STOPPED, CommandFailed
from service.cli.journal import FAILED, FLAGGED, REJECTED, RESULTS, FileResult, Journal, journal_path, write_report
from service.cli.show import coloured, console, one_in, plain, score_text, table
from service.cli.sources import Item, read_source
from service.settings import load_settings

_LISTED = 200  # lines of the report on the screen; the CSV file has all

SourceArgument = Annotated[
    Path, typer.Argument(metavar="DIR-or-CSV", help="A folder or a CSV file.", exists=True, show_default=False)
]
ReportOption = Annotated[Path | None, typer.Option("--report", help="Write the report of every file as CSV.")]
JournalOption = Annotated[
    Path | None, typer.Option("--journal", help="Where to note answered files. Default: a file in the var folder.")
]
SendersOption = Annotated[int, typer.Option("--senders", min=1, max=64, help="Photographs to send at once.")]
AlsoOption = Annotated[
    list[str] | None,
    typer.Option("--also-search", help="A further gallery to look for each person in; may be given again."),
]
PatienceOption = Annotated[
    float, typer.Option("--patience", min=0.0, help="Seconds that the service may be gone before the run stops.")
]


def enrol(
    source: SourceArgument,
    *,
    gallery: GalleryOption = "default",
    also_search: AlsoOption = None,
    report: ReportOption = None,
    journal: JournalOption = None,
    senders: SendersOption = 8,
    patience_s: PatienceOption = 120.0,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Enrol a whole folder or CSV file and report every file: enrolled, flagged, or rejected with its code.

    A folder: each sub-folder is a person (its name is the subject_id, each file in it an encounter, in the order of the
    names); a file beside the sub-folders is a new person. A CSV file: the column path (relative to the file), and if
    wanted subject_id, encounter_id, captured_at, site, operator_ref, birth_year, sex, and label.NAME.

    With --also-search a person who is in one of the further galleries is flagged too; nobody is enrolled there.

    Stop it with Ctrl-C and run it again: it goes on where it stopped, and nobody is enrolled twice. Answered files
    are noted in a journal; and each photograph has an encounter id made from its path, its subject and its bytes, by
    which the service knows it again.

    Example: biodedup enrol photographs/ --gallery default --report report.csv

    Example: biodedup enrol photographs/ -g camp-north --also-search camp-south --also-search camp-east

    Example: biodedup enrol people.csv --url http://10.0.0.5:8000

    Exit codes: 0 every file has its answer (flagged and rejected ones too), 1 some could not be asked or no service
    answers, 2 wrong usage, 130 stopped with Ctrl-C.
    """
    settings = load_settings(os.environ)
    groups = read_source(source)
    total = sum(len(group) for group in groups)
    with ServiceClient(url, connections=senders) as client:
        described = client.get(gallery_path(gallery))
        notes = Journal(journal or journal_path(settings.var_dir, source, described))
        with _progress_bar() as bar:
            task = bar.add_task(_summary(Counter()), total=total)
            counts: Counter[str] = Counter()

            def show(result: FileResult) -> None:
                counts[result.result] += 1
                bar.update(task, advance=1, description=_summary(counts))

            run = BulkEnrolment(
                client, gallery, notes, Limits(senders, patience_s), show, also_search=also_search or ()
            )
            stopped_by = _run(run, groups)
    notes.close()
    _print_report(run.results, total, notes.path)
    if report is not None:
        write_report(report, sorted(run.results, key=lambda result: result.path))
    if isinstance(stopped_by, CommandFailed):
        raise stopped_by
    if stopped_by is not None:
        raise typer.Exit(EXIT_STOPPED)
    if any(result.result == FAILED for result in run.results):
        raise typer.Exit(EXIT_FAILED)


def _run(run: BulkEnrolment, groups: list[list[Item]]) -> CommandFailed | KeyboardInterrupt | None:
    """Run to the end, or return what stopped the run: the report of what was answered comes first."""
    try:
        run.run(groups)
    except (CommandFailed, KeyboardInterrupt) as stop:
        return stop
    return None


def _summary(counts: Counter[str]) -> str:
    shown = [name for name in RESULTS if name != FAILED or counts[FAILED]]
    return "  ".join(f"{name} {counts[name]:,}" for name in shown)


def _print_report(results: list[FileResult], total: int, journal: Path) -> None:
    out = console()
    ordered = sorted(results, key=lambda result: result.path)
    # what needs a look first: the flagged and rejected must not be cut off by thousands that went well
    ordered.sort(key=lambda result: result.result not in {FLAGGED, REJECTED, FAILED})
    columns = ["file", "result", "subject", "score", "threshold", "chance of a false match", "why"]
    out.print(table("Report", columns, [_line(result) for result in ordered[:_LISTED]]))
    if len(ordered) > _LISTED:
        out.print(f"... and {len(ordered) - _LISTED:,} more; --report FILE writes all of them.")
    out.print(f"{len(results):,} of {total:,} files: {_summary(Counter(result.result for result in results))}")
    if len(results) < total or any(result.result == FAILED for result in results):
        out.print("Run the same command again to go on.")
    out.print(f"Journal: {plain(journal)} (it names files and subjects; delete it when you are done)")


def _line(result: FileResult) -> list[str]:
    word = coloured(result.outcome) if result.outcome else plain(result.result.upper())
    rate = result.false_match_rate
    return [
        plain(result.path),
        word,
        plain(result.subject_id or "-"),
        score_text(result.score),
        score_text(result.threshold),
        "-" if rate is None else one_in(rate),
        plain(_reason(result)),
    ]


def _reason(result: FileResult) -> str:
    if result.code:
        return f"{result.code}: {result.message}"
    if result.candidate_subject_id:
        where = f" in {result.candidate_gallery_id}" if result.candidate_gallery_id else ""
        return " and ".join(filter(None, [f"looks like {result.candidate_subject_id}{where}", result.message]))
    return result.message


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
