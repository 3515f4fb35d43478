"""A real Prometheus reads what the service tells."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.faces import face_samples
from tests.server import Server, free_port

pytestmark = pytest.mark.models


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install prometheus)")
    return found


def _busy(server: Server) -> None:
    for sample in face_samples(7):
        httpx.post(f"{server.url}/v1/galleries/default/enrolments", files={"sample": sample}, timeout=60)


def test_promtool_has_nothing_to_say_against_the_metrics(tmp_path: Path) -> None:
    promtool = _tool("promtool")
    with Server(tmp_path / "var") as server:
        _busy(server)
        metrics = httpx.get(f"{server.url}/metrics").text
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=metrics, capture_output=True, text=True, check=False, timeout=60
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_prometheus_scrapes_a_service_at_work(tmp_path: Path) -> None:
    prometheus = _tool("prometheus")
    with Server(tmp_path / "var") as server:
        _busy(server)
        address = f"127.0.0.1:{free_port()}"
        target = {"job_name": "biodedup", "static_configs": [{"targets": [server.url.removeprefix("http://")]}]}
        config = tmp_path / "prometheus.yml"
        config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [target]}))
        command = [prometheus, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
        with (tmp_path / "prometheus.log").open("wb") as log:
            process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
        try:
            assert _query(address, 'biodedup_gallery_templates{gallery="default"}') == 7
            assert _query(address, "sum(biodedup_enrolments_total)") == 7
            assert _query(address, 'biodedup_phase_seconds_count{phase="embed"}') == 7
            assert _query(address, 'biodedup_index_lag_changes{gallery="default"}') == 0
        finally:
            process.terminate()
            process.wait(timeout=30)


def _query(address: str, expression: str) -> float:
    """Return the value of `expression` once Prometheus has one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            found = httpx.get(f"http://{address}/api/v1/query", params={"query": expression}, timeout=5).json()
        except (httpx.TransportError, ValueError):
            found = {}
        result = found.get("data", {}).get("result", [])
        if result:
            return float(result[0]["value"][1])
        time.sleep(0.2)
    raise AssertionError(f"Prometheus has no value for {expression}")
