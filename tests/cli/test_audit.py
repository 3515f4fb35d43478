"""`biodedup audit` and `biodedup subject`: tampering with a real record is found by the command."""

import itertools
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from service.audit_chain import AuditEntry
from tests.api.live import fake_app, fake_settings, running, wait_until_ready
from tests.audit_tampering import rewrite
from tests.cli.conftest import run

_numbers = itertools.count(1)

CHANGE = """UPDATE audit_entries SET client_id = 'client:nobody' WHERE chain = ? AND seq = 6"""
DROP = """DELETE FROM audit_entries WHERE chain = ? AND seq = 6"""
CUT = """DELETE FROM audit_entries WHERE chain = ? AND seq >= 6"""
MAKE_ROOM = """UPDATE audit_entries SET seq = seq + 1000 WHERE chain = ? AND seq >= 6"""
CLOSE_UP = """UPDATE audit_entries SET seq = seq - 999 WHERE chain = ? AND seq >= 1006"""
PLANT = """INSERT INTO audit_entries SELECT chain, 6, created_at, event, outcome, 'client:nobody', purpose,
           agreement_id, request_id, details, subject_references, previous, hash
           FROM audit_entries WHERE chain = ? AND seq = 3"""
APPEND = """INSERT INTO audit_entries SELECT chain, 900, created_at, event, outcome, client_id, purpose, agreement_id,
            request_id, details, subject_references, previous, hash FROM audit_entries WHERE chain = ? AND seq = 3"""
SWAP = (
    """UPDATE audit_entries SET seq = 1000 WHERE chain = ? AND seq = 4""",
    """UPDATE audit_entries SET seq = 4 WHERE chain = ? AND seq = 8""",
    """UPDATE audit_entries SET seq = 8 WHERE chain = ? AND seq = 1000""",
)


@dataclass(frozen=True)
class Live:
    url: str
    record: Path
    anchors: Path

    def execute(self, gallery: str, *statements: str) -> None:
        with closing(sqlite3.connect(self.record, timeout=30)) as connection:
            for statement in statements:
                assert connection.execute(statement, (gallery,)).rowcount > 0
            connection.commit()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("audited")
    anchors = folder / "anchors.jsonl"
    settings = fake_settings(folder / "var", audit_anchor_file=anchors, keep_samples=True)
    with running(fake_app(settings)) as url:
        with httpx.Client(base_url=url) as client:
            wait_until_ready(client)
        yield Live(url, folder / "var" / "biodedup.sqlite", anchors)


@pytest.fixture
def camp(live: Live) -> str:
    """A gallery of the test's own, with one person and a dozen entries."""
    name = f"camp-{next(_numbers)}"
    with httpx.Client(base_url=live.url) as client:
        client.post("/v1/galleries", json={"gallery_id": name}).raise_for_status()
        path = f"/v1/galleries/{name}"
        fields = {"subject_id": "ada", "encounter_id": "e-1", "site": "<b>Gate</b> 4"}
        client.post(f"{path}/enrolments", files={"sample": b"ada/1"}, data=fields).raise_for_status()
        for _ in range(9):
            client.get(f"{path}/subjects/ada").raise_for_status()
    return name


@pytest.fixture(autouse=True)
def _at(live: Live, monkeypatch: pytest.MonkeyPatch, _own_settings: None) -> None:
    monkeypatch.setenv("BIODEDUP_URL", live.url)


def export(gallery: str, folder: Path) -> Path:
    out = folder / f"{gallery}.jsonl"
    assert run("audit", "export", "-g", gallery, "--out", out).exit_code == 0
    return out


