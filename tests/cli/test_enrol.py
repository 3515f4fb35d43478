"""`biodedup enrol` against a running service: every file has its answer, and nobody is enrolled twice."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.recapture import recapture
from service.cli.bulk import BulkEnrolment, Limits
from service.cli.client import ServiceClient, gallery_path
from service.cli.failures import CommandFailed
from service.cli.journal import Journal
from service.cli.sources import read_source
from tests.cli.conftest import run
from tests.faces import face_of, face_samples, to_jpeg
from tests.server import Server, free_port

pytestmark = pytest.mark.models


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def read_report(file: Path) -> dict[str, dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return {row["path"]: row for row in csv.DictReader(stream)}


def encounters(url: str, gallery: str) -> list[tuple[str, str]]:
    """Every encounter of a gallery as (subject, encounter), in the order of enrolment."""
    found: list[tuple[str, str]] = []
    with ServiceClient(url) as client:
        after = ""
        while True:
            path = gallery_path(gallery, "enrolments")
            page = client.get(path, after=after) if after else client.get(path)
            found += [(item["subject_id"], item["encounter_id"]) for item in page["items"]]
            if page["next_after"] is None:
                return found
            after = page["next_after"]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Three people, one of them again under another name, one with two photographs, a broken and an empty file."""
    folder = tmp_path / "photographs"
    for person, name in enumerate(("ada", "bob", "eve")):
        put(folder / name / "1.jpg", to_jpeg(face_of(person)))
    put(folder / "bob" / "2.jpg", recapture(face_of(1), seed=1))
    put(folder / "zoe" / "1.jpg", recapture(face_of(0), seed=2))
    put(folder / "broken.jpg", to_jpeg(face_of(3))[:1500])
    put(folder / "note.txt", b"Dear Sir or Madam,")
    return folder


