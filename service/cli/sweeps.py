"""`biodedup gallery sweep`: finds the duplicates of the past, and shows how far it is."""

import time
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from service.cli.client import DEFAULT_URL, GalleryArgument, Json, ServiceClient, UrlOption, gallery_path
from service.cli.failures import EXIT_STOPPED, CommandFailed
from service.cli.show import chance, console, one_in, plain, score_text, table
from service.decision import percent

_LOOK_EVERY_S = 0.5
_SHOWN_PAIRS = 50
_PAGE = 200
_UNFINISHED = frozenset({"queued", "running"})

AllowedOption = Annotated[
    int,
    typer.Option(
        "--allowed-false-pairs",
        min=1,
        max=1_000_000,
        help="Pairs of different people that may be found by mistake; the threshold follows from it.",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Begin without asking.")]
AgainstOption = Annotated[
    str | None,
    typer.Option("--against", metavar="GALLERY", help="Compare with this gallery instead of with itself."),
]
CancelOption = Annotated[bool, typer.Option("--cancel", help="Cancel the sweep that is under way.")]


def sweep_gallery(
    gallery: GalleryArgument,
    *,
    allowed_false_pairs: AllowedOption = 10,
    against: AgainstOption = None,
    yes: YesOption = False,
    cancel: CancelOption = False,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Compare a whole gallery with itself or with another, to find people who were enrolled twice in the past.

    Shows the plan and asks; then the sweep runs inside the service, also when this command is stopped with Ctrl-C. The
    same command shows a sweep that is under way; --against another gallery than that one's is refused.

    Example: biodedup gallery sweep default --allowed-false-pairs 20

    Exit codes: 0 done, 1 failed, cancelled, refused by the service or no service, 2 wrong usage, 130 stopped looking.
    """
    with ServiceClient(url) as client:
        path = gallery_path(gallery, "sweeps")
        running = _unfinished(client, path)
        if running is not None:
            _refuse_another(gallery, against, running)
        if cancel:
            _cancel(client, path, running)
            return
        if running is None:
            wanted = {"allowed_false_pairs": allowed_false_pairs, "other_gallery_id": against}
            _show_plan(client.post_json(path, {**wanted, "dry_run": True}))
            if not yes:
                typer.confirm("Begin?", abort=True)
            running = client.post_json(path, wanted)
        else:
            console().print(f"{_called(gallery, running)} is under way.")
        try:
            ended = _watch(client, f"{path}/{running['job_id']}")
        except KeyboardInterrupt:
            console().print("The sweep goes on in the service; the same command shows it again, --cancel ends it.")
            raise typer.Exit(EXIT_STOPPED) from None
        _show_result(client, gallery, ended)


def _unfinished(client: ServiceClient, path: str) -> Json | None:
    """Return the sweep of the gallery that has not ended; there is one at most."""
    return next((sweep for sweep in _items(client, path) if sweep["state"] in _UNFINISHED), None)


def _refuse_another(gallery: str, against: str | None, running: Json) -> None:
    """Raises CommandFailed: another gallery is named than the sweep under way is against."""
    if against is not None and against != (running["other_gallery_id"] or gallery):
        raise CommandFailed(
            f"{_called(gallery, running)} is under way: a gallery is in one sweep at a time",
            "sweep_underway",
            advice="Wait for its end, or end it with --cancel; without --against this command shows it.",
        )


def _called(gallery: str, sweep: Json) -> str:
    against = "itself" if sweep["other_gallery_id"] is None else plain(sweep["other_gallery_id"])
    return f"Sweep {sweep['job_id']} of {plain(gallery)} against {against}"


def _items(client: ServiceClient, path: str) -> Iterator[Json]:
    """Yield the items of all pages of a listing."""
    page = client.get(path, limit=_PAGE)
    yield from page["items"]
    while page["next_after"] is not None:
        page = client.get(path, limit=_PAGE, after=page["next_after"])
        yield from page["items"]


def _cancel(client: ServiceClient, path: str, running: Json | None) -> None:
    if running is None:
        raise CommandFailed("no sweep of this gallery is under way", "sweep_not_found")
    ended = client.send("POST", f"{path}/{running['job_id']}/cancellation")
    console().print(f"Sweep {ended['job_id']} is {plain(ended['state'])}; the cases it opened stay.")


def _show_plan(plan: Json) -> None:
    misses = f"{percent(plan['expected_fnir'])} of duplicates, measured on {plain(plan['expected_fnir_population'])}"
    rows = [
        ["templates", f"{plan['templates']:,}"],
        ["comparisons", f"{plan['comparisons']:,}"],
        ["false pairs allowed", f"{plan['allowed_false_pairs']:,}"],
        ["threshold", f"{score_text(plan['threshold'])} ({one_in(plan['fmr'])} pairs of different people)"],
        ["expected misses", misses],
        ["estimated time", _duration(plan["estimated_s"])],
    ]
    if plan["left_out"]:
        rows.append(["not compared", f"{plan['left_out']:,} templates that only the standby pack has"])
    title = f"Sweep of {plain(plan['gallery_id'])}"
    if plan["other_gallery_id"] is not None:
        title += f" against {plain(plan['other_gallery_id'])}"
    console().print(table(title, ["what", "plan"], rows))


def _watch(client: ServiceClient, path: str) -> Json:
    """Show the progress until the sweep ended; return how it ended."""
    columns = (
        TextColumn("compared"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True, soft_wrap=True)) as progress:
        task = progress.add_task("", total=1.0, note="")
        while True:
            sweep = client.get(path)
            left = "" if sweep["seconds_left"] is None else f"{_duration(sweep['seconds_left'])} left, "
            progress.update(task, completed=sweep["progress"], note=f"{left}{sweep['cases_opened']:,} cases")
            if sweep["state"] not in _UNFINISHED:
                return sweep
            time.sleep(_LOOK_EVERY_S)


def _show_result(client: ServiceClient, gallery: str, sweep: Json) -> None:
    pairs = _pairs(client, gallery, sweep)
    if pairs:
        title = (
            f"Possible duplicates, the first {len(pairs)}"
            if len(pairs) < sweep["cases_opened"]
            else "Possible duplicates"
        )
        rows = [
            [
                str(case["case_id"]),
                plain(case["subject_id"]),
                _other(case),
                score_text(case["candidate"]["score"]),
                chance(case["candidate"]),
            ]
            for case in pairs
        ]
        console().print(table(title, ["case", "subject", "looks like", "score", "chance of a false match"], rows))
    console().print(
        f"Sweep {sweep['job_id']} is {plain(sweep['state'])}: {sweep['done']:,} of {sweep['total']:,} templates, "
        f"{sweep['found_pairs']:,} pairs at or above {score_text(sweep['threshold'])}, "
        f"{sweep['cases_opened']:,} cases opened. A person must decide on each."
    )
    if sweep["state"] == "failed":
        raise CommandFailed("the sweep failed", str(sweep["error_code"]))
    if sweep["state"] == "cancelled":
        raise CommandFailed("the sweep was cancelled", "sweep_cancelled")


def _other(case: Json) -> str:
    """Return whom a case's subject looks like, with the gallery where that is another one."""
    candidate = case["candidate"]
    other = plain(candidate["subject_id"] or "(erased)")
    is_across = candidate["gallery_id"] != case["gallery_id"]
    return f"{other} in {plain(candidate['gallery_id'])}" if is_across else other


def _pairs(client: ServiceClient, gallery: str, sweep: Json) -> list[Json]:
    """Return the first cases that the sweep opened."""
    cases = client.get(gallery_path(gallery, "cases"), job_id=sweep["job_id"], limit=_SHOWN_PAIRS)
    return list(cases["items"])


def _duration(seconds: float) -> str:
    """Return a duration in its largest unit that fits, rounded up."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{max(seconds, 1):.0f} s"