def test_a_chain_that_nobody_touched_is_whole(camp: str, tmp_path: Path) -> None:
    result = run("audit", "verify", "-g", camp)
    assert (result.exit_code, f"{camp}: whole, 12 entries" in result.stdout) == (0, True), result.stderr
    result = run("audit", "verify", "--file", export(camp, tmp_path))
    assert (result.exit_code, f"{camp}: whole, 13 entries" in result.stdout) == (0, True), result.stderr
    assert "without --anchors" in result.stderr


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        ([CHANGE], "CHANGED at entry 6"),
        ([DROP], "REMOVED at entry 6"),
        ([CUT], "REMOVED at entry 6"),
        ([MAKE_ROOM, PLANT, CLOSE_UP], "INSERTED at entry 6"),
        ([APPEND], "INSERTED at entry 900"),
        (SWAP, "REORDERED at entry 4"),
    ],
)
def test_what_is_done_to_the_record_is_found_by_the_command(
    live: Live, camp: str, statements: list[str], found: str
) -> None:
    live.execute(camp, *statements)

    result = run("audit", "verify", "-g", camp)
    assert result.exit_code == 1
    assert f"{camp}: {found}" in result.stdout
    assert "audit_chain_broken" in result.stderr


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        ([CHANGE], "CHANGED at entry 6"),
        ([DROP], "REMOVED at entry 6"),
        ([MAKE_ROOM, PLANT, CLOSE_UP], "INSERTED at entry 6"),
        (SWAP, "REORDERED at entry 4"),
    ],
)
def test_an_export_shows_it_without_the_service(
    live: Live, camp: str, statements: list[str], found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.execute(camp, *statements)
    file = export(camp, tmp_path)
    monkeypatch.setenv("BIODEDUP_URL", "http://127.0.0.1:1")

    result = run("audit", "verify", "--file", file)
    assert result.exit_code == 1
    assert f"{camp}: {found}" in result.stdout


def test_only_an_anchor_tells_of_a_chain_that_was_written_anew(live: Live, camp: str, tmp_path: Path) -> None:
    entries = [AuditEntry.from_line(line) for line in export(camp, tmp_path).read_text().splitlines()]
    anchors = tmp_path / "anchors.jsonl"
    kept = [{"time": "", "chain": camp, "seq": seq, "hash": entries[seq - 1].hash.hex()} for seq in (3, 9)]
    anchors.write_text("".join(json.dumps(each) + "\n" for each in kept))
    assert run("audit", "verify", "-g", camp, "--anchors", anchors).exit_code == 0

    rewrite(live.record, camp, 6)

    result = run("audit", "verify", "-g", camp)
    assert (result.exit_code, "without --anchors nobody can tell" in result.stderr) == (0, True)
    result = run("audit", "verify", "-g", camp, "--anchors", anchors)
    assert (result.exit_code, f"{camp}: REWRITTEN at entry 9 or before; up to 3 " in result.stdout) == (1, True)
    result = run("audit", "verify", "--file", export(camp, tmp_path), "--anchors", anchors)
    assert (result.exit_code, "REWRITTEN at entry 9 or before; up to 3 " in result.stdout) == (1, True)


def test_a_chain_that_is_gone_altogether_is_told_by_its_anchors(live: Live, camp: str, tmp_path: Path) -> None:
    anchors = tmp_path / "anchors.jsonl"
    anchors.write_text(json.dumps({"time": "", "chain": "vanished", "seq": 9, "hash": "ab" * 32}) + "\n")
    result = run("audit", "verify", "--anchors", anchors)
    assert (result.exit_code, "vanished: REMOVED" in result.stdout) == (1, True)


def test_a_gallery_without_its_head_is_broken_and_not_missing(live: Live, camp: str) -> None:
    live.execute(camp, "DELETE FROM audit_chains WHERE chain = ?")
    result = run("audit", "verify", "-g", camp)
    assert (result.exit_code, f"{camp}: REMOVED" in result.stdout) == (1, True)
    answer = httpx.get(f"{live.url}/v1/galleries/{camp}/subjects/ada")
    assert (answer.status_code, answer.json()["code"]) == (500, "audit_chain_broken")


def test_a_chain_that_takes_no_entry_is_verified_all_the_same(live: Live, camp: str) -> None:
    live.execute(camp, APPEND.replace("900", "13"))
    assert run("audit", "verify", "-g", camp).exit_code == 1
    trail = httpx.get(f"{live.url}/v1/audit", params={"limit": 200}).json()["items"]
    assert (trail[-1]["outcome"], trail[-1]["details"]["gallery_id"]) == ("inserted", camp)


@pytest.mark.parametrize("content", ["", "nothing\n", '{"a":1}\n'])
def test_a_file_without_entries_or_anchors_is_refused(content: str, tmp_path: Path, camp: str) -> None:
    file = tmp_path / "file"
    file.write_text(content)
    for arguments in (("--file", file), ("-g", camp, "--anchors", file)):
        result = run("audit", "verify", *arguments)
        assert (result.exit_code, "source_unreadable" in result.stderr) == (1, True)


def test_the_trail_of_the_service_and_a_spreadsheet_can_be_exported(camp: str, tmp_path: Path) -> None:
    assert run("audit", "export", "--out", tmp_path / "service.jsonl").exit_code == 0
    result = run("audit", "export", "-g", camp, "--format", "csv", "--out", tmp_path / "camp.csv")
    assert (result.exit_code, "12 entries" in result.stdout) == (0, True)
    assert (tmp_path / "camp.csv").read_text().startswith("chain,seq,created_at,event")
    assert run("audit", "export", "-g", "nowhere", "--out", tmp_path / "none.jsonl").exit_code == 1
    assert sorted(each.name for each in tmp_path.glob("*.*")) == ["camp.csv", "service.jsonl"]
    assert (tmp_path / "camp.csv").stat().st_mode & 0o077 == 0


def test_a_person_gets_a_report_to_read_and_one_for_machines(camp: str, tmp_path: Path) -> None:
    result = run("subject", "report", "ada", "-g", camp, "--out", tmp_path / "reports")
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "reports" / "access-report-ada.json").read_text())
    page = (tmp_path / "reports" / "access-report-ada.html").read_text()
    assert [each["event"] for each in found["looks"]][-2:] == ["subject.viewed", "subject.reported"]
    assert "&lt;b&gt;Gate&lt;/b&gt; 4" in page
    assert page.count("subject.viewed") == 9
    assert {each.stat().st_mode & 0o077 for each in (tmp_path / "reports").iterdir()} == {0}
    assert run("subject", "report", "nobody", "-g", camp, "--out", tmp_path).exit_code == 1
