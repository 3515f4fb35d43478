"""Tables in Markdown of the figures that search and growth wrote: `python -m benchmarks.speed table`."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.screen import console
from benchmarks.search_measurement import Figures
from benchmarks.search_plots import read_figures

_METHODS = {
    "build s": "{build_seconds:.0f}",
    "bytes a template in RAM / on disk": "{ram_bytes_per_template:,.0f} / {disk_bytes_per_template:,.0f}",
    "one probe, median / 99th percentile ms": "{one_probe_median_ms:.1f} / {one_probe_p99_ms:.1f}",
    "probes/s in batches of 256": "{batch_probes_per_s:,.0f}",
    "mates found at 1 %": "{mates_found:.2%}",
    "pairs found at 1 % / 50 %": "{pairs_at_threshold_found:.2%} / {pairs_at_threshold_found_fpir_50:.2%}",
}
_RATIOS = {
    "one_probe_vs_flat": ".1f",
    "one_probe_vs_best_flat": ".1f",
    "batch_vs_gemm": ".2f",
    "startup_seconds": ".2f",
    "startup_vs_build": ".4f",
    "miss_bound": ".5f",
}
_SIZES = {
    "templates": "{templates:,}",
    "threshold (FPIR 1 %)": "{threshold:.3f}",
    "one probe, median / 99th percentile ms": "{one_probe_median_ms:.1f} / {one_probe_p99_ms:.1f}",
    "memory GB/s": "{bandwidth_gb_per_s:.0f}",
    "limit ms": "{limit_ms:.1f}",
    "times the limit": "{times_limit:.2f}",
    "planted mates found": "{mates_found:.2%} of {mates_at_threshold:,}",
    "`RssAnon`": "{rss_anon_gib:.1f} GiB",
    "filled in, from the size before": "{fill_seconds:.0f} s",
}


def table(files: Annotated[list[Path], typer.Argument(help="What search and growth wrote with --json.")]) -> None:
    """Print the tables of docs/benchmarks.md, in Markdown."""
    try:
        found = [_growth(each) if "sizes" in each else _search(each) for each in map(read_figures, files)]
    except (OSError, ValueError) as error:
        console.print(f"[red]{error}", soft_wrap=True)
        raise typer.Exit(1) from error
    typer.echo("\n".join(found))


def _search(figures: Figures) -> str:
    thresholds, ours = figures["thresholds"], figures["methods"].get("biodedup", {})
    title = (
        f"{figures['gallery_size']:,} x {figures['dimension']}, {figures['threads']} threads, "
        f"thresholds {thresholds['0.01']:.3f} (FPIR 1 %) and {thresholds['0.5']:.3f} (50 %)"
    )
    rows = [[f"`{name}`", *_cells(_METHODS, row)] for name, row in figures["methods"].items()]
    ratios = [f"`{key}` {ours[key]:{form}}" for key, form in _RATIOS.items() if ours.get(key) is not None]
    return _markdown(title, ["method", *_METHODS], rows) + f"\n{', '.join(ratios)}.\n"


def _growth(figures: Figures) -> str:
    title = f"Growth to {figures['sizes'][-1]['templates']:,} x {figures['dimension']}, {figures['threads']} threads"
    rows = [_cells(_SIZES, row | {"rss_anon_gib": row["rss_anon_bytes"] / 2**30}) for row in figures["sizes"]]
    return _markdown(title, list(_SIZES), rows) + (_flat(figures["flat"]) if figures.get("flat") else "")


def _flat(flat: Figures) -> str:
    quick, slow = flat["default_one_probe_median_ms"], flat["one_probe_median_ms"]
    return f"\nFaiss's flat index of {flat['templates']:,}: {slow:.0f} ms a probe, {quick:.0f} with its default.\n"


def _cells(columns: dict[str, str], row: Figures) -> list[str]:
    """Fill the forms of the columns; what was not measured, or does not apply, is a dash."""
    return [" / ".join(_cell(part, row) for part in form.split(" / ")) for form in columns.values()]


def _cell(form: str, row: Figures) -> str:
    try:
        return form.format_map(row)
    except (KeyError, TypeError):  # None has no number format
        return "–"


def _markdown(title: str, headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return f"### {title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)
