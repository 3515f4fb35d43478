"""`biodedup calibrations`: which calibration judges the scores of a gallery."""

import json
from pathlib import Path
from typing import Annotated

import typer

from service.cli.client import DEFAULT_URL, GalleryArgument, Json, ServiceClient, UrlOption, gallery_path
from service.cli.failures import CommandFailed
from service.cli.show import console, plain, score_text, table, warn
from service.decision import percent

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="Written by `biodedup calibrate`.", exists=True, dir_okay=False)
]
IdArgument = Annotated[str, typer.Argument(metavar="CALIBRATION", help="As `list` shows it.")]

calibration_commands = typer.Typer(
    no_args_is_help=True,
    help="See, make and choose what the scores of a gallery mean.\n\nA calibration turns a score into a rate of false "
    "matches, and so a wanted rate into a threshold. One comes with each model pack. A gallery of 100 people or more "
    "can have one of its own: `make`, look at it with `list`, then `use`.\n\n"
    "Example: biodedup calibrations make default\n\n"
    "Exit codes: 0 done, 1 refused by the service or no service, 2 wrong usage.",
)


@calibration_commands.command("list")
def list_calibrations(gallery: GalleryArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Show the calibrations of a gallery, with the thresholds that each gives at its present size.

    Example: biodedup calibrations list default

    Exit codes: 0 done, 1 no such gallery or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        items = client.get(gallery_path(gallery, "calibrations"))["items"]
    _show(gallery, items)


@calibration_commands.command("make")
def make_calibration(gallery: GalleryArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Make a calibration of the gallery's own templates; no labels are needed. It is not used yet.

    Nearly all pairs of a gallery are different people; those that look like one person are told apart and counted.

    Example: biodedup calibrations make default

    Exit codes: 0 made, 1 too few people, no such gallery or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client, console().status("comparing the people of the gallery"):
        made = client.post_json(gallery_path(gallery, "calibrations"), {})
        items = client.get(gallery_path(gallery, "calibrations"))["items"]
    _show(gallery, items)
    _advise(gallery, made)


@calibration_commands.command("add")
def add_calibration(gallery: GalleryArgument, file: FileArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Bring a calibration that `biodedup calibrate` made of labelled photographs. It is not used yet.

    Example: biodedup calibrations add default calibration-opencv-zoo.json

    Exit codes: 0 kept, 1 not for this gallery's model, no such gallery or no service, 2 wrong usage.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{plain(file)} cannot be read as a calibration", "source_unreadable") from error
    with ServiceClient(url) as client:
        made = client.post_json(gallery_path(gallery, "calibrations"), {"calibration": content})
        items = client.get(gallery_path(gallery, "calibrations"))["items"]
    _show(gallery, items)
    _advise(gallery, made)


@calibration_commands.command("use")
def use_calibration(gallery: GalleryArgument, calibration: IdArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Judge a gallery by one of its calibrations from now on. Earlier answers keep what they were given with.

    Example: biodedup calibrations use default opencv-zoo-0123456789ab

    Exit codes: 0 done, 1 no such calibration or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        _use(client, gallery, calibration)


@calibration_commands.command("back")
def roll_back(gallery: GalleryArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Take back the last change of calibration: judge the gallery as before it.

    Example: biodedup calibrations back default

    Exit codes: 0 done, 1 there was no other before, or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        items = client.get(gallery_path(gallery, "calibrations"))["items"]
        used = next(item["calibration_id"] for item in items if item["is_used"])
        fitting = {item["calibration_id"] for item in items if item["thresholds"] is not None}
        before = [entry["details"]["calibration_id"] for entry in _changes(client, gallery)]
        earlier = [each for each in before if each != used and each in fitting]
        if not earlier:
            raise CommandFailed("the gallery was never judged by another calibration", "calibration_not_found")
        _use(client, gallery, earlier[-1])


@calibration_commands.command("history")
def show_history(gallery: GalleryArgument, url: UrlOption = DEFAULT_URL) -> None:
    """Show every change of a gallery's thresholds: by its size, its error rates or its calibration.

    Example: biodedup calibrations history default

    Exit codes: 0 done, 1 no such gallery or no service, 2 wrong usage.
    """
    with ServiceClient(url) as client:
        rows = [
            [
                plain(entry["created_at"][:19].replace("T", " ")),
                plain(entry["details"]["reason"]),
                f"{entry['details']['stated_comparisons']:,}",
                score_text(entry["details"]["review"]),
                score_text(entry["details"]["duplicate"]),
                plain(entry["details"]["calibration_id"]),
            ]
            for entry in _changes(client, gallery)
        ]
    names = ["when (UTC)", "because of", "for a size of", "review from", "duplicate from", "calibration"]
    console().print(table(f"Thresholds of {plain(gallery)}", names, rows))


def _changes(client: ServiceClient, gallery: str) -> list[Json]:
    """Return the entries of the audit trail about thresholds, oldest first."""
    found: list[Json] = []
    path, event = gallery_path(gallery, "audit"), "thresholds.changed"
    page = client.get(path, limit=200, event=event)
    while True:
        found += page["items"]
        if page["next_after"] is None:
            return found
        page = client.get(path, limit=200, event=event, after=page["next_after"])


def _use(client: ServiceClient, gallery: str, calibration_id: str) -> None:
    client.send("PUT", gallery_path(gallery, "calibration"), json={"calibration_id": calibration_id})
    _show(gallery, client.get(gallery_path(gallery, "calibrations"))["items"])


def _show(gallery: str, items: list[Json]) -> None:
    rows = [
        [
            ("* " if item["is_used"] else "  ") + plain(item["calibration_id"]),
            plain(item["population"]),
            f"{item['people']:,}",
            *_thresholds_of(item),
        ]
        for item in items
    ]
    names = ["calibration", "made of", "people", "review from", "duplicate from", "expected misses"]
    console().print(table(f"Calibrations of {plain(gallery)} (* in use)", names, rows))


def _thresholds_of(item: Json) -> list[str]:
    thresholds = item["thresholds"]
    if thresholds is None:
        return ["for another pack", "-", "-"]
    scores = score_text(thresholds["review"]), score_text(thresholds["duplicate"])
    return [*scores, percent(thresholds["expected_fnir"])]


def _advise(gallery: str, made: Json) -> None:
    console().print(f"To use it: biodedup calibrations use {plain(gallery)} {plain(made['calibration_id'])}")
    if made["found_mates"] >= 1:
        warn(
            [
                f"about {made['found_mates']:,.0f} pairs of people look like one person under two names. The fit left "
                f"them out; to find them: biodedup gallery sweep {gallery}"
            ]
        )
