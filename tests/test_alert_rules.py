"""The alert rules of deploy/prometheus/: each is seen to fire and to stay silent, and has a runbook."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.metrics import Metrics

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy" / "prometheus"
RULES = FOLDER / "biodedup-accuracy.rules.yml"
CASES = FOLDER / "biodedup-accuracy.test.yml"


def rules(kind: str) -> list[dict[str, Any]]:
    """The rules of a kind: `alert` or `record`."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def cases() -> list[dict[str, Any]]:
    found = [each for case in yaml.safe_load(CASES.read_text())["tests"] for each in case["alert_rule_test"]]
    assert found
    return found


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    return subprocess.run([found, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=300)


def test_every_alert_fires_and_stays_silent_where_it_should() -> None:
    done = promtool("test", "rules", CASES.name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_has_nothing_to_say_against_the_rules() -> None:
    done = promtool("check", "rules", RULES.name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    alerts = {rule["alert"] for rule in rules("alert")}
    assert {each["alertname"] for each in cases() if each["exp_alerts"]} == alerts
    assert {each["alertname"] for each in cases() if not each["exp_alerts"]} == alerts


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    named = {rule["annotations"]["runbook"]: rule["alert"] for rule in rules("alert")}
    pages = {f"docs/runbooks/{page.name}": page for page in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert named.keys() == pages.keys()
    for name, alert in named.items():
        text = pages[name].read_text()
        assert alert in text.splitlines()[0]
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["What it means", "What to look at", "What to do"]


def test_every_metric_in_a_rule_exists() -> None:
    exposed = {family.name for family in Metrics().registry.collect()}
    recorded = {rule["record"] for rule in rules("record")}
    expressions = [rule["expr"] for kind in ("alert", "record") for rule in rules(kind)]
    used = {name for expression in expressions for name in re.findall(r"\bbiodedup[_:][\w:]+", expression)}
    assert len(used) > 20
    unknown = {name for name in used - recorded if re.sub(r"_(total|bucket|count)$", "", name) not in exposed}
    assert unknown == set()
