"""Tables and sentences for people: scores, thresholds and chances of a false match in plain words."""

import math
import os
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.cli.client import Json

OUTCOME_STYLES = {"UNIQUE": "green", "REVIEW": "yellow", "DUPLICATE": "red", "REJECTED": "magenta"}

_MILLION = 1e6
_LEAST_RATE = 1e-9  # far beyond what anybody measured: a smaller one says more of the formula than of people
_PIPE_WIDTH = 120  # characters, where the output goes to a file or another program


def console() -> Console:
    """Return a console for standard output; made anew, so that it follows a redirected standard output."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(highlight=False, soft_wrap=True, width=width)


def one_in(rate: float) -> str:
    """Return a rate (0..1) as people say it: `1 in 80 million`. Two digits, rounded down: never surer than measured."""
    if rate >= 0.5:
        return "1 in 1"
    if rate < _LEAST_RATE:
        return "below 1 in 1 billion"
    number = 1 / rate
    scale = 10 ** max(0, math.floor(math.log10(number)) - 1)
    # a hair more than the quotient: 1 / 0.01 must not become 99
    rounded = math.floor(number / scale * (1 + 1e-9)) * scale
    return f"1 in {rounded / _MILLION:,.3g} million" if rounded >= _MILLION else f"1 in {rounded:,}"


def chance(candidate: Json) -> str:
    """Return the chance of a false match at a candidate's score, marked where it is beyond what was measured."""
    rate = float(candidate["fmr"])
    return f"about {one_in(rate)}" if candidate["extrapolated"] and rate >= _LEAST_RATE else one_in(rate)


def score_text(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"


def coloured(outcome: str) -> str:
    style = OUTCOME_STYLES.get(outcome)
    return f"[{style}]{outcome}[/{style}]" if style else escape(outcome)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table. Cells may hold rich markup, so whatever comes from outside must be escaped by `plain`."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        whole = column == "agreement"  # to be copied
        right = column in {"score", "threshold", "rank", "templates", "subjects", "open cases"}
        made.add_column(column, justify="right" if right else "left", overflow="fold", no_wrap=right or whole)
    for row in rows:
        made.add_row(*row)
    return made


def for_owner(path: str, flags: int) -> int:
    """Open a file that names people, as `open(..., opener=for_owner)`: a new one is for its owner alone."""
    return os.open(path, flags, 0o600)


def plain(text: object) -> str:
    """Return a text from outside for a table cell or a sentence: nothing in it is taken as markup or control."""
    return escape("".join(character if character.isprintable() else "?" for character in str(text)))


def candidates_table(candidates: Sequence[Json], thresholds: Json) -> Table:
    return table(
        "Candidates",
        ["rank", "subject", "encounter", "score", "threshold", "chance of a false match"],
        [
            [
                str(candidate["rank"]),
                plain(candidate["subject_id"] or "(erased)"),
                plain(candidate["encounter_id"] or "(erased)"),
                score_text(candidate["score"]),
                _limit(candidate, thresholds),
                chance(candidate),
            ]
            for candidate in candidates
        ],
    )


def _limit(candidate: Json, thresholds: Json) -> str:
    """Return what a candidate's score is compared with; that of the pack that stands by has a threshold of its own."""
    own = candidate["pack_id"]
    return score_text(thresholds["review"]) if own is None else f"by {plain(own)}"


def warn(lines: Sequence[str]) -> None:
    """Print warnings of the service on standard error."""
    error_console = Console(stderr=True, highlight=False, soft_wrap=True)
    for line in lines:
        error_console.print(f"[yellow]warning:[/yellow] {plain(line)}")
