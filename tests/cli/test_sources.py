"""Folders and CSV files: what is enrolled as whom, and under which encounter id."""

from pathlib import Path

import pytest

from service.cli.failures import CommandFailed
from service.cli.sources import read_source


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_sub_folder_is_a_subject_and_keeps_the_order_of_its_files(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/1.jpg", "a/1.jpg", "alone.jpg", "other.jpg", ".hidden", "a/.DS_Store"):
        write(tmp_path / name)
    groups = [[(item.name, item.subject_id) for item in group] for group in read_source(tmp_path)]
    assert groups == [
        [("a/1.jpg", "a")],
        [("alone.jpg", None)],
        [("b/1.jpg", "b"), ("b/2.jpg", "b")],
        [("other.jpg", None)],
    ]


def test_an_encounter_id_depends_on_path_subject_and_bytes_and_on_nothing_else(tmp_path: Path) -> None:
    for copy in ("one", "two"):
        write(tmp_path / copy / "a" / "1.jpg")
        write(tmp_path / copy / "b" / "1.jpg")
    [[one_a], [one_b]] = read_source(tmp_path / "one")
    [[two_a], _] = read_source(tmp_path / "two")
    assert one_a.chosen_encounter_id(b"x") == two_a.chosen_encounter_id(b"x")
    assert one_a.chosen_encounter_id(b"x") != one_a.chosen_encounter_id(b"y")
    assert one_a.chosen_encounter_id(b"x") != one_b.chosen_encounter_id(b"x")


@pytest.mark.parametrize("name", ["Zoë Müller (2).jpg", "漢字.png", "---.jpg", "x" * 200 + ".jpg"])
def test_any_file_name_gives_a_valid_encounter_id(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    [[item]] = read_source(tmp_path)
    encounter_id = item.chosen_encounter_id(b"x")
    assert encounter_id[0].isalnum()
    assert encounter_id.isascii()
    assert len(encounter_id) <= 128
    assert set(encounter_id) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def test_a_csv_row_carries_its_facts(tmp_path: Path) -> None:
    text = "path,subject_id,encounter_id,birth_year,site,label.tent\np/1.jpg,s1,e1,1990,North,12\np/2.jpg,,,,,\n"
    first, second = read_source(write(tmp_path / "people.csv", "\ufeff" + text))
    assert (first[0].path, first[0].subject_id, first[0].encounter_id) == (tmp_path / "p" / "1.jpg", "s1", "e1")
    assert dict(first[0].facts) == {"birth_year": "1990", "site": "North"}
    assert first[0].labels == (("tent", "12"),)
    assert first[0].chosen_encounter_id(b"x") == "e1"
    assert (second[0].subject_id, second[0].facts, second[0].labels) == (None, (), ())


def test_rows_of_one_subject_stay_together_and_in_order(tmp_path: Path) -> None:
    rows = "path,subject_id\n3.jpg,s1\n1.jpg,s2\n2.jpg,s1\n"
    groups = [[item.name for item in group] for group in read_source(write(tmp_path / "people.csv", rows))]
    assert groups == [["3.jpg", "2.jpg"], ["1.jpg"]]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "source_columns"),
        ("file\na.jpg\n", "source_columns"),
        ("path,brith_year\na.jpg,1990\n", "source_columns"),
        ("path\na.jpg,surplus\n", "source_row"),
        ("path,site\n,North\n", "source_row"),
        ("path\n", "source_empty"),
    ],
)
def test_a_csv_file_of_another_form_is_refused(tmp_path: Path, text: str, code: str) -> None:
    with pytest.raises(CommandFailed) as failure:
        read_source(write(tmp_path / "people.csv", text))
    assert failure.value.code == code


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_bytes(b"\xff\xd8\xff\xe0" * 10)
    with pytest.raises(CommandFailed) as failure:
        read_source(file)
    assert failure.value.code == "source_unreadable"
