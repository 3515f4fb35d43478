"""`biodedup models migrate`: a better model for a gallery, without photographing anybody again."""

import csv
import sys
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from service.cli.client import DEFAULT_URL, GalleryArgument, Json, ServiceClient, UrlOption, gallery_path
from service.cli.failures import EXIT_STOPPED, CommandFailed
from service.cli.show import console, one_in, plain, score_text, table
from service.decision import percent

_LOOK_EVERY_S = 0.5
_PAGE = 200
_CODES = "Exit codes: 0 done, 1 refused by the service or no service, 2 wrong usage."

migrate_commands = typer.Typer(
    no_args_is_help=True,
    help="Give a gallery another model pack without photographing anybody again.\n\n"
    "1. `start` makes new templates from the kept samples, in the background; everything goes on meanwhile.\n\n"
    "2. `status`, `compare` and `missing` say how far it is, which pack is better on your own people, and who must be "
    "captured again.\n\n"
    "3. `cut-over`: from this moment on the new pack answers. `back`: the old one again.\n\n"
    "4. `finish` deletes the old pack's templates; before a cut-over, `cancel` deletes the new one's.\n\n"
    "Example: biodedup models migrate start default --to buffalo_s\n\n" + _CODES,
)

ToOption = Annotated[str, typer.Option("--to", metavar="PACK", help="The new model pack.", show_default=False)]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Show the progress until templates are made.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
AcceptOption = Annotated[
    int,
    typer.Option(
        "--accept-missing",
        metavar="NUMBER",
        min=0,
        help="How many people have no template of the pack that is to rule: they stay searched in the other one.",
    ),
]
PackOption = Annotated[
    str | None, typer.Option("--pack", metavar="PACK", help="Who has none of this pack; else of the new one.")
]


@migrate_commands.command("start")
def start(gallery: GalleryArgument, to: ToOption, *, wait: WaitOption = True, url: UrlOption = DEFAULT_URL) -> None:
    """Make templates of the new pack from the kept samples; the old pack goes on answering.

    From now on every photograph is worked on by both packs: enrolments take about twice as long until the end. Ctrl-C
    stops only the looking; a service that is killed goes on where it was.

    Example: biodedup models migrate start default --to buffalo_s

    Exit codes: 0 templates are made, 1 refused by the service or no service, 2 wrong usage, 130 stopped looking.
    """
    with ServiceClient(url) as client:
        client.post_json(_path(gallery), {"to_pack_id": to})
        _watch(client, gallery, wait=wait)


@migrate_commands.command("status")
def status(gallery: GalleryArgument, *, wait: WaitOption = False, url: UrlOption = DEFAULT_URL) -> None:
    """Show how far a migration is, and what comes next.

    Example: biodedup models migrate status default --wait

    Exit codes: 0 shown, 1 no migration, no such gallery or no service, 2 wrong usage, 130 stopped looking.
    """
    with ServiceClient(url) as client:
        _watch(client, gallery, wait=wait)


