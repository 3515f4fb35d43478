"""Plots of the figures that search and growth wrote: `python -m benchmarks.speed plot`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.screen import console
from benchmarks.search_measurement import Figures
from service.evaluation.plots import STYLE

_OURS, _OTHERS, _LIMIT = "#0b62c4", "#8a8a8a", "#c4460b"
_WIDTH, _ROW_HEIGHT = 10.0, 3.6  # inches


def plot(
    files: Annotated[list[Path], typer.Argument(help="What search and growth wrote with --json; one row each.")],
    out: Annotated[Path, typer.Option(help="The SVG file to write.")] = Path("docs/images/search.svg"),
) -> None:
    """Draw latency beside the share of pairs found and batches of each method, or growth beside the limit."""
    try:
        draw([read_figures(path) for path in files], out)
    except (OSError, ValueError) as error:
        console.print(f"[red]{error}", soft_wrap=True)
        raise typer.Exit(1) from error
    console.print(f"Written: {out}", soft_wrap=True)


def draw(rows: Sequence[Figures], out: Path) -> None:
    """Write one SVG with a row of two panels for each set of figures."""
    with rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, _ROW_HEIGHT * len(rows)), layout="constrained")
        panels = figure.subplots(len(rows), 2, squeeze=False)
        for (left, right), row in zip(panels, rows, strict=True):
            if "methods" in row:
                _draw_latency(left, row)
                _draw_batches(right, row)
            else:
                _draw_growth(left, row)
                _draw_times_limit(right, row)
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, format="svg", metadata={"Date": None})
    # matplotlib leaves blanks at the ends of lines
    out.write_text("".join(f"{line.rstrip()}\n" for line in out.read_text("utf-8").splitlines()), "utf-8")


def read_figures(path: Path) -> Figures:
    """Return the figures in a file. Raises ValueError where they are not of search or growth."""
    figures: Any = json.loads(path.read_text("utf-8"))
    if not isinstance(figures, dict) or not {"methods", "growth"} & set(figures):
        raise ValueError(f"{path}: no figures of search or growth")
    return figures


def _draw_latency(axes: Axes, figures: Figures) -> None:
    """One point a method: left is quicker, up is more found."""
    points = [
        (name, row["one_probe_median_ms"], 100 * row["pairs_at_threshold_found"])
        for name, row in figures["methods"].items()
        if row["pairs_at_threshold_found"] is not None
    ]
    points.sort(key=lambda point: (point[2] < 100, point[1]))
    for number, (name, milliseconds, share) in enumerate(points):
        colour = _colour(name)
        axes.scatter(milliseconds, share, color=colour, zorder=3, s=22)
        # those that find everything stand in one line: their names would cover each other
        height = 6 + 10 * (number % 4) if share == 100 else -3 - 9 * (number % 3)
        across = (0, height) if share == 100 else (5, height)
        axes.annotate(
            name,
            (milliseconds, share),
            across,
            textcoords="offset points",
            color=colour,
            fontsize=7,
            ha="center" if share == 100 else "left",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    lowest = min((share for _, _, share in points), default=100)
    axes.set_ylim(min(lowest, 99) - (100 - min(lowest, 99)) * 0.1, 100 + (100 - min(lowest, 99)) * 0.35)
    axes.set_xlabel("one probe, median, ms")
    axes.set_ylabel("pairs found at FPIR 1 %, %")
    axes.set_title(f"{figures['gallery_size']:,} templates of {figures['dimension']} dimensions", loc="left")


def _draw_batches(axes: Axes, figures: Figures) -> None:
    rows = sorted((row["batch_probes_per_s"], name) for name, row in figures["methods"].items())
    speeds, names = zip(*rows, strict=True)
    bars = axes.barh(names, speeds, color=[_colour(name) for name in names])
    axes.bar_label(bars, [f"{speed:,.0f}" for speed in speeds], padding=3, fontsize=7)
    axes.set_xlim(right=max(speeds) * 1.15)
    axes.tick_params("y", labelsize=7)
    axes.set_xlabel("probes a second in batches of 256")
    axes.set_title(f"{figures['threads']} threads", loc="left")


def _draw_growth(axes: Axes, figures: Figures) -> None:
    millions = [entry["templates"] / 1e6 for entry in figures["sizes"]]
    axes.plot(millions, _each(figures, "one_probe_median_ms"), "o-", color=_OURS, label="one probe, median")
    axes.plot(millions, _each(figures, "limit_ms"), "s--", color=_LIMIT, label="codes read at memory speed")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("million templates")
    axes.set_ylabel("ms")
    axes.legend(frameon=False)
    axes.set_title(f"{figures['dimension']} dimensions", loc="left")


def _draw_times_limit(axes: Axes, figures: Figures) -> None:
    millions = [entry["templates"] / 1e6 for entry in figures["sizes"]]
    axes.plot(millions, _each(figures, "times_limit"), "o-", color=_OURS)
    axes.axhline(2, color=_LIMIT, linestyle="--", label="aim: 2")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("million templates")
    axes.set_ylabel("one probe / limit")
    axes.legend(frameon=False)
    axes.set_title(f"{figures['threads']} threads", loc="left")


def _each(figures: Figures, key: str) -> list[float]:
    return [entry[key] for entry in figures["sizes"]]


def _colour(name: str) -> str:
    return _OURS if name == "biodedup" else _OTHERS
