"""`biodedup models migrate` beside a service that needs no weights."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from tests.api.live import fake_settings, running, wait_until_ready
from tests.api.test_migrations import enrol
from tests.cli.conftest import run
from tests.migrating import NEW_PACK, UNSEEN, two_packs
from tests.synthetic import PACK_ID, calibration


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    settings = fake_settings(tmp_path / "var", pack=PACK_ID, keep_samples=True)
    with running(create_app(settings, packs=two_packs())) as url:
        with httpx.Client(base_url=url, timeout=30) as client:
            wait_until_ready(client)
            for person, capture in ((1, 0), (1, 1), (2, 0), (UNSEEN, 0)):
                enrol(client, person, capture, subject_id=f"S{person}")
        yield url


def migrate(url: str, step: str, *options: str) -> str:
    result = run("models", "migrate", step, "default", *options, "--url", url)
    assert result.exit_code == 0, result.stderr + result.stdout
    return result.stdout


def refused(url: str, step: str, *options: str) -> str:
    result = run("models", "migrate", step, "default", *options, "--url", url)
    assert result.exit_code == 1, result.stdout
    return result.stderr


def test_a_calibration_of_the_pack_before_is_shown_without_thresholds(url: str, tmp_path: Path) -> None:
    file = tmp_path / "made.json"
    brought = replace(calibration(), people=1499)
    file.write_text(brought.to_json(), encoding="utf-8")
    assert run("calibrations", "add", "default", file, "--url", url).exit_code == 0
    assert run("calibrations", "use", "default", brought.calibration_id, "--url", url).exit_code == 0
    migrate(url, "start", "--to", NEW_PACK)
    migrate(url, "cut-over", "--yes", "--accept-missing", "1")

    shown = run("calibrations", "list", "default", "--url", url)
    assert "for another pack" in shown.stdout, shown.stderr
    assert "calibration_unfit" in run("calibrations", "use", "default", brought.calibration_id, "--url", url).stderr
    assert "calibration_not_found" in run("calibrations", "back", "default", "--url", url).stderr


def test_the_steps_in_their_order(url: str) -> None:
    started = migrate(url, "start", "--to", NEW_PACK)
    for words in ("synthetic to better", "ready", "cut-over --accept-missing 1", "4 of 4", "1 people"):
        assert words in started
    compared = migrate(url, "compare")
    for words in (
        "Both packs on your own people",
        "1 pairs of encounters of 1 people",
        "1 pairs of 2 different people",
    ):
        assert words in compared
    assert migrate(url, "missing").splitlines() == ["subject_id,reason", f"S{UNSEEN},unusable"]
    assert "by their number: --accept-missing 1 (people_would_be_missed)" in refused(url, "cut-over", "--yes")
    cut = migrate(url, "cut-over", "--yes", "--accept-missing", "1")

    assert "the new pack answers" in cut
    assert "(people_would_be_missed)" in refused(url, "finish", "--yes")
    assert "(people_would_be_missed)" in refused(url, "back", "--yes", "--accept-missing", "7")
    assert "ready" in migrate(url, "back", "--yes")
    migrate(url, "cut-over", "--yes", "--accept-missing", "1")
    httpx.delete(f"{url}/v1/galleries/default/subjects/S{UNSEEN}").raise_for_status()
    assert "only the new pack is left" in migrate(url, "finish", "--yes")
    assert "only the new pack is left" in migrate(url, "status")
    assert "(better)" in run("index", "status", "default", "--url", url).stdout


def test_a_cut_over_shows_the_comparison_and_asks(url: str) -> None:
    migrate(url, "start", "--to", NEW_PACK)
    result = run("models", "migrate", "cut-over", "default", "--accept-missing", "1", "--url", url)
    assert result.exit_code == 1
    assert "Both packs on your own people" in result.stdout
    assert "Let the new pack answer from now on?" in result.stdout
    assert "ready" in migrate(url, "status")
    assert "(synthetic)" in run("index", "status", "default", "--url", url).stdout


def test_the_way_back_asks(url: str) -> None:
    migrate(url, "start", "--to", NEW_PACK)
    migrate(url, "cut-over", "--yes", "--accept-missing", "1")
    result = run("models", "migrate", "back", "default", "--url", url)
    assert result.exit_code == 1
    assert "Let the old pack answer again?" in result.stdout
    assert "the new pack answers" in migrate(url, "status")


def test_what_was_made_is_deleted_when_it_is_cancelled(url: str) -> None:
    migrate(url, "start", "--to", NEW_PACK)
    assert "only the old pack is left" in migrate(url, "cancel", "--yes")


def test_a_pack_that_is_not_loaded_is_refused_with_a_word(url: str) -> None:
    says = refused(url, "start", "--to", "unknown")
    assert "BIODEDUP_EXTRA_PACKS" in says
    assert "(migration_not_found)" in refused(url, "status")


def test_a_gallery_shows_that_its_model_changes(url: str) -> None:
    assert "changes its model" not in run("gallery", "show", "default", "--url", url).stdout
    migrate(url, "start", "--to", NEW_PACK)
    migrate(url, "cut-over", "--yes", "--accept-missing", "1")

    shown = " ".join(run("gallery", "show", "default", "--url", url).stdout.split())
    for words in ("changes its model", "better rules, synthetic stands by", "1 templates that only the latter"):
        assert words in shown
