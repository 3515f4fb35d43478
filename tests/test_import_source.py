"""Which files of templates and of names are read, and which are refused with the row that is wrong."""

from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from service.errors import TemplatesInvalid
from service.import_request import ImportName
from service.import_source import MadeNames, NameFile, TemplateFile
from tests.importing import saved, unit_rows

MADE = MadeNames("p-")


def names_file(folder: Path, text: str) -> NameFile:
    path = folder / "names.csv"
    path.write_text(text, encoding="utf-8")
    return NameFile(path, MADE)


def test_rows_of_unit_length_are_read_as_they_are(tmp_path: Path) -> None:
    rows = unit_rows(20) * np.float32(1 + 6e-7)  # as another implementation may round
    file = TemplateFile(saved(tmp_path / "t.npy", rows))
    assert (file.count, file.dimension) == (20, 128)
    assert file.read(3, 9).tobytes() == rows[3:9].tobytes()


def test_rows_that_went_through_half_precision_are_made_unit_length_again(tmp_path: Path) -> None:
    rows = unit_rows(20).astype(np.float16).astype(np.float32)
    rows[7] *= 1.0009
    read = TemplateFile(saved(tmp_path / "t.npy", rows)).read(0, 20)
    assert np.abs(np.linalg.norm(read.astype(np.float64), axis=1) - 1).max() < 1e-6
    assert read.dtype == np.float32


@pytest.mark.parametrize("wrong", [1.002, 0.0, np.nan, np.inf, -np.inf])
def test_the_first_row_that_is_no_template_is_named(tmp_path: Path, wrong: float) -> None:
    rows = unit_rows(20)
    rows[11] *= wrong
    rows[15] = 0
    file = TemplateFile(saved(tmp_path / "t.npy", rows))
    file.read(0, 11)
    with pytest.raises(TemplatesInvalid, match="row 11 "):
        file.read(5, 20)


@pytest.mark.parametrize(
    "rows",
    [
        unit_rows(4).astype(np.float64),
        unit_rows(4).astype(np.float16),
        unit_rows(4).astype(">f4"),
        np.asfortranarray(unit_rows(4)),
        unit_rows(4)[0],
        unit_rows(4)[:0],
        np.array([{"a": 1}], dtype=object),
    ],
    ids=["float64", "float16", "big-endian", "columns", "one row alone", "no row", "pickled"],
)
def test_another_kind_of_array_is_refused(tmp_path: Path, rows: object) -> None:
    with pytest.raises(TemplatesInvalid):
        TemplateFile(saved(tmp_path / "t.npy", rows))


def test_what_is_no_npy_file_or_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.npy", unit_rows(20))
    content = path.read_bytes()
    for part in (b"", b"PK\x03\x04", content[:30], content[:-1]):
        path.write_bytes(part)
        with pytest.raises(TemplatesInvalid):
            TemplateFile(path)


def test_a_file_that_is_cut_short_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.npy", unit_rows(20))
    file = TemplateFile(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TemplatesInvalid, match="shorter"):
        file.read(10, 20)


def test_files_of_other_rows_have_other_digests(tmp_path: Path) -> None:
    rows = unit_rows(50)
    files = [saved(tmp_path / "a.npy", rows), saved(tmp_path / "b.npy", rows), saved(tmp_path / "c.npy", rows[:49])]
    rows[20] = -rows[20]
    first, same, shorter, changed = [TemplateFile(file).digest() for file in [*files, saved(tmp_path / "d.npy", rows)]]
    assert first == same
    assert len({first, shorter, changed}) == 3


def test_made_names_are_the_prefix_and_the_row_and_sort_like_the_rows() -> None:
    names = [name.subject_id for start in (0, 9, 99, 10**8) for name in islice(MADE.after(start), 2)]
    assert names[:2] == ["p-000000000", "p-000000001"]
    assert names == sorted(names)


@pytest.mark.parametrize("prefix", ["", "-a", "a b", "é", "a" * 65, "a\n"])
def test_a_prefix_that_cannot_begin_an_id_is_refused(prefix: str) -> None:
    with pytest.raises(TemplatesInvalid):
        MadeNames(prefix)


def test_a_file_of_names_may_name_encounters_and_times(tmp_path: Path) -> None:
    file = names_file(
        tmp_path, "subject_id,encounter_id,captured_at\nann,v1,2026-05-04T09:30:00+03:00\nann,,\nbob,v3,2026-05-04\n\n"
    )
    file.check(3)
    assert list(file.after(0)) == [
        ImportName("ann", "v1", datetime(2026, 5, 4, 6, 30, tzinfo=UTC)),
        ImportName("ann", "p-000000001"),
        ImportName("bob", "v3", datetime(2026, 5, 4, tzinfo=UTC)),
    ]
    assert list(file.after(1)) == list(file.after(0))[1:]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column `subject_id`"),
        ("encounter_id\ne1\ne2\n", "no column `subject_id`"),
        ("subject_id,name\na,b\nc,d\n", "unknown column `name`"),
        ("subject_id,subject_id\na,a\nb,b\n", "one twice"),
        ("subject_id\na\n", "1 lines of names for 2 rows"),
        ("subject_id\na\nb\nc\n", "3 lines of names for 2 rows"),
        ("subject_id\na\na b\n", "row 1 .* has an id"),
        ("subject_id,encounter_id\na,1\nb\n", "row 1 .* has 1 cells"),
        ("subject_id,encounter_id\na,same\nb,same\n", "names an encounter twice"),
        ("subject_id,captured_at\na,\nb,yesterday\n", "row 1 .* captured_at"),
    ],
)
def test_a_wrong_file_of_names_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TemplatesInvalid, match=says):
        names_file(tmp_path, text).check(2)


def test_a_file_of_names_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "names.csv", unit_rows(3))
    with pytest.raises(TemplatesInvalid, match=r"names\.csv is no CSV file"):
        NameFile(path, MADE).check(3)


def test_other_names_have_another_digest(tmp_path: Path) -> None:
    first = names_file(tmp_path, "subject_id\na\nb\n").check(2)
    assert first == names_file(tmp_path, "subject_id,captured_at\na,\nb,\n").check(2)
    assert first != names_file(tmp_path, "subject_id\nb\na\n").check(2)
