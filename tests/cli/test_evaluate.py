"""`biodedup evaluate`: labelled photographs in, a report out."""

import csv
import os
import re
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from typer.testing import Result

from tests.cli.conftest import run
from tests.faces import face_of, to_jpeg

PEOPLE = 24


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch, models_dir: Path) -> None:
    monkeypatch.setenv("BIODEDUP_MODELS_DIR", str(models_dir))


def people_of(faces_dir: Path) -> Iterator[tuple[str, list[Path]]]:
    """Some people with two or three photographs each."""
    found = ((folder.name, sorted(folder.iterdir())) for folder in sorted((faces_dir / "images").iterdir()))
    several = [(name, files[:3]) for name, files in found if len(files) > 1]
    yield from several[:PEOPLE]


@pytest.fixture
def folder(faces_dir: Path, tmp_path: Path) -> Path:
    """A sub-folder a person; one photograph is broken."""
    made = tmp_path / "photographs"
    for name, files in people_of(faces_dir):
        (made / name).mkdir(parents=True)
        for file in files:
            shutil.copy(file, made / name)
    (made / "broken").mkdir()
    (made / "broken" / "one.jpg").write_bytes(b"\xff\xd8 no photograph")
    (made / "broken" / "Thumbs.db").write_bytes(b"nothing to do with it")
    return made


@pytest.mark.models
@pytest.mark.faces
def test_a_folder_of_people_becomes_a_report(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "report"
    result = run("evaluate", folder, "--out", out, "--face-policy", "central")
    assert result.exit_code == 0, result.stderr
    assert "1 files are no photographs" in result.stderr
    assert "people enrolled: of every 100 who register again" in result.stdout
    assert str(out / "report.html") in result.stdout
    page = (out / "report.html").read_text(encoding="utf-8")
    told = re.findall(r'<div class="(?:answer|warning)">(.*?)</div>', page)
    assert f"Only {PEOPLE} people have several photographs" in told[-1]
    assert all(unescape(line) in result.stdout + result.stderr for line in told)
    assert "the model pack <b>opencv-zoo</b>" in page
    assert f"{PEOPLE + 1} people" in page
    assert "image_unreadable" in page
    figures = list(csv.DictReader((out / "figures.csv").read_text(encoding="utf-8").splitlines()))
    (fta,) = (row for row in figures if row["measure"] == "failure_to_acquire")
    assert fta["people"] == str(PEOPLE + 1)
    # photographs of one person: most must be recognised, or the report was made of something else
    worst = max(float(row["value"]) for row in figures if row["measure"] == "fnmr")
    assert worst < 0.2
    assert {path.name for path in out.iterdir()} == {"report.html", "figures.csv", "doubtful_pairs.csv"}


@pytest.mark.models
@pytest.mark.faces
def test_a_table_of_people_says_which_groups_to_compare(faces_dir: Path, tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "subject_id", "captured_at", "birth_year", "sex", "label.camera"])
        for number, (name, files) in enumerate(people_of(faces_dir)):
            for position, file in enumerate(files):
                camera = ("old", "new")[number % 2]
                writer.writerow([file, name, f"20{10 + position}-05-01", 1970 + number, "F", camera])
    result = run("evaluate", table, "--out", tmp_path / "out", "--face-policy", "central")
    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for heading in ("By age at capture", "By camera", "By sex", "By years between captures"):
        assert heading in page


def refused(result: Result, code: str) -> str:
    assert result.exit_code == 1, result.stdout
    assert f"({code})" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) >= 2
    return result.stderr


@pytest.mark.models
def test_too_few_people_are_refused_with_a_word(tmp_path: Path) -> None:
    for person in range(3):
        (tmp_path / "few" / str(person)).mkdir(parents=True)
        (tmp_path / "few" / str(person) / "one.jpg").write_bytes(to_jpeg(face_of(person)))
    said = refused(run("evaluate", tmp_path / "few", "--out", tmp_path / "out"), "people_too_few")
    assert "3 people" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.models
def test_photographs_of_nobody_in_particular_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "one.jpg").write_bytes(to_jpeg(face_of(0)))
    refused(run("evaluate", tmp_path / "loose"), "people_unknown")


@pytest.mark.models
def test_facts_that_cannot_be_read_are_refused_with_their_file(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(to_jpeg(face_of(0)))
    table = tmp_path / "people.csv"
    table.write_text("path,subject_id,captured_at\none.jpg,anna,lately\n", encoding="utf-8")
    assert "one.jpg" in refused(run("evaluate", table), "source_row")


@pytest.mark.models
def test_a_photograph_that_is_not_there_is_named(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("path,subject_id\ngone.jpg,anna\n", encoding="utf-8")
    assert "gone.jpg" in refused(run("evaluate", table), "source_unreadable")


@pytest.mark.models
def test_names_that_could_be_taken_for_one_another_are_refused(tmp_path: Path) -> None:
    made = tmp_path / "photographs" / os.fsdecode(b"ren\xe9")
    made.mkdir(parents=True)
    (made / "one.jpg").write_bytes(to_jpeg(face_of(0)))
    assert "UTF-8" in refused(run("evaluate", tmp_path / "photographs"), "source_unreadable")


def test_a_pack_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / "one.jpg").write_bytes(to_jpeg(face_of(0)))
    result = run("evaluate", tmp_path, "--pack", "unknown")
    assert result.exit_code == 1
    assert "unknown" in result.stderr
