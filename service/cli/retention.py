"""`biodedup retention`: how long a gallery keeps whom, what is due, the run that erases it, and legal holds."""

import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from service.cli.client import DEFAULT_URL, GalleryArgument, Json, ServiceClient, UrlOption, gallery_path
from service.cli.failures import EXIT_STOPPED, CommandFailed
from service.cli.show import console, plain, table

_LOOK_EVERY_S = 0.5
_SHOWN_LINES = 50
_REASONS = {
    "age": "not seen for as long as the rule keeps people",
    "campaign_ended": "the campaign ended",
    "samples_age": "samples are as old as the rule keeps them",
}
_SKIPPED = {"legal_hold": "put under legal hold since", "seen_again": "seen again since"}

DaysOption = Annotated[
    int | None,
    typer.Option("--retain-days", min=0, max=36_500, help="Days from a subject's latest encounter; 0: no limit."),
]
SamplesOption = Annotated[
    int | None,
    typer.Option(
        "--retain-samples-days", min=0, max=36_500, help="The same for photographs, whose templates stay; 0: no limit."
    ),
]
CampaignOption = Annotated[
    str | None,
    typer.Option(
        "--campaign-ends-at",
        metavar="TIME",
        help="From then on everybody is due: 2026-12-31, or a time with its offset; `never`: no limit.",
    ),
]
AutomaticOption = Annotated[
    bool | None,
    typer.Option("--automatic/--no-automatic", help="Whether the service reports and, a day later, erases by itself."),
]
ReportArgument = Annotated[int, typer.Argument(metavar="REPORT", min=1, help="Number of the report to act on.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Erase without asking.")]
ReasonsOption = Annotated[
    bool, typer.Option("--reasons", help="Show why, too: a look at each person, in the audit trail.")
]
SubjectOption = Annotated[
    str | None, typer.Option("--subject", metavar="SUBJECT", help="One subject; without it the whole gallery.")
]
ReasonOption = Annotated[
    str,
    typer.Option("--reason", prompt="Reason", help="Why; asked for where it is not given, and then in no history."),
]

retention_commands = typer.Typer(
    no_args_is_help=True,
    help="Say how long a gallery keeps whom, see what is due, and erase it; put people under legal hold.\n\n"
    "In this order: `set` a rule, make a `report` (nothing is erased), look at it, then `run` it within 24 hours. The "
    "run erases what the report names and nothing else; a legal hold stops it.\n\n"
    "Example: biodedup retention set camp --retain-days 730 --retain-samples-days 180\n\n"
    "Exit codes: 0 done, 1 refused by the service or no service, 2 wrong usage.",
)