@migrate_commands.command("compare")
def compare(gallery: GalleryArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Compare both packs on your own people, with 95 % intervals. Look at it before a cut-over.

    It rests on people with several encounters, whom biodedup compared with themselves when they came again.

    Example: biodedup models migrate compare default

    Exit codes: 0 shown, 1 refused by the service or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        _show_comparison(client.get(_path(gallery, "comparison")))


@migrate_commands.command("missing")
def missing(gallery: GalleryArgument, pack: PackOption = None, url: UrlOption = DEFAULT_URL) -> None:
    """List who must be captured again, as CSV: people without a template of the new pack.

    `no_sample`: no photograph was kept; `unusable`: the new pack finds no usable face in it.

    Example: biodedup models migrate missing default > capture-again.csv

    Exit codes: 0 listed, 1 refused by the service or no service, 2 wrong usage.
    """
    lines = csv.writer(sys.stdout)
    lines.writerow(["subject_id", "reason"])
    with ServiceClient(url) as client:
        after: dict[str, Any] = {} if pack is None else {"pack_id": pack}
        while True:
            page = client.get(_path(gallery, "missing"), limit=_PAGE, **after)
            lines.writerows([each["subject_id"], each["reason"]] for each in page["items"])
            if page["next_after"] is None:
                return
            after["after"] = page["next_after"]


@migrate_commands.command("cut-over")
def cut_over(
    gallery: GalleryArgument, *, accept_missing: AcceptOption = 0, yes: YesOption = False, url: UrlOption = DEFAULT_URL
) -> None:
    """Let the new pack answer, from one moment to the next. Whoever is only known to the old pack stays searched there.

    Shows the comparison of the packs and asks. `biodedup gallery sweep` then finds what the old pack missed before.

    Example: biodedup models migrate cut-over default --accept-missing 12

    Exit codes: 0 done, 1 refused by the service or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        if not yes:
            _show_comparison(client.get(_path(gallery, "comparison")))
            typer.confirm("Let the new pack answer from now on?", abort=True)
        _swap(client, gallery, "cut-over", accept_missing)


@migrate_commands.command("back")
def back(
    gallery: GalleryArgument, *, accept_missing: AcceptOption = 0, yes: YesOption = False, url: UrlOption = DEFAULT_URL
) -> None:
    """Let the old pack answer again. Nobody who was enrolled meanwhile is lost: all are in both packs. Asks before.

    Example: biodedup models migrate back default

    Exit codes: 0 done, 1 refused by the service or no service, 2 wrong usage.
    """
    if not yes:
        typer.confirm("Let the old pack answer again?", abort=True)
    with ServiceClient(url) as client:
        _swap(client, gallery, "back", accept_missing)


@migrate_commands.command("finish")
def finish(gallery: GalleryArgument, *, yes: YesOption = False, url: UrlOption = DEFAULT_URL) -> None:
    """Delete the old pack's templates, its index and its files: there is no way back.

    Refused while anybody is known to the old pack alone.

    Example: biodedup models migrate finish default

    Exit codes: 0 done, 1 refused by the service or no service, 2 wrong usage.
    """
    if not yes:
        typer.confirm("Delete the old pack's templates for good?", abort=True)
    _give_up(url, gallery, "finish")


@migrate_commands.command("cancel")
def cancel(gallery: GalleryArgument, *, yes: YesOption = False, url: UrlOption = DEFAULT_URL) -> None:
    """Delete what was made of the new pack; the old one goes on answering.

    Example: biodedup models migrate cancel default

    Exit codes: 0 done, 1 refused by the service or no service, 2 wrong usage.
    """
    if not yes:
        typer.confirm("Delete the new pack's templates?", abort=True)
    _give_up(url, gallery, "cancellation")


def _path(gallery: str, *parts: str) -> str:
    return gallery_path(gallery, "migration", *parts)


def _swap(client: ServiceClient, gallery: str, step: str, accept_missing: int) -> None:
    try:
        _show(client.post_json(_path(gallery, step), {"accepted_missing": accept_missing}))
    except CommandFailed as failure:
        # the service names the field of its own request
        message = failure.message.replace("accepted_missing=", "--accept-missing ")
        raise CommandFailed(message, failure.code) from failure


def _give_up(url: str, gallery: str, step: str) -> None:
    with ServiceClient(url) as client:
        client.send("POST", _path(gallery, step))
        _watch(client, gallery, wait=True)


def _watch(client: ServiceClient, gallery: str, *, wait: bool) -> None:
    """Show how far it is; with `wait`, the progress until the service has nothing to make or to drop."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %{task.fields[note]}"))
    found = client.get(_path(gallery))
    try:
        if wait and _is_at_work(found):
            with Progress(*columns, console=Console(stderr=True, soft_wrap=True)) as progress:
                task = progress.add_task("", total=1.0, note="")
                while _is_at_work(found):
                    left = f", {found['seconds_left']:.0f} s left" if found["seconds_left"] else ""
                    if found["error_code"]:
                        left = f", waits: {plain(found['error_code'])}"
                    progress.update(task, description=found["stage"], completed=found["progress"], note=left)
                    time.sleep(_LOOK_EVERY_S)
                    found = client.get(_path(gallery))
                progress.update(task, description="done", completed=1.0, note="")
    except KeyboardInterrupt:
        console().print("The service goes on; `biodedup models migrate status` shows it again.")
        raise typer.Exit(EXIT_STOPPED) from None
    _show(found)


