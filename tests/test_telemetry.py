"""Nothing that biodedup imports reports its use to anyone."""

import os
import subprocess
import sys
from pathlib import Path

from fastapi import FastAPI
from opentelemetry import metrics

from service.api.document import create_api


def test_onnx_runtime_is_told_not_to_report_before_it_is_imported(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environ |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    probe = "import service.face.sessions, os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
    subprocess.run([sys.executable, "-c", probe], env=environ, check=True, timeout=120)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_fastapi_records_nothing_even_where_an_exporter_is_set_up() -> None:
    metrics.set_meter_provider(metrics.NoOpMeterProvider())  # counts as set up: FastAPI would record into it
    assert FastAPI()._native_telemetry.enabled()
    assert not create_api("0")._native_telemetry.enabled()
