"""`biodedup plan`: here with a pack's calibration, or by asking the service about a gallery."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import httpx
import pytest

from service.calibration import Calibration
from service.campaign import Campaign
from service.planning import Wish, plan
from tests.api.live import fake_app, fake_settings, running, wait_until_ready
from tests.cli.conftest import run
from tests.synthetic import calibration

CAMPAIGN = ("--end", 4000, "--enrolments", 150, "--duplicates", 0.05)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calibration:
    """The calibration of the only pack in the folder of models."""
    (tmp_path / "models" / "camp-pack").mkdir(parents=True)
    made = calibration()
    (tmp_path / "models" / "camp-pack" / "calibration.json").write_text(made.to_json())
    monkeypatch.setenv("BIODEDUP_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("BIODEDUP_PACK", "camp-pack")
    return made


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with one empty gallery."""
    with (
        running(fake_app(fake_settings(tmp_path_factory.mktemp("plans") / "var"))) as address,
        httpx.Client(base_url=address) as client,
    ):
        wait_until_ready(client)
        yield address


def test_it_plans_without_a_service(stored: Calibration) -> None:
    result = run("plan", "--now", 1000, *CAMPAIGN, "--capacity", 20)
    assert result.exit_code == 0, result.stderr
    expected = plan(stored, Campaign(1000, 4000, 150, 0.05), Wish(0.01, 0.001, capacity_per_day=20))
    text = " ".join(result.stdout.split())
    assert "3,000 enrolments in 20 days; the gallery grows from 1,000 to 4,000 people." in text
    assert f"review_fpir {expected.chosen.review_fpir:g}, the loosest whose cases 20 a day can decide" in text
    whole = expected.chosen.whole.missed_duplicates
    assert f"{whole.expected:,.0f} ({whole.low:,.0f} to {whole.high:,.0f})" in text
    assert f"plan for {expected.chosen.capacity_needed} cases a day" in text
    assert "synthetic people" in text


def test_misses_ask_for_the_reviewers_they_take(stored: Calibration) -> None:
    result = run("plan", "--now", 1000, *CAMPAIGN, "--misses", 0.2, "--pack", "camp-pack")
    assert result.exit_code == 0, result.stderr
    assert "the strictest at which no more than 20 % of the duplicates are expected to be missed" in result.stdout
    assert "warning" in result.stderr  # beyond 10 %


def test_what_cannot_be_had_is_said_beside_the_setting_and_warned_of(stored: Calibration) -> None:
    result = run("plan", "--now", 1000, *CAMPAIGN, "--misses", 0.0001)
    assert result.exit_code == 0
    assert "what was asked for cannot be had: see the warning" in result.stdout
    assert "warning: This pack cannot reach it" in result.stderr


def test_it_draws_what_it_plans(stored: Calibration, tmp_path: Path) -> None:
    out = tmp_path / "plan.svg"
    result = run("plan", "--now", 1000, *CAMPAIGN, "--capacity", 20, "--plot", out)
    assert result.exit_code == 0, result.stderr
    root = ET.fromstring(out.read_text("utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    drawn = "".join(root.itertext())
    chosen = plan(stored, Campaign(1000, 4000, 150, 0.05), Wish(0.01, 0.001, capacity_per_day=20)).chosen
    assert chosen.a_day.cases.expected > 10 > chosen.a_day.missed_duplicates.expected
    assert f"{chosen.a_day.cases.expected:,.0f} a day" in drawn  # as in the table
    assert f"{chosen.a_day.missed_duplicates.expected:,.1f} a day" in drawn
    assert "what reviewers can decide" in drawn


def test_an_empty_gallery_is_shown_at_the_end_of_its_first_day(stored: Calibration) -> None:
    text = run("plan", *CAMPAIGN).stdout
    assert "end of the first day" in text
    [line] = [line for line in text.splitlines() if "people enrolled" in line]
    assert [cell.strip() for cell in line.split("│")[2:4]] == ["150", "4,000"]
    assert "end of the first day" not in run("plan", "--now", 1000, *CAMPAIGN).stdout


@pytest.mark.parametrize("name", ["p2", "plan.png"])
def test_a_picture_of_another_form_is_refused(stored: Calibration, tmp_path: Path, name: str) -> None:
    result = run("plan", *CAMPAIGN, "--plot", tmp_path / name)
    assert result.exit_code == 2
    assert "ends with .svg" in " ".join(result.stderr.split())
    assert not (tmp_path / name).exists()


def test_a_picture_that_cannot_be_written_is_told(stored: Calibration, tmp_path: Path) -> None:
    result = run("plan", *CAMPAIGN, "--plot", tmp_path / "none" / "plan.svg")
    assert result.exit_code == 1
    assert "report_unwritable" in result.stderr


def test_a_gallery_is_asked_of_the_service(url: str) -> None:
    result = run("plan", "--gallery", "default", *CAMPAIGN, "--url", url)
    assert result.exit_code == 0, result.stderr
    assert "the gallery grows from 0 to 4,000 people" in " ".join(result.stdout.split())
    assert "review_fpir 0.01, the usual one" in result.stdout


def test_an_unknown_gallery_is_refused_by_the_service(url: str) -> None:
    result = run("plan", "--gallery", "nowhere", *CAMPAIGN, "--url", url)
    assert result.exit_code == 1
    assert "gallery_not_found" in result.stderr


def test_a_pack_without_a_calibration_is_named(stored: Calibration) -> None:
    result = run("plan", *CAMPAIGN, "--pack", "other")
    assert result.exit_code == 1
    assert "the pack other has no calibration" in result.stderr
    assert "biodedup models" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--now", 4000),
        ("--pack", "camp-pack", "--gallery", "default"),
        ("--review-fpir", 0.1, "--misses", 0.1),
        ("--capacity", 0),
    ],
    ids=str,
)
def test_wrong_usage_ends_with_2(stored: Calibration, arguments: tuple[object, ...]) -> None:
    assert run("plan", *CAMPAIGN, *arguments).exit_code == 2
