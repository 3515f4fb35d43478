"""The load test runs against a real service and finds no failure."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import Server

LOCUSTFILE = Path(__file__).parents[2] / "benchmarks" / "locustfile.py"


@pytest.mark.models
def test_a_few_desks_get_answers_without_a_failure(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", server.url, "--headless"]
        options = ["-u", "4", "-r", "4", "-t", "8s", "--csv", str(tmp_path / "load"), "--only-summary"]
        options += ["--stop-timeout", "60"]  # on a busy machine, what was begun is waited for
        run = subprocess.run([*command, *options], check=False, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Traceback" not in run.stderr, run.stderr[-2000:]
    with (tmp_path / "load_stats.csv").open() as table:
        rows = {row["Name"]: row for row in csv.DictReader(table)}
    assert int(rows["enrol"]["Request Count"]) > 0
    assert int(rows["Aggregated"]["Failure Count"]) == 0
