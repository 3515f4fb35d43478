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
from service.evaluation.figures import Figure

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
        axes.plot(across, [miss.value for _, miss in pairs], "o-", color=BLUE, markersize=4)
        lows, highs = ([getattr(miss, end) for _, miss in pairs] for end in ("low", "high"))
        axes.fill_between(across, lows, highs, color=BLUE, alpha=0.2, linewidth=0)
        axes.axvline(max(evaluation.doubts.alike_share, 1e-9), color=GREY, linestyle=":", label="labels in doubt")
        axes.set_xscale("log")
        axes.set_xlim(min(across) / 3, max(across) * 2)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(per_cent)
        axes.set_xlabel("false match rate: two people taken for one")
        axes.set_ylabel("false non-match rate")
        axes.legend(frameon=False, fontsize=8)
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
        for colour, target in zip(_COLOURS, sorted({each.target for each in chosen if each.target}), strict=False):
            row = [each for each in chosen if each.target == target]
            sizes = [each.gallery_size or 0 for each in row]
            axes.plot(sizes, [each.value for each in row], "o-", color=colour, markersize=4, label=per_cent(target))
            axes.fill_between(
                sizes, [each.low for each in row], [each.high for each in row], color=colour, alpha=0.15, linewidth=0
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_formatter("")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(per_cent)
        axes.set_xlabel("people enrolled")
        axes.set_ylabel("duplicates missed")
        axes.legend(frameon=False, fontsize=8, title="newcomers flagged by mistake", title_fontsize=8)
        return as_svg(canvas, "Duplicates missed by size of the gallery")


def groups(label: str, figures: Sequence[Figure], overall: Figure, what: str) -> str:
    """Draw one rate of the groups of a label beside that of all."""
    with rc_context(STYLE):
        canvas = Canvas(figsize=(_WIDTH, 0.9 + 0.3 * len(figures)), layout="constrained")
        axes = canvas.subplots()
        for place, each in enumerate(figures):
            colour = GREY if each.rests_on_few else BLUE
            axes.plot([each.low, each.high], [place, place], "-", color=colour, linewidth=2)
            axes.plot([each.value], [place], "o", color=colour)
        axes.axvspan(overall.low, overall.high, color=ORANGE, alpha=0.15, linewidth=0)
        axes.axvline(overall.value, color=ORANGE, linestyle="--", linewidth=1)
        names = [_cut(str(each.group)) for each in figures]
        axes.set_yticks(range(len(figures)), names, parse_math=False)  # a dollar sign in a name is no formula
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(per_cent)
        axes.set_xlabel(what)
        return as_svg(canvas, f"{what}, by {label}")


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
