"""The journal of a bulk enrolment survives what kills its run."""

from pathlib import Path

import pytest

from service.cli.failures import CommandFailed
from service.cli.journal import ENROLLED, FileResult, Journal, journal_path

DONE = FileResult("a/1.jpg", ENROLLED, outcome="UNIQUE", score=0.5)
GALLERY = {"gallery_id": "default", "created_at": "2026-01-01T00:00:00Z"}


def test_what_was_recorded_is_known_to_the_next_run(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.record("key", DONE)
    journal.close()
    again = Journal(tmp_path / "journal.jsonl")
    assert again.known("key") == DONE
    assert again.known("other") is None
    again.close()


def test_a_half_written_line_is_no_answer_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = Journal(path)
    first.record("key", DONE)
    first.close()
    with path.open("a") as stream:
        stream.write('{"key": "torn", "path": "b')
    second = Journal(path)
    assert second.known("torn") is None
    second.record("next", DONE)
    second.close()
    third = Journal(path)
    assert third.known("key") == DONE
    assert third.known("next") == DONE
    third.close()


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.close()
    assert journal.path.stat().st_mode & 0o077 == 0


def test_a_gallery_that_was_made_anew_has_another_journal(tmp_path: Path) -> None:
    here = journal_path(tmp_path, tmp_path / "photographs", GALLERY)
    assert here == journal_path(tmp_path, tmp_path / "photographs", GALLERY)
    assert here != journal_path(tmp_path, tmp_path / "photographs", GALLERY | {"created_at": "2026-01-02T00:00:00Z"})
    assert here != journal_path(tmp_path, tmp_path / "others", GALLERY)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandFailed) as failure:
        Journal(tmp_path / "file" / "journal.jsonl")
    assert failure.value.code == "journal_unwritable"
