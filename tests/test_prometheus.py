"""A real Prometheus reads what the service tells."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from tests.faces import face_samples
from tests.server import Server, free_port
from tests.test_alert_rules import RULES

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
    with Server(tmp_path / "var", {"BIODEDUP_METRIC_SITES": "KE-12"}) as server:
        httpx.get(f"{server.url}/metrics").raise_for_status()
        _busy(server)
        with _scraping(prometheus, tmp_path, server) as address:
            assert _query(address, 'biodedup_gallery_templates{gallery="default"}') == 7
            assert _query(address, "sum(biodedup_enrolments_total)") == 7
            assert _query(address, 'biodedup_phase_seconds_count{phase="embed"}') == 7
            assert _query(address, 'biodedup_index_lag_changes{gallery="default"}') == 0
            _come_again(server)
            _decide(server)
            _every_rule_has_its_series(address, server)


@contextmanager
def _scraping(prometheus: str, folder: Path, server: Server) -> Iterator[str]:
    """A Prometheus that asks every second and evaluates our rules every second, until the block is left."""
    address = f"127.0.0.1:{free_port()}"
    groups = yaml.safe_load(RULES.read_text())["groups"]
    for group in groups:
        group["interval"] = "1s"
    (folder / "rules.yml").write_text(yaml.safe_dump({"groups": groups}))
    target = {"job_name": "biodedup", "static_configs": [{"targets": [server.url.removeprefix("http://")]}]}
    config = folder / "prometheus.yml"
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s"},
                "scrape_configs": [target],
                "rule_files": [str(folder / "rules.yml")],
            }
        )
    )
    command = [prometheus, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def _come_again(server: Server) -> None:
    """After the sample was drawn by a scrape: new and known people, with a site, one of them without a face."""
    url = f"{server.url}/v1/galleries/default/enrolments"
    for sample in face_samples(10)[7:]:
        for subject_id in ("S-1", "S-2"):
            httpx.post(url, files={"sample": sample}, data={"subject_id": subject_id, "site": "KE-12"}, timeout=60)
    httpx.post(url, files={"sample": b"no photograph"}, data={"site": "KE-12"}, timeout=60)


def _decide(server: Server) -> None:
    """A human looks at every case: each two names of the people who came again are one person."""
    url = f"{server.url}/v1/galleries/default/cases"
    cases = httpx.get(url).json()["items"]
    assert "DUPLICATE" in {case["kind"] for case in cases}
    for case in cases:
        body = {"verdict": "SAME_PERSON", "decided_by": "analyst-7"}
        httpx.put(f"{url}/{case['case_id']}/decision", json=body).raise_for_status()


def _every_rule_has_its_series(address: str, server: Server) -> None:
    """What `/metrics` shows of these people reaches Prometheus, and every rule is evaluated on it without an error."""
    assert _query(address, 'biodedup_impostor_probes_total{gallery="default"} > 0') == 6
    assert _query(address, "biodedup:upheld:total > 0") == _query(address, "biodedup:adjudicated:total > 0")
    shown = httpx.get(f"{server.url}/metrics").text
    assert 'biodedup_site_samples_total{site="KE-12",usable="false"} 1.0' in shown
    assert 'biodedup_site_samples_total{site="KE-12",usable="true"} 6.0' in shown
    assert 'biodedup_searches_total{flagged="true",gallery="default"}' in shown
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            # misses are known where a case of a sweep was decided: promtool has such cases, this service made no sweep
            if "record" in rule and "fnir" not in rule["record"] and "known_duplicates" not in rule["record"]:
                _query(address, rule["record"])  # fails where it stays empty
            else:
                found = httpx.get(f"http://{address}/api/v1/query", params={"query": rule["expr"]}, timeout=5).json()
                assert found["status"] == "success", rule["expr"]
    states = httpx.get(f"http://{address}/api/v1/rules", timeout=5).json()["data"]["groups"]
    evaluated = [rule for group in states for rule in group["rules"]]
    assert {rule["health"] for rule in evaluated} == {"ok"}
    assert len(evaluated) == sum(len(group["rules"]) for group in yaml.safe_load(RULES.read_text())["groups"])


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
