"""The pictures of a report, as SVG to be set into its page."""

import hashlib
import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any
from warnings import catch_warnings, filterwarnings

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from service.evaluation.evaluation import Evaluation
from service.evaluation.figures import FEW_PEOPLE, Figure

# text as text: small files that can be searched and read aloud
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "biodedup",
    "font.family": "sans-serif",
    "font.size": 9,
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e2e2e2",
}
BLUE, ORANGE, GREY = "#0b62c4", "#c4460b", "#8a8a8a"
_COLOURS = (BLUE, ORANGE, "#2c8a4b", "#7a4bb5")
_WIDTH, _HEIGHT = 6.4, 3.6  # inches
_LONGEST_NAME = 40  # characters
_BESIDE = 1.04  # how much further right the next bar of one size stands
IN_DOUBT = "pairs whose labels are in doubt"


def score_histogram(evaluation: Evaluation, threshold: float, meaning: str) -> str:
    """Draw how often pairs of one person and of two people reach each score, with the threshold of `meaning`."""
    with rc_context(STYLE):
        canvas, axes = _panel()
        for shares, colour, name in (
            (evaluation.non_mated_shares, ORANGE, "two people"),
            (evaluation.mated_shares, BLUE, "one person"),
        ):
            axes.stairs(shares, evaluation.histogram_edges, fill=True, color=colour, alpha=0.45, label=name)
        axes.axvline(threshold, color="black", linestyle="--", linewidth=1, label=meaning)
        axes.set_yscale("log")
        axes.set_ylim(1e-7, 1)
        axes.set_xlim(-0.4, 1)
        axes.set_xlabel("score: how alike two photographs are")
        axes.set_ylabel("share of the pairs")
        axes.legend(frameon=False, fontsize=8)
        return as_svg(canvas, "Scores of pairs of one person and of two people")


def trade_off(evaluation: Evaluation) -> str:
    """Draw the false non-match rate against the false match rate (DET curve); nothing without mated pairs."""
    pairs = paired(evaluation.figures)
    if not pairs:
        return ""
    with rc_context(STYLE):
        canvas, axes = _panel()
        across = [match.value for match, _ in pairs]
        least, most = min(across) / 3, max(across) * 2
        _with_intervals(axes, across, [miss for _, miss in pairs], BLUE, "rate, and its 95 % interval")
        if least < evaluation.doubts.alike_share < most:
            axes.axvline(evaluation.doubts.alike_share, color=GREY, linestyle=":", label=IN_DOUBT)
        axes.set_xscale("log")
        axes.set_xlim(least, most)
        axes.set_ylim(*around([miss for _, miss in pairs]))
        axes.yaxis.set_major_formatter(per_cent)
        axes.set_xlabel("false match rate: two people taken for one")
        axes.set_ylabel("false non-match rate")
        canvas.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8)
        return as_svg(canvas, "False non-match rate against false match rate")


def misses_by_size(evaluation: Evaluation) -> str:
    """Draw the share of duplicates missed against the size of the gallery, for each FPIR; nothing without any."""
    chosen = [
        each
        for each in evaluation.figures
        if each.measure == "fnir" and each.rank is None and each.chosen_by == "here" and each.target is not None
    ]
    if not chosen:
        return ""
    with rc_context(STYLE):
        canvas, axes = _panel()
        targets = sorted({each.target for each in chosen if each.target})
        for place, (colour, target) in enumerate(zip(_COLOURS, targets, strict=False)):
            row = [each for each in chosen if each.target == target]
            # a little beside each other: bars of one size would hide one another
            sizes = [(each.gallery_size or 0) * _BESIDE ** (place - (len(targets) - 1) / 2) for each in row]
            _with_intervals(axes, sizes, row, colour, per_cent(target))
        sizes = sorted({each.gallery_size or 0 for each in chosen})
        axes.set_xscale("log")
        axes.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_xticks([], minor=True)
        axes.set_ylim(*around(chosen))
        axes.yaxis.set_major_formatter(per_cent)
        axes.set_xlabel("people enrolled")
        axes.set_ylabel("duplicates missed, with the 95 % interval")
        canvas.legend(
            loc="outside upper left",
            ncols=4,
            frameon=False,
            fontsize=8,
            title="newcomers flagged by mistake",
            title_fontsize=8,
            alignment="left",
        )
        return as_svg(canvas, "Duplicates missed by size of the gallery")


