"""`biodedup plan`: what a campaign will cost in reviews and in missed duplicates."""

import os
from pathlib import Path
from typing import Annotated

import typer

from service.cli.client import DEFAULT_URL, UrlOption
from service.settings import load_settings

PackOption = Annotated[
    str | None, typer.Option("--pack", help="Plan with this pack; no service is needed. Default: BIODEDUP_PACK.")
]
GalleryOption = Annotated[
    str | None, typer.Option("--gallery", "-g", help="Ask the service: this gallery's pack, size and rates.")
]
NowOption = Annotated[
    int | None,
    typer.Option("--now", min=0, help="People enrolled when it begins. Default: the gallery's, or 0.", metavar="N"),
]
EndOption = Annotated[
    int, typer.Option("--end", min=1, max=10**9, help="People enrolled when it ends.", metavar="N", show_default=False)
]
EnrolmentsOption = Annotated[
    int, typer.Option("--enrolments", min=1, max=10**7, help="Enrolments a day.", metavar="N", show_default=False)
]
DuplicatesOption = Annotated[
    float,
    typer.Option(
        "--duplicates",
        min=0,
        max=0.99,
        help="Expected share of those who enrol who are enrolled already: 0.02 is 2 in 100.",
        show_default=False,
        metavar="SHARE",
    ),
]
CapacityOption = Annotated[
    int | None, typer.Option("--capacity", min=1, max=10**7, help="Cases the reviewers can decide a day.", metavar="N")
]
MissesOption = Annotated[
    float | None,
    typer.Option("--misses", min=1e-6, max=0.99, help="Share of the duplicates that may be missed.", metavar="SHARE"),
]
ReviewOption = Annotated[
    float | None,
    typer.Option("--review-fpir", min=1e-6, max=0.5, help="Share of new people that may be flagged by mistake."),
]
DuplicateOption = Annotated[
    float | None, typer.Option("--duplicate-fpir", min=1e-6, max=0.5, help="The same for the outcome DUPLICATE.")
]
PlotOption = Annotated[
    Path | None,
    typer.Option("--plot", help="Draw it as SVG: a file that ends with .svg.", dir_okay=False, metavar="FILE.svg"),
]


def plan(
    *,
    end: EndOption,
    enrolments: EnrolmentsOption,
    duplicates: DuplicatesOption,
    now: NowOption = None,
    capacity: CapacityOption = None,
    misses: MissesOption = None,
    review_fpir: ReviewOption = None,
    duplicate_fpir: DuplicateOption = None,
    pack: PackOption = None,
    gallery: GalleryOption = None,
    plot: PlotOption = None,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Say before a campaign how many cases reviewers will get a day, and how many duplicates will be missed.

    A strict gallery misses more duplicates; a loose one flags more new people by mistake, and each of them is a case.
    You say what you know, and the plan says the rest:

    - what the reviewers can decide (--capacity): the loosest setting whose cases they can decide;

    - what may be missed (--misses): the setting, and the reviewers that takes;

    - a setting (--review-fpir), or none, for the gallery's own: its cases and its misses.

    Every figure has an interval of 95 %, and a warning says where the pack cannot do what is asked. Nothing is set:
    `biodedup gallery set` does that. docs/planning.md explains the figures with an example.

    Example: biodedup plan --now 50000 --end 80000 --enrolments 600 --duplicates 0.02 --capacity 30

    Example: biodedup plan -g default --end 80000 --enrolments 600 --duplicates 0.02 --misses 0.08 --plot plan.svg

    Exit codes: 0 planned, also with warnings; 1 no calibration, no such gallery or no service, 2 wrong usage.
    """
    from service.cli.planning import Options, run  # noqa: PLC0415  (imports onnxruntime and matplotlib: two seconds)

    if pack is not None and gallery is not None:
        raise typer.BadParameter("give --pack or --gallery, not both: a gallery has its pack")
    if review_fpir is not None and misses is not None:
        raise typer.BadParameter("give --review-fpir or --misses, not both: each follows from the other")
    if plot is not None and plot.suffix.lower() != ".svg":
        raise typer.BadParameter(f"--plot draws SVG: name a file that ends with .svg, such as {plot.stem}.svg")
    if gallery is None and (now or 0) >= end:
        raise typer.BadParameter("--end must be above --now: every enrolment adds a person")
    asked = {
        "gallery_id": gallery,
        "pack_id": pack,
        "size_now": now,
        "size_end": end,
        "enrolments_per_day": enrolments,
        "duplicate_share": duplicates,
        "review_fpir": review_fpir,
        "duplicate_fpir": duplicate_fpir,
        "wanted_fnir": misses,
        "capacity_per_day": capacity,
    }
    run(
        load_settings(os.environ), Options({key: value for key, value in asked.items() if value is not None}, plot, url)
    )
