"""`biodedup gallery sweep` beside a service that needs no weights."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from service.cli.sweeps import _duration
from service.domain import Lease
from service.store.sql_store import SqlStore
from tests.api.live import fake_app, fake_settings, running, wait_until_ready
from tests.api.test_sweeps import import_crowd
from tests.cli.conftest import run
from tests.fake_embedder import DIMENSION
from tests.sweeping import Crowd, crowd_of

CROWD = crowd_of(60, planted=20, dimension=DIMENSION)


@pytest.fixture
def var_dir(tmp_path: Path) -> Path:
    return tmp_path / "var"


@pytest.fixture
def url(var_dir: Path) -> Iterator[str]:
    """A service with a crowd in the gallery `default` that nobody compared."""
    with running(fake_app(fake_settings(var_dir))) as url:
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
        import_crowd(var_dir, CROWD)
        yield url


def test_a_sweep_shows_its_plan_and_the_pairs_it_found(url: str) -> None:
    result = run("gallery", "sweep", "default", "--yes", "--url", url)
    assert result.exit_code == 0, result.stderr
    for words in ("Sweep of default", "1,770", "false pairs allowed", "expected misses", "estimated time"):
        assert words in result.stdout
    for words in ("Possible duplicates", "s-59", "s-19", "60 of 60 templates", "A person must decide"):
        assert words in result.stdout
    assert "cases" in result.stderr


def test_a_sweep_against_another_gallery_says_where_the_others_are(url: str, var_dir: Path) -> None:
    httpx.post(f"{url}/v1/galleries", json={"gallery_id": "village"}).raise_for_status()
    import_crowd(var_dir, Crowd(CROWD.rows[:2], ["v-0", "v-1"]), "village")

    result = run("gallery", "sweep", "default", "--against", "village", "--yes", "--url", url)

    assert result.exit_code == 0, result.stderr
    for words in ("Sweep of default against village", "120", "v-1 in village", "60 of 60 templates"):
        assert words in result.stdout


def test_only_the_pairs_of_this_sweep_are_shown(url: str) -> None:
    run("gallery", "sweep", "default", "--yes", "--url", url)

    again = run("gallery", "sweep", "default", "--yes", "--url", url)

    assert "0 cases opened" in again.stdout
    assert "Possible duplicates" not in again.stdout


def test_a_sweep_that_is_not_wanted_is_not_begun(url: str) -> None:
    result = run("gallery", "sweep", "default", "--url", url)
    assert result.exit_code == 1
    assert "Begin?" in result.stdout
    assert httpx.get(f"{url}/v1/galleries/default/sweeps").json()["items"] == []


def begin_elsewhere(var_dir: Path) -> int:
    """Begin a sweep of `default` in the hands of another process, so that it does not end; return its number."""
    store = SqlStore(f"sqlite:///{var_dir}/biodedup.sqlite")
    with store.sweeping("default") as sweeping:
        begun = sweeping.begin_sweep(10, 0.4)
        sweeping.lease_sweep(begun.job_id, Lease("somebody else", datetime.now(UTC) + timedelta(hours=1)))
    store.close()
    return begun.job_id


@pytest.mark.parametrize("options", [["--yes"], ["--cancel"]])
def test_another_sweep_than_the_one_under_way_is_refused(url: str, var_dir: Path, options: list[str]) -> None:
    httpx.post(f"{url}/v1/galleries", json={"gallery_id": "village"}).raise_for_status()
    job_id = begin_elsewhere(var_dir)

    result = run("gallery", "sweep", "default", "--against", "village", *options, "--url", url)

    assert result.exit_code == 1
    assert f"Sweep {job_id} of default against itself is under way" in result.stderr
    assert "(sweep_underway)" in result.stderr
    again = run("gallery", "sweep", "default", "--against", "default", "--cancel", "--url", url)
    assert f"Sweep {job_id} is cancelled" in again.stdout


def test_the_same_command_shows_a_sweep_that_is_under_way_and_cancels_it(url: str, var_dir: Path) -> None:
    job_id = begin_elsewhere(var_dir)

    cancelled = run("gallery", "sweep", "default", "--cancel", "--url", url)
    again = run("gallery", "sweep", "default", "--cancel", "--url", url)

    assert f"Sweep {job_id} is cancelled" in cancelled.stdout
    assert again.exit_code == 1
    assert "(sweep_not_found)" in again.stderr


def test_a_sweep_of_no_gallery_fails_with_its_code(url: str) -> None:
    result = run("gallery", "sweep", "nowhere", "--yes", "--url", url)
    assert result.exit_code == 1
    assert "(gallery_not_found)" in result.stderr


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "1 s"), (59.4, "59 s"), (90, "1.5 min"), (9000, "2.5 h")])
def test_a_duration_is_said_in_its_largest_unit(seconds: float, text: str) -> None:
    assert _duration(seconds) == text
