"""`biodedup calibrations` beside a service that needs no weights."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.api.live import fake_app, fake_settings, running, wait_until_ready
from tests.api.test_sweeps import import_crowd
from tests.cli.conftest import run
from tests.fake_embedder import DIMENSION, fake_calibration
from tests.sweeping import crowd_of

BROUGHT = replace(fake_calibration(), people=1499)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A service with 140 people in the gallery `default`, ten of them twice."""
    with running(fake_app(fake_settings(tmp_path / "var"))) as url:
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
        import_crowd(tmp_path / "var", crowd_of(150, planted=10, dimension=DIMENSION))
        yield url


def test_a_gallery_makes_a_calibration_uses_it_and_goes_back(url: str) -> None:
    made = run("calibrations", "make", "default", "--url", url)
    assert made.exit_code == 0, made.stderr
    assert "150 people of the gallery default" in made.stdout
    assert "look like one person under two names" in made.stderr
    made_id = made.stdout.rpartition(" ")[2].strip()
    assert made_id in run("calibrations", "list", "default", "--url", url).stdout

    used = run("calibrations", "use", "default", made_id, "--url", url)
    assert used.exit_code == 0, used.stderr
    assert f"* {made_id}" in used.stdout

    run("calibrations", "use", "default", fake_calibration().calibration_id, "--url", url)
    back = run("calibrations", "back", "default", "--url", url)
    assert f"* {made_id}" in back.stdout
    history = run("calibrations", "history", "default", "--url", url)
    assert history.stdout.count("calibration") >= 3
    assert made_id in history.stdout


def test_a_file_is_brought(url: str, tmp_path: Path) -> None:
    file = tmp_path / "made.json"
    file.write_text(BROUGHT.to_json(), encoding="utf-8")
    added = run("calibrations", "add", "default", file, "--url", url)
    assert added.exit_code == 0, added.stderr
    assert BROUGHT.calibration_id in added.stdout
    file.write_text("[1]", encoding="utf-8")
    assert "invalid_request" in run("calibrations", "add", "default", file, "--url", url).stderr
    file.write_text("{", encoding="utf-8")
    assert "source_unreadable" in run("calibrations", "add", "default", file, "--url", url).stderr


def test_there_is_no_way_back_from_the_first(url: str) -> None:
    refused = run("calibrations", "back", "default", "--url", url)
    assert refused.exit_code == 1
    assert "calibration_not_found" in refused.stderr