def _is_at_work(found: Json) -> bool:
    return found["stage"] in {"making", "dropping"}


def _show(found: Json) -> None:
    missing_in_new = found["missing_in_new"]
    rows = [
        ["from, to", f"{plain(found['from_pack_id'])} to {plain(found['to_pack_id'])}"],
        ["stage", f"{plain(found['stage'])}: {_next_step(found)}"],
        ["answers by", plain(found["ruling_pack_id"])],
        ["looked at", f"{found['done']:,} of {found['total']:,}"],
        ["samples in both packs", f"{found['paired_samples']:,}"],
        ["to be captured again", "not known yet" if missing_in_new is None else f"{missing_in_new:,} people"],
        ["not in the old pack", f"{found['missing_in_old']:,} people"],
        ["cases of the other pack", f"{found['cases_opened']:,}"],
    ]
    console().print(table(f"Model change of {plain(found['gallery_id'])}", ["what", "now"], rows))
    if found["error_code"]:
        raise CommandFailed("the migration gets no further now; it is tried again", str(found["error_code"]))


def _next_step(found: Json) -> str:
    accept = f" --accept-missing {found['missing_in_new']}" if found["missing_in_new"] else ""
    return {
        "making": "templates are being made, the old pack answers",
        "ready": f"next: compare, then cut-over{accept} (or cancel)",
        "cut_over": "the new pack answers; next: finish (or back)",
        "dropping": "one pack was given up and is being deleted",
        "finished": "only the new pack is left",
        "cancelled": "only the old pack is left",
    }[found["stage"]]


def _show_comparison(found: Json) -> None:
    old, new = found["packs"]
    rows = [
        ["review threshold", score_text(old["threshold"]), score_text(new["threshold"])],
        ["same people below it (missed)", _share(old["fnmr"]), _share(new["fnmr"])],
        ["different people at or above it", _rate(old["fmr"]), _rate(new["fmr"])],
        ["  the calibration expects", one_in(old["expected_fmr"]), one_in(new["expected_fmr"])],
    ]
    if found["own_fmr"] is not None:
        at = one_in(found["own_fmr"])
        rows += [
            [
                f"threshold of {at} of your own pairs",
                score_text(old["own_threshold"]),
                score_text(new["own_threshold"]),
            ],
            ["  same people below that (missed)", _share(old["own_fnmr"]), _share(new["own_fnmr"])],
        ]
    title = "Both packs on your own people (95 % intervals)"
    out = console()
    out.print(table(title, ["what", plain(old["pack_id"]), plain(new["pack_id"])], rows))
    out.print(
        f"It rests on {found['mated_pairs']:,} pairs of encounters of {found['subjects']:,} people who came several "
        f"times, and on {found['non_mated_pairs']:,} pairs of {found['non_mated_subjects']:,} different people. "
        f"{found['left_out_pairs']:,} pairs of encounters were left out, since the pack that ruled doubted that they "
        "show one person: this favours that pack. Duplicates count as different people "
        "until a human decided on their case."
    )
    if not found["subjects"]:
        out.print("Nobody came several times: how many people either pack misses cannot be told from this gallery.")
    elif found["difference"] is not None:
        out.print(f"{plain(new['pack_id'])} misses {_difference(found['difference'])} of the people.")


def _share(estimate: Json | None) -> str:
    if estimate is None:
        return "not known"
    return f"{percent(estimate['value'])} ({percent(estimate['low'])} to {percent(estimate['high'])})"


def _rate(estimate: Json | None) -> str:
    if estimate is None:
        return "not known"
    most = one_in(estimate["high"])
    return f"none (at most {most})" if not estimate["value"] else f"{one_in(estimate['value'])} (at most {most})"


def _difference(estimate: Json) -> str:
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:+.2f} percentage points ({low:+.2f} to {high:+.2f})"
