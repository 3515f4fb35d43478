"""`biodedup retention` beside a service that needs no weights."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from service.__main__ import commands
from tests.api.live import fake_app, fake_settings, running, wait_until_ready
from tests.cli.conftest import run

GALLERY = "/v1/galleries/default"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A service with `ada` and `bob` in the gallery `default`."""
    settings = fake_settings(tmp_path / "var", keep_samples=True)
    with running(fake_app(settings)) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        for name in ("ada", "bob"):
            sent = {"sample": f"{name}/1".encode()}
            client.post(f"{GALLERY}/enrolments", files=sent, data={"subject_id": name}).raise_for_status()
        yield url


def people(url: str) -> list[str]:
    return [each["subject_id"] for each in httpx.get(f"{url}{GALLERY}/subjects").json()["items"]]


def report_of(url: str) -> int:
    number: int = httpx.post(f"{url}{GALLERY}/retention/reports").json()["report_id"]
    return number


def test_a_rule_is_set_bit_by_bit_and_shown(url: str) -> None:
    assert "kept without limit" in run("retention", "show", "default", "--url", url).stdout
    first = run("retention", "set", "default", "--retain-days", 730, "--retain-samples-days", 180, "--url", url)
    assert first.exit_code == 0, first.stderr
    run("retention", "set", "default", "--campaign-ends-at", "2027-06-30", "--automatic", "--url", url)
    shown = run("retention", "show", "default", "--url", url).stdout
    for words in ("730 days from the latest", "180 days", "2027-06-30T00:00:00Z", "erased a day later"):
        assert words in shown
    run("retention", "set", "default", "--retain-days", 0, "--campaign-ends-at", "never", "--url", url)
    rule = httpx.get(f"{url}{GALLERY}/retention").json()["rule"]
    assert (rule["retain_days"], rule["retain_samples_days"], rule["campaign_ends_at"]) == (None, 180, None)


def test_a_report_erases_nothing_and_a_run_erases_it(url: str) -> None:
    run("retention", "set", "default", "--campaign-ends-at", "2020-01-01", "--url", url)
    held = run("retention", "hold", "default", "--subject", "bob", "--reason", "complaint 17", "--url", url)
    assert "bob is under legal hold since" in held.stdout
    made = run("retention", "report", "default", "--url", url)
    for words in ("ada", "the campaign ended", "under legal hold", "1 subjects", "To erase this"):
        assert words in made.stdout
    assert people(url) == ["ada", "bob"]
    done = run("retention", "run", "default", 1, "--yes", "--url", url)
    assert done.exit_code == 0, done.stderr
    assert "Erased: 1 subjects" in done.stdout
    assert "erased" in done.stderr
    assert people(url) == ["bob"]
    again = run("retention", "run", "default", 1, "--url", url)
    assert (again.exit_code, "is done" in again.stdout) == (0, True)


def test_a_run_that_is_not_wanted_is_not_begun(url: str) -> None:
    run("retention", "set", "default", "--campaign-ends-at", "2020-01-01", "--url", url)
    result = run("retention", "run", "default", report_of(url), "--url", url)
    assert result.exit_code == 1
    assert "This cannot be undone" in result.stdout
    assert people(url) == ["ada", "bob"]


def test_holds_are_listed_shown_and_lifted(url: str) -> None:
    run("retention", "hold", "default", "--reason", "court order", "--url", url)
    run("retention", "hold", "default", "--subject", "ada", "--reason", "complaint", "--url", url)
    listed = run("retention", "holds", "default", "--url", url).stdout
    assert "The whole gallery" in listed
    assert "ada" in listed
    assert "complaint" not in listed
    explained = run("retention", "holds", "default", "--reasons", "--url", url).stdout
    assert re.search(r"The whole gallery.*court order", explained)
    assert re.search(r"ada.*complaint", explained)
    assert "legal hold" in run("gallery", "show", "default", "--url", url).stdout
    shown = run("retention", "show", "default", "--url", url).stdout
    assert "since 20" in shown
    first = run("retention", "lift", "default", "--subject", "ada", "--url", url)
    assert "still under hold" in first.stdout
    assert "The hold is lifted." in run("retention", "lift", "default", "--url", url).stdout
    gone = run("retention", "lift", "default", "--url", url)
    assert (gone.exit_code, "hold_not_found" in gone.stderr) == (1, True)


def test_a_reason_is_asked_for(url: str) -> None:
    result = CliRunner().invoke(commands, ["retention", "hold", "default", "--url", url], input="typed reason\n")
    assert result.exit_code == 0, result.stderr
    assert httpx.get(f"{url}{GALLERY}/hold").json()["reason"] == "typed reason"


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "default"),
        ("set", "default", "--retain-days", "-1"),
        ("set", "default", "--campaign-ends-at", "soon"),
        ("run", "default"),
        ("run", "default", "0"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert run("retention", *arguments).exit_code == 2


def test_what_the_service_refuses_is_said(url: str) -> None:
    result = run("retention", "run", "default", 99, "--yes", "--url", url)
    assert (result.exit_code, "retention_report_not_found" in result.stderr) == (1, True)