@retention_commands.command("show")
def show(gallery: GalleryArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Show the rule of a gallery, whether it is under legal hold, and its last report.

    Example: biodedup retention show camp

    Exit codes: 0 done, 1 no such gallery, refused or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        _print_state(client.get(gallery_path(gallery, "retention")))


@retention_commands.command("set")
def set_rule(
    gallery: GalleryArgument,
    *,
    retain_days: DaysOption = None,
    retain_samples_days: SamplesOption = None,
    campaign_ends_at: CampaignOption = None,
    automatic: AutomaticOption = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Set the rule of a gallery. What is not given stays as it is; nothing is erased by this command.

    A record's age counts from the subject's latest encounter, as the service recorded it: somebody who comes again is
    kept anew. Photographs may go sooner than the templates that are searched. Reports made before the change cannot be
    run any more.

    Example: biodedup retention set camp --retain-days 730 --campaign-ends-at 2027-06-30

    Exit codes: 0 set, 1 refused by the service or no service, 2 wrong usage.
    """
    given: Json = {}
    if retain_days is not None:
        given["retain_days"] = retain_days or None
    if retain_samples_days is not None:
        given["retain_samples_days"] = retain_samples_days or None
    if campaign_ends_at is not None:
        given["campaign_ends_at"] = _moment(campaign_ends_at)
    if automatic is not None:
        given["automatic"] = automatic
    if not given:
        raise typer.BadParameter("nothing to set: give at least one option")
    path = gallery_path(gallery, "retention")
    with ServiceClient(url) as client:
        known = client.get(path)["rule"]
        rule = {name: known[name] for name in ("retain_days", "retain_samples_days", "campaign_ends_at", "automatic")}
        _print_state(client.put_json(path, {**rule, **given}))


@retention_commands.command("report")
def report(gallery: GalleryArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Show what would be erased by the rule as it is now, and erase nothing.

    The report can be run for 24 hours, as long as the rule stays unchanged. What becomes due later is in the next one.

    Example: biodedup retention report camp

    Exit codes: 0 done, 1 refused by the service or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        made = client.post_json(gallery_path(gallery, "retention", "reports"), {})
        _print_lines(client, gallery, made)
    _print_report(made)
    if made["due_subjects"] or made["due_encounters"]:
        console().print(f"To erase this: biodedup retention run {plain(gallery)} {made['report_id']}")


@retention_commands.command("run")
def run(
    gallery: GalleryArgument, number: ReportArgument, *, yes: YesOption = False, url: UrlOption = DEFAULT_URL
) -> None:
    """Erase what a report names, and nothing else. It cannot be undone.

    Whoever was put under legal hold, or came again, since the report was made is left alone, and you are told. The run
    goes on inside the service when this command is stopped with Ctrl-C; the same command shows it again.

    Example: biodedup retention run camp 3

    Exit codes: 0 done, 1 failed, refused by the service or no service, 2 wrong usage, 130 stopped looking.
    """
    path = gallery_path(gallery, "retention", "reports", str(number))
    with ServiceClient(url) as client:
        found = client.get(path)
        if found["state"] == "made":
            _print_report(found)
            if not yes:
                typer.confirm("Erase it? This cannot be undone.", abort=True)
        runs = gallery_path(gallery, "retention", "runs")
        client.send("POST", runs, accept=(202,), json={"report_id": number})
        try:
            ended = _watch(client, path)
        except KeyboardInterrupt:
            console().print("The run goes on in the service; the same command shows it again.")
            raise typer.Exit(EXIT_STOPPED) from None
        _print_lines(client, gallery, ended)
    _print_report(ended)
    if ended["state"] == "failed":
        raise CommandFailed("the run stopped before its end; what it erased is gone", str(ended["error_code"]))


@retention_commands.command("hold")
def hold(
    gallery: GalleryArgument, *, subject: SubjectOption = None, reason: ReasonOption, url: UrlOption = DEFAULT_URL
) -> None:
    """Put a subject, or a whole gallery, under legal hold: nothing of it is erased until that is lifted.

    It stops every way of erasing: by hand, by rule, and the withdrawal of an encounter. Enrolments and searches go on.
    The reason is encrypted and shown to supervisors alone.

    Example: biodedup retention hold camp --subject P-1041

    Example: biodedup retention hold camp --subject P-1041 --reason "complaint 2026-17 is being looked into"

    Exit codes: 0 held, 1 refused by the service or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        held = client.put_json(_hold_path(gallery, subject), {"reason": reason})
    console().print(f"{_whose(held)} is under legal hold since {plain(held['set_at'])}, by {plain(held['set_by'])}.")


@retention_commands.command("lift")
def lift(gallery: GalleryArgument, *, subject: SubjectOption = None, url: UrlOption = DEFAULT_URL) -> None:
    """Lift a legal hold, and forget its reason. Nothing is erased by this command.

    Example: biodedup retention lift camp --subject P-1041

    Exit codes: 0 lifted, 1 there is no such hold, refused or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        still = client.send("DELETE", _hold_path(gallery, subject))["still_held"]
    console().print("The hold is lifted; the whole gallery is still under hold." if still else "The hold is lifted.")


@retention_commands.command("holds")
def holds(gallery: GalleryArgument, *, reasons: ReasonsOption = False, url: UrlOption = DEFAULT_URL) -> None:
    """List who is under legal hold in a gallery, since when and by whom.

    Example: biodedup retention holds camp

    Example: biodedup retention holds camp --reasons

    Exit codes: 0 done, 1 refused by the service or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        items = client.get(gallery_path(gallery, "holds"))["items"]
        if reasons:
            items = [client.get(_hold_path(gallery, each["subject_id"])) for each in items]
    columns = ["what", "since", "by"]
    rows = [[_whose(each), plain(each["set_at"]), plain(each["set_by"])] for each in items]
    if reasons:
        columns.append("why")
        rows = [[*row, plain(each["reason"] or "forgotten")] for row, each in zip(rows, items, strict=True)]
    console().print(table(f"Legal holds in {plain(gallery)}", columns, rows))


def _hold_path(gallery: str, subject: str | None) -> str:
    return gallery_path(gallery, "hold") if subject is None else gallery_path(gallery, "subjects", subject, "hold")


def _whose(held: Json) -> str:
    return "The whole gallery" if held["subject_id"] is None else plain(held["subject_id"])


def _moment(text: str) -> str | None:
    """Return a moment as the service reads it; a date is its beginning in UTC. Raises typer.BadParameter."""
    if text == "never":
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("--campaign-ends-at: write a date such as 2026-12-31, or `never`") from None
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).isoformat()


def _print_state(state: Json) -> None:
    rule, held = state["rule"], state["legal_hold"]
    rows = [
        ["subjects", _days(rule["retain_days"], "from the latest encounter")],
        ["photographs", _days(rule["retain_samples_days"], "from their encounter; templates stay")],
        ["campaign ends", "no date" if rule["campaign_ends_at"] is None else plain(rule["campaign_ends_at"])],
        ["by itself", "reported, and erased a day later" if rule["automatic"] else "nothing is erased"],
        [
            "legal hold",
            "no" if held is None else f"[red]since {plain(held['set_at'])}[/red], by {plain(held['set_by'])}",
        ],
        ["subjects held", f"{state['held_subjects']:,}"],
    ]
    console().print(table(f"Retention in {plain(state['gallery_id'])}", ["what", "now"], rows))
    if state["last_report"] is not None:
        _print_report(state["last_report"])


def _days(days: int | None, since: str) -> str:
    return "kept without limit" if days is None else f"{days:,} days {since}"


def _print_report(report: Json) -> None:
    out = console()
    out.print(
        f"Report {report['report_id']}, made {plain(report['made_at'])}, is {plain(report['state'])}: "
        f"{report['due_subjects']:,} subjects and the photographs of {report['due_encounters']:,} encounters were due "
        f"when it was made; {report['held']:,} were under legal hold and stay."
    )
    if report["state"] == "made":
        when = f" The service acts on it at {plain(report['acts_at'])}." if report["acts_at"] else ""
        out.print(f"It can be run until {plain(report['expires_at'])}.{when}")
    if report["total"]:
        out.print(
            f"Erased: {report['erased_subjects']:,} subjects, {report['erased_samples']:,} photographs. Left alone: "
            f"{report['skipped_held']:,} put under legal hold since, {report['skipped_seen_again']:,} seen again. "
            f"{report['already_gone']:,} were gone already."
        )


def _print_lines(client: ServiceClient, gallery: str, report: Json) -> None:
    """Print the first lines that are left."""
    path = gallery_path(gallery, "retention", "reports", str(report["report_id"]), "lines")
    page = client.get(path, limit=_SHOWN_LINES)
    if not page["items"]:
        return
    rows = [
        [plain(line["subject_id"]), _goes(line), _REASONS[line["reason"]],
         plain(line["due_at"]), _stays(line)]
        for line in page["items"]
    ]  # fmt: skip
    title = "Due" if page["next_after"] is None else f"Due, the first {len(rows)}"
    console().print(table(title, ["subject", "goes", "why", "since", "stays"], rows))


def _goes(line: Json) -> str:
    encounter_id = line["encounter_id"]
    return "the person, whole" if encounter_id is None else f"photographs of {plain(encounter_id)}"


def _stays(line: Json) -> str:
    if line["held"]:
        return "under legal hold"
    return _SKIPPED[line["skipped"]] if line["skipped"] else ""


def _watch(client: ServiceClient, path: str) -> Json:
    """Show the progress until the run ended; return how it ended."""
    columns = (TextColumn("erased"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True, soft_wrap=True)) as progress:
        task = progress.add_task("", total=None)
        while True:
            found = client.get(path)
            has_ended = found["state"] != "running"
            # what somebody else erased meanwhile is done, too
            done = found["total"] if found["state"] == "done" else found["done"]
            progress.update(task, completed=done, total=found["total"])
            if has_ended:
                return found
            time.sleep(_LOOK_EVERY_S)
