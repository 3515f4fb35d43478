"""Plots of the benchmark of 1:N search: what stands in the SVG."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import speed

SEARCH: dict[str, Any] = {
    "gallery_size": 100_000,
    "dimension": 512,
    "threads": 2,
    "methods": {
        "biodedup": {"one_probe_median_ms": 1.5, "pairs_at_threshold_found": 1.0, "batch_probes_per_s": 1943.4},
        "flat": {"one_probe_median_ms": 60.0, "pairs_at_threshold_found": 1.0, "batch_probes_per_s": 321.0},
        "faiss_hnsw_100": {"one_probe_median_ms": 0.5, "pairs_at_threshold_found": 0.9, "batch_probes_per_s": 5000.0},
    },
}
GROWTH: dict[str, Any] = {
    "dimension": 128,
    "threads": 2,
    "growth": 0.8,
    "sizes": [
        {"templates": 1_000_000, "one_probe_median_ms": 2.6, "limit_ms": 1.0, "times_limit": 2.6},
        {"templates": 2_000_000, "one_probe_median_ms": 4.0, "limit_ms": 2.0, "times_limit": 2.0},
    ],
}


def written(folder: Path, *figures: dict[str, Any]) -> tuple[Any, Path]:
    """Run the command on these figures; return its result and the path of the SVG."""
    files = []
    for number, each in enumerate(figures):
        files.append(folder / f"{number}.json")
        files[-1].write_text(json.dumps(each))
    out = folder / "images" / "plot.svg"
    return CliRunner().invoke(speed.app, ["plot", *map(str, files), "--out", str(out)]), out


def texts(svg: Path) -> list[str]:
    root = ET.fromstring(svg.read_text())
    return ["".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_every_method_is_named_in_both_panels_with_its_speed_in_batches(tmp_path: Path) -> None:
    result, svg = written(tmp_path, SEARCH)

    assert result.exit_code == 0, result.output
    shown = texts(svg)
    for name in SEARCH["methods"]:
        assert shown.count(name) == 2
    assert {"1,943", "321", "5,000", "100,000 templates of 512 dimensions", "2 threads"} < set(shown)


def test_growth_is_drawn_beside_the_limit(tmp_path: Path) -> None:
    _, svg = written(tmp_path, SEARCH, GROWTH)

    assert {"codes read at memory speed", "one probe, median", "aim: 2", "flat"} < set(texts(svg))
    assert "128 dimensions" in texts(svg)


def test_the_same_figures_make_the_same_small_file_on_white(tmp_path: Path) -> None:
    first, second = (written(tmp_path, SEARCH, GROWTH)[1].read_text() for _ in range(2))

    assert first == second
    assert len(first) < 100_000
    assert "fill: #ffffff" in first
    assert not any(line.endswith(" ") for line in first.splitlines())


@pytest.mark.parametrize("wrong", [{"paced": {}}, {}])
def test_other_figures_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    result, svg = written(tmp_path, wrong)

    assert result.exit_code == 1
    assert "no figures" in result.output
    assert not svg.exists()
