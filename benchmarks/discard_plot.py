"""Draws error-versus-discard curves: a row of two panels for each model pack."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.discard_curves import STATED_SHARE, UNIFIED
from service.evaluation.plots import STYLE

_OURS, _OTHERS, _SEVERAL = "#0b62c4", "#8a8a8a", "#c4460b"
_WIDTH, _ROW_HEIGHT = 10.0, 3.8  # inches
_DRAWN = {"detector score": _SEVERAL, "sharpness": "#2c8a4b", "yaw angle": "#7a4bb5"}


def draw(figures: Sequence[dict[str, Any]], out: Path) -> None:
    """Write one SVG: beside the curve of the unified score, what each measure gains at one share."""
    with rc_context(STYLE):
        canvas = Figure(figsize=(_WIDTH, _ROW_HEIGHT * len(figures)), layout="constrained")
        panels = canvas.subplots(len(figures), 2, squeeze=False)
        for (left, right), row in zip(panels, figures, strict=True):
            _draw_curves(left, row)
            _draw_gains(right, row)
        out.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(out, format="svg", metadata={"Date": None})
    # matplotlib leaves blanks at the ends of lines
    out.write_text("".join(f"{line.rstrip()}\n" for line in out.read_text("utf-8").splitlines()), "utf-8")


def _draw_curves(axes: Axes, row: dict[str, Any]) -> None:
    points = row["curves"][UNIFIED]
    across = [100 * each["share"] for each in points]
    axes.fill_between(across, _percent(points, "low"), _percent(points, "high"), color=_OURS, alpha=0.15, linewidth=0)
    axes.plot(across, _percent(points, "random_fnmr"), "--", color=_OTHERS, label="at random")
    for name, colour in _DRAWN.items():
        axes.plot(across, _percent(row["curves"][name], "fnmr"), "-", color=colour, linewidth=1, label=name)
    axes.plot(across, _percent(points, "fnmr"), "o-", color=_OURS, markersize=4, label="unified score")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("samples discarded, lowest first, %")
    axes.set_ylabel(f"FNMR at FMR {row['fmr']:g}, %")
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(f"{row['pack_id']}: {row['people_with_pairs']:,} people", loc="left")


def _draw_gains(axes: Axes, row: dict[str, Any]) -> None:
    names = list(row["curves"])
    points = [next(each for each in row["curves"][name] if each["share"] == STATED_SHARE) for name in names]
    for place, (name, each) in enumerate(zip(names, points, strict=True)):
        colour = _OURS if name == UNIFIED else _OTHERS
        axes.plot([100 * each["gain_low"], 100 * each["gain_high"]], [place, place], "-", color=colour, linewidth=2)
        axes.plot([100 * each["gain"]], [place], "o", color=colour)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(f"FNMR lower than at random by, points of % ({STATED_SHARE:.0%} discarded)")


def _percent(points: Sequence[dict[str, float]], key: str) -> list[float]:
    return [100 * each[key] for each in points]
