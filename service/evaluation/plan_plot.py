"""The picture of a plan: what each setting costs in reviews, and what it misses."""

from collections.abc import Mapping
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from service.evaluation.plots import BLUE, GREY, ORANGE, STYLE, as_svg, per_cent

_WIDTH, _HEIGHT = 6.4, 5.6  # inches
_LEAST = 0.1  # cases a day: a logarithmic axis has no zero

Plan = Mapping[str, Any]


def draw_plan(plan: Plan) -> str:
    """Return an SVG document: cases a day above, duplicates missed a day below, both against the review_fpir.

    Args:
        plan: as `POST /v1/plans` answers it.
    """
    with rc_context(STYLE):
        canvas = Canvas(figsize=(_WIDTH, _HEIGHT), layout="constrained")
        cases, missed = canvas.subplots(2, sharex=True)
        _curve(cases, plan, ("cases_a_day", "cases"), BLUE, least=_LEAST)
        _curve(missed, plan, ("missed_a_day", "missed_duplicates"), ORANGE, least=0)
        if plan["capacity_per_day"] is not None:
            cases.axhline(plan["capacity_per_day"], color=GREY, linestyle=":", label="what reviewers can decide")
        cases.set_yscale("log")
        cases.yaxis.set_major_formatter("{x:,g}")
        cases.set_ylabel("cases a day")
        missed.set_ylim(bottom=0)
        missed.set_ylabel("duplicates missed a day")
        missed.set_xscale("log")
        missed.xaxis.set_major_formatter(per_cent)
        missed.set_xlabel("review_fpir: new people flagged by mistake")
        cases.legend(frameon=False, fontsize=8, loc="upper left")
        missed.legend(frameon=False, fontsize=8, loc="upper right")
        drawn = as_svg(canvas, "Cases and missed duplicates a day by setting; the plan is marked")
    return "".join(f"{line.rstrip()}\n" for line in drawn.splitlines())  # matplotlib leaves blanks at the ends


def _curve(axes: Axes, plan: Plan, keys: tuple[str, str], colour: str, *, least: float) -> None:
    """Draw one figure of every setting and mark that of the plan.

    Args:
        axes: drawn on.
        plan: as answered.
        keys: of the figure, among the settings and for a day of the plan.
        colour: of curve and band.
        least: what lies below is drawn here.
    """
    settings, across = plan["trade_off"], [each["review_fpir"] for each in plan["trade_off"]]
    low, middle, high = ([max(each[keys[0]][end], least) for each in settings] for end in ("low", "expected", "high"))
    axes.fill_between(across, low, high, color=colour, alpha=0.15, linewidth=0, label="interval of 95 %")
    axes.plot(across, middle, "-", color=colour, label="to expect")
    chosen = plan["chosen"]["review_fpir"]
    expected = plan["chosen"]["a_day"][keys[1]]["expected"]
    axes.axvline(chosen, color="black", linestyle="--", linewidth=1, label="the plan")
    axes.plot([chosen], [max(expected, least)], "o", color="black", zorder=3)
    label = f"{count_text(expected)} a day"
    axes.annotate(label, (chosen, max(expected, least)), (-7, 7), textcoords="offset points", ha="right")


def count_text(expected: float) -> str:
    """Return a count to expect, with a decimal where it is small."""
    return f"{expected:,.1f}" if expected < 10 else f"{expected:,.0f}"
