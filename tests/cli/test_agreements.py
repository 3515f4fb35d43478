"""`biodedup agreements`: made, used, seen by both sides and ended from the command line."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks.recapture import recapture
from tests.cli.conftest import run
from tests.faces import face_of, to_jpeg
from tests.server import Server

pytestmark = pytest.mark.models

TOMORROW = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()


def made(server: Server, gallery: str, level: str, *more: object) -> str:
    result = run(
        "agreements", "add", gallery, "--partner", "local", "--purpose", "double-registration", "--until", TOMORROW,
        "--disclosure", level, *more, "--url", server.url,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    found = re.search(r"--agreement ([0-9a-f]{32})", result.stdout)
    assert found is not None, result.stdout
    return found[1]


@pytest.fixture
def visitor(server: Server, gallery: str, tmp_path: Path) -> Path:
    """A photograph of somebody who is enrolled as `ada`."""
    folder = tmp_path / "people" / "ada"
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(to_jpeg(face_of(0)))
    assert run("enrol", tmp_path / "people", "-g", gallery, "--url", server.url).exit_code == 0
    (tmp_path / "visitor.jpg").write_bytes(recapture(face_of(0), seed=2))
    return tmp_path / "visitor.jpg"


@pytest.mark.parametrize(
    ("level", "told", "hidden"),
    [
        ("hit-or-no-hit", ["Hit", "nobody was enrolled"], ["ada", "score"]),
        ("candidate-references", ["Hit", "ada"], ["score"]),
        ("full", ["Hit", "ada", "score"], []),
    ],
)
def test_a_search_tells_what_its_level_lets(
    server: Server, gallery: str, visitor: Path, level: str, told: list[str], hidden: list[str]
) -> None:
    agreement = made(server, gallery, level)

    result = run("identify", visitor, "--agreement", agreement, "--url", server.url)

    assert result.exit_code == 0, result.stderr
    assert all(words in result.stdout for words in told), result.stdout
    assert not any(words in result.stdout for words in hidden), result.stdout


def test_a_second_agreement_for_one_purpose_is_made_with_a_warning(server: Server, gallery: str) -> None:
    ended, first = made(server, gallery, "full"), made(server, gallery, "full")
    assert run("agreements", "end", gallery, ended, "--url", server.url).exit_code == 0
    add = ("agreements", "add", gallery, "--until", TOMORROW, "--url", server.url, "--partner")

    again = run(*add, "local", "--purpose", "double-registration")

    assert again.exit_code == 0
    assert f"local may search for this purpose under {first} too" in again.stderr
    for partner, purpose in (("local", "other"), ("client:x", "double-registration")):
        result = run(*add, partner, "--purpose", purpose)
        assert (result.exit_code, result.stderr) == (0, "")


def test_both_sides_see_the_search_and_the_end(server: Server, gallery: str, visitor: Path) -> None:
    agreement = made(server, gallery, "hit-or-no-hit", "--per-day", 1)
    assert run("identify", visitor, "--agreement", agreement, "--url", server.url).exit_code == 0

    for side in ((), ("--gallery", gallery)):
        uses = run("agreements", "uses", agreement, *side, "--url", server.url)
        assert uses.exit_code == 0, uses.stderr
        assert re.search(r"local.*hit.*yes", uses.stdout), uses.stdout
        listed = run("agreements", "list", *side, "--url", server.url)
        assert "active" in listed.stdout
    again = run("identify", visitor, "--agreement", agreement, "--url", server.url)
    assert (again.exit_code, "agreement_limit_reached" in again.stderr) == (1, True)
    ended = run("agreements", "end", gallery, agreement, "--url", server.url)
    assert "ended" in ended.stdout
    late = run("identify", visitor, "--agreement", agreement, "--url", server.url)
    assert (late.exit_code, "agreement_not_found" in late.stderr) == (1, True)
