"""Nothing that biodedup imports reports its use to anyone."""

import os
import subprocess
import sys
from pathlib import Path


def test_onnx_runtime_is_told_not_to_report_before_it_is_imported(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environ |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    probe = "import service.face.sessions, os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
    subprocess.run([sys.executable, "-c", probe], env=environ, check=True, timeout=120)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
