"""The benchmark of sweeps, at a size that takes seconds."""

import json
from pathlib import Path

from typer.testing import CliRunner

from benchmarks.speed import app


def test_the_benchmark_of_a_sweep_finds_every_planted_pair_and_writes_its_figures(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"

    options = ["--gallery-size", "9000", "--planted", "40", "--dimension", "128", "--share", "0.5"]
    result = CliRunner().invoke(app, ["sweep", *options, "--json", str(file)])

    assert result.exit_code == 0, result.output
    figures = json.loads(file.read_text())
    assert 10 < figures["planted_above_threshold"] <= 40
    assert figures["planted_found"] == figures["planted_above_threshold"]
    assert figures["checked_found"] == figures["checked_pairs"] > 0
    assert 4500 <= figures["killed_at"] < 9000
    assert figures["sweep_vs_gemm"] > 0
