"""The tables of the documents are printed from the files of the benchmarks."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import speed

ROW: dict[str, Any] = {
    "build_seconds": 40.4,
    "ram_bytes_per_template": 373.1,
    "disk_bytes_per_template": 2387.3,
    "one_probe_median_ms": 4.93,
    "one_probe_p99_ms": 9.41,
    "batch_probes_per_s": 1792.4,
    "mates_found": 1.0,
    "pairs_at_threshold_found": 1.0,
    "pairs_at_threshold_found_fpir_50": 0.9937,
    "one_probe_vs_flat": 36.59,
    "miss_bound": 0.00009,
}
SEARCH: dict[str, Any] = {
    "gallery_size": 1_000_000,
    "dimension": 512,
    "threads": 2,
    "thresholds": {"0.01": 0.377, "0.5": 0.323},
    "methods": {"biodedup": ROW, "gemm": ROW | {"disk_bytes_per_template": None, "mates_found": None}},
}
SIZE: dict[str, Any] = {
    "templates": 2_000_000,
    "threshold": 0.3814,
    "one_probe_median_ms": 5.21,
    "one_probe_p99_ms": 9.9,
    "bandwidth_gb_per_s": 35.7,
    "limit_ms": 2.69,
    "times_limit": 1.937,
    "mates_found": 1.0,
    "mates_at_threshold": 842,
    "rss_anon_bytes": 3 * 2**29,
    "fill_seconds": 58.2,
}
GROWTH: dict[str, Any] = {
    "dimension": 128,
    "threads": 2,
    "growth": 0.9,
    "sizes": [SIZE],
    "flat": {"templates": 1_000_000, "one_probe_median_ms": 172.4, "default_one_probe_median_ms": 86.2},
}


def printed(folder: Path, figures: dict[str, Any]) -> list[str]:
    file = folder / "figures.json"
    file.write_text(json.dumps(figures))
    result = CliRunner().invoke(speed.app, ["table", str(file)])
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_each_method_has_a_row_and_what_it_lacks_is_a_dash(tmp_path: Path) -> None:
    lines = printed(tmp_path, SEARCH)
    assert lines[0] == "### 1,000,000 x 512, 2 threads, thresholds 0.377 (FPIR 1 %) and 0.323 (50 %)"
    assert "| `biodedup` | 40 | 373 / 2,387 | 4.9 / 9.4 | 1,792 | 100.00% | 100.00% / 99.37% |" in lines
    assert "| `gemm` | 40 | 373 / – | 4.9 / 9.4 | 1,792 | – | 100.00% / 99.37% |" in lines
    assert "`one_probe_vs_flat` 36.6, `miss_bound` 0.00009." in lines
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


@pytest.mark.parametrize("has_flat", [True, False])
def test_each_size_has_a_row(tmp_path: Path, has_flat: bool) -> None:
    lines = printed(tmp_path, GROWTH if has_flat else GROWTH | {"flat": None})
    assert lines[0] == "### Growth to 2,000,000 x 128, 2 threads"
    assert "| 2,000,000 | 0.381 | 5.2 / 9.9 | 36 | 2.7 | 1.94 | 100.00% of 842 | 1.5 GiB | 58 s |" in lines
    assert any("172 ms a probe, 86 with its default" in line for line in lines) == has_flat


def test_figures_without_ours_or_of_an_earlier_version_are_printed_too(tmp_path: Path) -> None:
    lines = printed(tmp_path, SEARCH | {"methods": {"gemm": ROW}})
    assert "| `gemm` | 40 | 373 / 2,387 | 4.9 / 9.4 | 1,792 | 100.00% | 100.00% / 99.37% |" in lines
    old = {key: value for key, value in SIZE.items() if key != "bandwidth_gb_per_s"}
    lines = printed(tmp_path, {"dimension": 128, "threads": 2, "growth": 0.9, "sizes": [old]})
    assert "| 2,000,000 | 0.381 | 5.2 / 9.9 | – | 2.7 | 1.94 | 100.00% of 842 | 1.5 GiB | 58 s |" in lines


def test_other_figures_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    file.write_text('{"paced": {}}')
    result = CliRunner().invoke(speed.app, ["table", str(file)])
    assert result.exit_code == 1
    assert "no figures" in result.output