def groups(label: str, figures: Sequence[Figure], overall: Figure, what: str) -> str:
    """Draw one rate of the groups of a label beside that of all."""
    with rc_context(STYLE):
        canvas = Canvas(figsize=(_WIDTH, 1.3 + 0.3 * len(figures)), layout="constrained")
        axes = canvas.subplots()
        for place, each in enumerate(figures):
            _bar(axes, place, each)
        axes.axvspan(overall.low, overall.high, color=ORANGE, alpha=0.15, linewidth=0, label="interval of all people")
        axes.axvline(overall.value, color=ORANGE, linestyle="--", linewidth=1, label="all people")
        names = [_cut(str(each.group)) for each in figures]
        axes.set_yticks(range(len(figures)), names, parse_math=False)  # a dollar sign in a name is no formula
        axes.set_ylim(len(figures) - 0.5, -0.5)
        axes.set_xlim(*around([*figures, overall]))
        axes.xaxis.set_major_formatter(per_cent)
        axes.set_xlabel(what)
        _group_legend(canvas, axes)
        return as_svg(canvas, f"{what}, by {label}")


def _bar(axes: Axes, place: int, each: Figure) -> None:
    colour, whose = (GREY, f"fewer than {FEW_PEOPLE} people") if each.rests_on_few else (BLUE, f"{FEW_PEOPLE} or more")
    axes.plot([each.low, each.high], [place, place], "-", color=colour, linewidth=2)
    axes.plot([each.value], [place], "o", color=colour, label=whose)


def _group_legend(canvas: Canvas, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))
    canvas.legend(once.values(), once.keys(), loc="outside upper left", ncols=4, frameon=False, fontsize=8)


def _with_intervals(axes: Axes, across: Sequence[float], row: Sequence[Figure], colour: str, name: str) -> None:
    """Draw a line of rates with their intervals."""
    values = [each.value for each in row]
    reach = [[each.value - each.low for each in row], [each.high - each.value for each in row]]
    axes.errorbar(across, values, reach, fmt="o-", color=colour, markersize=4, capsize=3, elinewidth=1, label=name)


def around(figures: Sequence[Figure]) -> tuple[float, float]:
    """Return the ends of an axis that cuts off neither an interval nor a dot at zero."""
    highest = max(each.high for each in figures) or 1.0
    return -0.03 * highest, 1.05 * highest


def paired(figures: Sequence[Figure]) -> list[tuple[Figure, Figure]]:
    """Pair each false match rate of all people with the false non-match rate at the same threshold."""
    whole = [each for each in figures if each.label is None]
    misses = {each.target: each for each in whole if each.measure == "fnmr"}
    return [(each, misses[each.target]) for each in whole if each.measure == "fmr" and each.target in misses]


def _panel() -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    return canvas, canvas.subplots()


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def per_cent(value: float, _position: object = None) -> str:
    return f"{100 * value:.3g} %"


def as_svg(canvas: Canvas, title: str) -> str:
    """Return the drawing as an SVG element that a page can hold, with a name for those who cannot see it."""
    out = io.StringIO()
    with catch_warnings():
        # the text stays text: the reader's browser has the letters that matplotlib's font lacks
        filterwarnings("ignore", message="Glyph")
        canvas.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    drawn = out.getvalue()
    element = drawn[drawn.index("<svg") :]
    # ids are those of one drawing, and a page holds several
    prefix = hashlib.sha256(title.encode()).hexdigest()[:8]
    element = re.sub(r'(\bid="|href="#|url\(#)', rf"\1p{prefix}-", element)
    return element.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
