"""The work of `biodedup plan`: plans here or asks the service, prints and draws."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.api.plan_schemas import PlanOut
from service.campaign import Campaign
from service.cli.client import Json, ServiceClient
from service.cli.failures import CommandFailed
from service.cli.labelled import stored_calibration
from service.cli.show import console, plain, score_text, table, warn
from service.decision import percent
from service.evaluation.plan_plot import count_text, draw_plan
from service.planning import Wish, plan
from service.plans import PlanAnswer
from service.settings import Settings

_CHOSEN = {
    "review_fpir": "as asked for",
    "wanted_fnir": "the strictest at which no more than {wanted} of the duplicates are expected to be missed",
    "capacity_per_day": "the loosest whose cases {capacity} a day can decide",
    "usual": "the usual one",
}
_SHOWN_FPIRS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # the picture has more
_NEAREST = "what was asked for cannot be had: see the warning"
_COUNTS = (
    ("cases", "cases for the reviewers"),
    ("false_alarms", "  of them false alarms"),
    ("found_duplicates", "  of them duplicates"),
    ("missed_duplicates", "duplicates missed"),
)


@dataclass(frozen=True, slots=True)
class Options:
    """The command line, checked."""

    asked: dict[str, Any]  # as `POST /v1/plans` takes it
    plot: Path | None
    url: str


def run(settings: Settings, options: Options) -> None:
    """Plan, print, draw.

    Raises:
        CommandFailed: no calibration, no such gallery, no service, or the picture cannot be written.
    """
    if "gallery_id" in options.asked:
        with ServiceClient(options.url) as client:
            made = client.post_json("/v1/plans", options.asked)
    else:
        made = _planned_here(settings, options.asked)
    _show(made)
    if options.plot is not None:
        try:
            options.plot.write_text(draw_plan(made), encoding="utf-8")
        except OSError as error:
            raise CommandFailed(
                f"{options.plot} cannot be written: {error.strerror}",
                "report_unwritable",
                advice="--plot names another file.",
            ) from error
        console().print(f"Drawn: {plain(options.plot)}")


def _planned_here(settings: Settings, asked: dict[str, Any]) -> Json:
    pack_id = asked.get("pack_id", settings.pack)
    calibration = stored_calibration(settings.models_dir / pack_id / "calibration.json")
    if calibration is None:
        raise CommandFailed(
            f"the pack {plain(pack_id)} has no calibration in the folder of models",
            "pack_not_installed",
            advice="`biodedup models list` shows the packs that are there, `biodedup models fetch` gets one.",
        )
    campaign = Campaign(
        asked.get("size_now", 0), asked["size_end"], asked["enrolments_per_day"], asked["duplicate_share"]
    )
    wish = Wish(
        usual_review_fpir=settings.review_fpir,
        usual_duplicate_fpir=asked.get("duplicate_fpir", settings.duplicate_fpir),
        review_fpir=asked.get("review_fpir"),
        wanted_fnir=asked.get("wanted_fnir"),
        capacity_per_day=asked.get("capacity_per_day"),
        fnir_warning=settings.fnir_warning,
    )
    return PlanOut.of(PlanAnswer(None, pack_id, plan(calibration, campaign, wish))).model_dump(mode="json")


def _show(made: Json) -> None:
    campaign, chosen = made["campaign"], made["chosen"]
    out = console()
    duplicates = campaign["duplicate_share"] * campaign["enrolments"]
    out.print(
        f"{campaign['enrolments']:,} enrolments in {campaign['days']:,} days; the gallery grows from "
        f"{campaign['size_now']:,} to {campaign['size_end']:,} people. "
        f"About {duplicates:,.0f} of those who enrol ({percent(campaign['duplicate_share'])}) are enrolled already."
    )
    out.print(f"Setting: [bold]review_fpir {chosen['review_fpir']:g}[/bold], {_reason(made)}.\n")
    shown = [each for each in made["trade_off"] if each["review_fpir"] in (*_SHOWN_FPIRS, chosen["review_fpir"])]
    rows = [[name, *(_count(chosen[span][key]) for span in ("a_day", "whole"))] for key, name in _COUNTS]
    out.print(table("What to expect", ["", "a day", "in the whole campaign"], rows))
    out.print(
        f"Reviewers: plan for [bold]{chosen['capacity_needed']:,} cases a day[/bold]; "
        "then none is left at the end in 39 of 40 such campaigns.\n"
    )
    first = "first day" if campaign["size_now"] else "end of the first day"
    out.print(table("How strict that is", ["", first, "last day"], _strictness(made["start"], made["end"])))
    names = ["review_fpir", "cases a day", "missed a day", "share of duplicates missed", "plan for"]
    out.print(table("Other settings", names, [_setting(each, chosen) for each in shown]))
    out.print(
        "In brackets: intervals of 95 %. Those of counts hold chance and what the calibration leaves open, those of "
        f"shares the latter alone. {_measured_on(made)} Other people give other figures."
    )
    warn(made["warnings"])


def _measured_on(made: Json) -> str:
    people, mated = made["population"], made["mated_population"]
    if people == mated:
        return f"It was measured on {plain(people)}."
    return f"False alarms were measured on {plain(people)}; misses on {plain(mated)}."


def _reason(made: Json) -> str:
    if not made["is_reached"] and made["chosen_by"] in {"wanted_fnir", "capacity_per_day"}:
        return _NEAREST
    wanted = "" if made["wanted_fnir"] is None else percent(made["wanted_fnir"])
    return _CHOSEN[made["chosen_by"]].format(wanted=wanted, capacity=made["capacity_per_day"])


def _strictness(start: Json, end: Json) -> list[list[str]]:
    moments = (start, end)
    return [
        ["people enrolled", *(f"{each['gallery_size']:,}" for each in moments)],
        ["review from score", *(_threshold(each["review"]) for each in moments)],
        ["duplicate from score", *(_threshold(each["duplicate"]) for each in moments)],
        ["new people flagged by mistake", *(_share(each["fpir"]) for each in moments)],
        ["duplicates missed", *(_share(each["fnir"]) for each in moments)],
    ]


def _setting(each: Json, chosen: Json) -> list[str]:
    cells = [
        f"{each['review_fpir']:g}",
        _count(each["cases_a_day"]),
        _count(each["missed_a_day"]),
        _share(each["fnir"]),
        f"{each['capacity_needed']:,} a day",
    ]
    return [f"[bold]{cell}[/bold]" for cell in cells] if each["review_fpir"] == chosen["review_fpir"] else cells


def _threshold(score: float | None) -> str:
    return "none" if score is None or score > 1 else score_text(score)


def _count(estimate: Json) -> str:
    return f"{count_text(estimate['expected'])} ({estimate['low']:,.0f} to {estimate['high']:,.0f})"


def _share(estimate: Json) -> str:
    return f"{percent(estimate['expected'])} ({percent(estimate['low'])} to {percent(estimate['high'])})"