def test_the_report_names_every_file_with_its_answer(
    server: Server, gallery: str, photographs: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.csv"
    result = run("enrol", photographs, "-g", gallery, "--url", server.url, "--report", report, "--senders", 1)
    assert result.exit_code == 0, result.stderr
    rows = read_report(report)
    assert {path: row["result"] for path, row in rows.items()} == {
        "ada/1.jpg": "enrolled",
        "bob/1.jpg": "enrolled",
        "bob/2.jpg": "enrolled",
        "eve/1.jpg": "enrolled",
        "zoe/1.jpg": "flagged",
        "broken.jpg": "rejected",
        "note.txt": "rejected",
    }
    assert rows["zoe/1.jpg"]["candidate_subject_id"] == "ada"
    assert float(rows["zoe/1.jpg"]["score"]) >= float(rows["zoe/1.jpg"]["threshold"]) > 0
    assert 0 < float(rows["zoe/1.jpg"]["false_match_rate"]) < 0.01
    assert rows["broken.jpg"]["code"] == "image_unreadable"
    assert rows["note.txt"]["code"] == "image_format_unsupported"
    for words in ("looks like ada", "image_unreadable", "enrolled 4  flagged 1  rejected 2", "7 of 7 files"):
        assert words in result.stdout


def test_a_person_of_a_further_gallery_is_flagged_and_the_journal_knows_the_difference(
    server: Server, gallery: str, tmp_path: Path
) -> None:
    put(tmp_path / "north" / "ada" / "1.jpg", to_jpeg(face_of(0)))
    put(tmp_path / "south" / "zoe" / "1.jpg", recapture(face_of(0), seed=2))
    for name in ("north", "south"):
        assert run("gallery", "create", f"{gallery}-{name}", "--url", server.url).exit_code == 0
    assert run("enrol", tmp_path / "north", "-g", f"{gallery}-north", "--url", server.url).exit_code == 0
    report = tmp_path / "report.csv"
    into = ("enrol", tmp_path / "south", "-g", f"{gallery}-south", "--url", server.url, "--report", report)

    result = run(*into, "--also-search", f"{gallery}-north")

    assert result.exit_code == 0, result.stderr
    (row,) = read_report(report).values()
    assert (row["result"], row["candidate_subject_id"]) == ("flagged", "ada")
    assert row["candidate_gallery_id"] == f"{gallery}-north"
    plain = run(*into)
    assert plain.exit_code == 1  # not answered from the journal: the encounter was enrolled by another request
    assert "encounter_exists" in plain.stdout


def test_photographs_of_one_subject_are_sent_in_their_order(server: Server, gallery: str, tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    for number in range(6):
        put(folder / "bob" / f"{number}.jpg", recapture(face_of(1), seed=number))
    assert run("enrol", folder, "-g", gallery, "--url", server.url).exit_code == 0
    assert [name.partition("-")[0] for _, name in encounters(server.url, gallery)] == list("012345")


def test_a_repeat_enrols_nobody_again_with_and_without_its_journal(
    server: Server, gallery: str, photographs: Path, tmp_path: Path
) -> None:
    reports = []
    for number, journal in enumerate(("first", "first", "second")):
        report = tmp_path / f"{number}.csv"
        arguments = ("--journal", tmp_path / f"{journal}.jsonl", "--report", report)
        assert run("enrol", photographs, "-g", gallery, "--url", server.url, *arguments).exit_code == 0
        reports.append(read_report(report))
    assert reports[0] == reports[1] == reports[2]
    assert len(encounters(server.url, gallery)) == 5


def test_a_csv_file_sends_its_facts(server: Server, gallery: str, tmp_path: Path) -> None:
    put(tmp_path / "p" / "1.jpg", to_jpeg(face_of(2)))
    file = tmp_path / "people.csv"
    file.write_text(
        "path,subject_id,encounter_id,captured_at,site,birth_year,sex,label.tent\n"
        "p/1.jpg,REG-1,E-1,2026-01-02T03:04:05Z,North,1990,female,12\n"
        "p/2.jpg,REG-2,,,,,,\n"
    )
    result = run("enrol", file, "-g", gallery, "--url", server.url)
    assert result.exit_code == 1
    assert "file_unreadable" in result.stdout
    with ServiceClient(server.url) as client:
        encounter = client.get(gallery_path(gallery, "encounters", "E-1"))
    assert encounter["subject_id"] == "REG-1"
    assert (encounter["site"], encounter["birth_year"], encounter["sex"]) == ("North", 1990, "female")
    assert encounter["labels"] == {"tent": "12"}


def test_a_folder_name_that_is_no_subject_id_fails_alone(server: Server, gallery: str, tmp_path: Path) -> None:
    put(tmp_path / "photographs" / "not an id" / "1.jpg", to_jpeg(face_of(2)))
    put(tmp_path / "photographs" / "fine" / "1.jpg", to_jpeg(face_of(3)))
    result = run("enrol", tmp_path / "photographs", "-g", gallery, "--url", server.url)
    assert result.exit_code == 1
    assert "invalid_request" in result.stdout
    assert [subject for subject, _ in encounters(server.url, gallery)] == ["fine"]


def test_an_unknown_gallery_is_named_before_anything_is_sent(server: Server, photographs: Path) -> None:
    result = run("enrol", photographs, "-g", "no-such-gallery", "--url", server.url)
    assert result.exit_code == 1
    assert "(gallery_not_found)" in result.stderr


def test_a_full_queue_is_waited_for(models_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    for number, sample in enumerate(face_samples(12)):
        put(folder / f"{number}.jpg", sample)
    environ = {
        "BIODEDUP_MODELS_DIR": str(models_dir),
        "BIODEDUP_QUEUE_LIMIT": "1",
        "BIODEDUP_WORKERS": "1",
        "BIODEDUP_QUEUE_TIMEOUT_S": "0.1",
    }
    with Server(tmp_path / "var", environ) as server:
        result = run("enrol", folder, "--url", server.url, "--senders", 12)
        metrics = httpx.get(f"{server.url}/metrics").text
        found = encounters(server.url, "default")
    assert 'code="overloaded"' in metrics
    assert result.exit_code == 0, result.stdout
    assert len(found) == 12


class Scripted(ServiceClient):
    """Refuses the first requests, with these codes."""

    def __init__(self, codes: list[str]) -> None:
        super().__init__("http://127.0.0.1:9")
        self._codes = iter(codes)

    def post_samples(self, *_: object) -> dict[str, Any]:
        code = next(self._codes, None)
        if code is not None:
            raise CommandFailed("no", code, retry_after_s=0.01)
        return {"outcome": "UNIQUE", "subject_id": "s", "encounter_id": "e", "enrolment_id": "x", "candidates": [],
                "thresholds": {"review": 0.3}, "continuity": None}  # fmt: skip


def bulk_of(codes: list[str], folder: Path) -> BulkEnrolment:
    journal = Journal(folder / "journal.jsonl")
    return BulkEnrolment(Scripted(codes), "camp", journal, Limits(1, patience_s=0.0), lambda _result: None)


def test_a_limit_of_the_minute_is_waited_for(tmp_path: Path) -> None:
    put(tmp_path / "photographs" / "1.jpg", b"a photograph")
    bulk = bulk_of(["rate_limited", "rate_limited"], tmp_path)
    bulk.run(read_source(tmp_path / "photographs"))
    assert [result.result for result in bulk.results] == ["enrolled"]


def test_a_key_that_may_not_enrol_ends_the_run_at_once(tmp_path: Path) -> None:
    for number in range(100):
        put(tmp_path / "photographs" / f"{number}.jpg", b"photograph %d" % number)
    bulk = bulk_of(["forbidden"] * 100, tmp_path)
    with pytest.raises(CommandFailed) as refusal:
        bulk.run(read_source(tmp_path / "photographs"))
    assert refusal.value.code == "forbidden"
    assert bulk.results == []


def start_enrolling(url: str, folder: Path, journal: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "service", "enrol", str(folder), "--url", url, "--journal", str(journal)]
    return subprocess.Popen(
        [*command, "--senders", "2", *options], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for_lines(journal: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"key") < count:
        assert time.monotonic() < deadline, "the run answers nothing"
        time.sleep(0.005)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_a_stopped_run_goes_on_where_it_stopped(models_dir: Path, tmp_path: Path, how: signal.Signals) -> None:
    folder, journal = tmp_path / "photographs", tmp_path / "journal.jsonl"
    for number, sample in enumerate(face_samples(24)):
        put(folder / f"{number:02}.jpg", sample)
    with Server(tmp_path / "var", {"BIODEDUP_MODELS_DIR": str(models_dir)}) as server:
        first = start_enrolling(server.url, folder, journal)
        wait_for_lines(journal, 5)
        first.send_signal(how)
        said, _ = first.communicate(timeout=60)
        answered = journal.read_bytes().count(b"key")
        if how is signal.SIGINT:
            assert first.returncode == 130
            assert "Run the same command again to go on." in said
        second = start_enrolling(server.url, folder, journal)
        said, errors = second.communicate(timeout=120)
        found = encounters(server.url, "default")
    assert second.returncode == 0, errors
    assert answered < 24
    assert "24 of 24 files" in said
    wanted = sorted(group[0].chosen_encounter_id(group[0].path.read_bytes()) for group in read_source(folder))
    assert sorted(encounter for _, encounter in found) == wanted


def test_a_service_that_stays_away_ends_the_run_with_a_report(models_dir: Path, tmp_path: Path) -> None:
    folder, journal = tmp_path / "photographs", tmp_path / "journal.jsonl"
    for number, sample in enumerate(face_samples(24)):
        put(folder / f"{number:02}.jpg", sample)
    environ = {"BIODEDUP_MODELS_DIR": str(models_dir)}
    with Server(tmp_path / "var", environ) as server:
        first = start_enrolling(server.url, folder, journal, "--patience", "0.5")
        wait_for_lines(journal, 5)
        server.kill()
        said, errors = first.communicate(timeout=60)
    assert first.returncode == 1
    assert "no service answers" in errors
    assert "Run the same command again to go on." in said
    with Server(tmp_path / "var", environ) as again:
        said, errors = start_enrolling(again.url, folder, journal).communicate(timeout=120)
        found = encounters(again.url, "default")
    assert "24 of 24 files" in said, errors
    assert len(found) == len({encounter for _, encounter in found}) == 24


def test_without_a_service_nothing_is_noted(tmp_path: Path, photographs: Path) -> None:
    result = run("enrol", photographs, "--url", f"http://127.0.0.1:{free_port()}")
    assert result.exit_code == 1
    assert "no service answers" in result.stderr
    assert not (Path(os.environ["BIODEDUP_VAR_DIR"])).exists()
