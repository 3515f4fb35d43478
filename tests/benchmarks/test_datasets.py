"""The lists of a data set, read as documented and refused when they do not fit its photographs."""

import json
from pathlib import Path

import pytest

from benchmarks.datasets import Pair, load_dataset, person_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("A_B/A_B_0001.jpg", "A/A_0002.jpg", "A/A_0001.jpg", "C/C_0001.jpg"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "pairs.txt").write_text("A\t1\t2\nA 2 C 1\n")
    parts = {"gallery": ["A/A_0001.jpg"], "mated": ["A/A_0002.jpg"], "non_mated": ["C/C_0001.jpg"]}
    (tmp_path / "openset.json").write_text(json.dumps(parts))
    return tmp_path


def test_the_photographs_of_a_person_stand_together(folder: Path) -> None:
    dataset = load_dataset(folder)
    assert dataset.photographs == ("A/A_0001.jpg", "A/A_0002.jpg", "A_B/A_B_0001.jpg", "C/C_0001.jpg")
    assert dataset.people == ("A", "A_B", "C")
    assert dataset.read("A/A_0002.jpg") == b"A/A_0002.jpg"


def test_three_fields_are_a_mated_pair_and_four_are_not(folder: Path) -> None:
    dataset = load_dataset(folder)
    assert dataset.pairs == (Pair("A/A_0001.jpg", "A/A_0002.jpg"), Pair("A/A_0002.jpg", "C/C_0001.jpg"))
    assert [pair.mated for pair in dataset.pairs] == [True, False]


def test_the_open_set_is_read(folder: Path) -> None:
    open_set = load_dataset(folder).open_set
    assert (open_set.gallery, open_set.mated, open_set.non_mated) == (
        ("A/A_0001.jpg",),
        ("A/A_0002.jpg",),
        ("C/C_0001.jpg",),
    )


def test_a_list_that_names_a_missing_photograph_is_refused(folder: Path) -> None:
    (folder / "pairs.txt").write_text("A 1 9\n")
    with pytest.raises(ValueError, match=r"1 photographs of the lists are missing, such as A/A_0009\.jpg"):
        load_dataset(folder)


def test_a_line_of_another_form_is_refused(folder: Path) -> None:
    (folder / "pairs.txt").write_text("A 1\n")
    with pytest.raises(ValueError, match="neither NAME i j nor NAME i NAME j"):
        load_dataset(folder)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no folder images"):
        load_dataset(tmp_path)


def test_the_person_is_the_folder_of_a_photograph() -> None:
    assert person_of("Ada_Lovelace/Ada_Lovelace_0001.jpg") == "Ada_Lovelace"
