"""Texts that come from others are no formulas in any table that people open."""

import csv
from pathlib import Path

import pytest

from service.cli.evaluating import write_doubtful
from service.cli.journal import REJECTED, FileResult, write_report
from service.evaluation.doubtful import DoubtfulPair
from service.evaluation.figures import Figure, to_csv
from service.spreadsheets import cell

FORMULA = "=cmd|'/C calc'!A0"


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_what_would_be_worked_out_has_a_quote_before_it(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "S-1041", "a=1", "'=1", " =1"])
def test_any_other_text_stays_as_it_is(text: str) -> None:
    assert cell(text) == text


def test_the_report_of_a_bulk_enrolment_holds_no_formula(tmp_path: Path) -> None:
    """Folders and files are called as whoever handed them over wanted."""
    file = tmp_path / "report.csv"
    write_report(file, [FileResult(f"{FORMULA}/1.jpg", REJECTED, score=-0.25, message=FORMULA)])
    with file.open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["path"], row["message"], row["score"]) == (f"'{FORMULA}/1.jpg", f"'{FORMULA}", "-0.25")


def test_the_figures_of_an_evaluation_hold_no_formula() -> None:
    figure = Figure("fnir", -0.5, 0.0, 1.0, 10, 5, label=FORMULA, group="@SUM(A1)")
    (row,) = csv.DictReader(to_csv([figure]).splitlines())
    assert (row["label"], row["group"], row["value"]) == (f"'{FORMULA}", "'@SUM(A1)", "-0.5")


def test_the_doubtful_pairs_hold_no_formula(tmp_path: Path) -> None:
    file = tmp_path / "doubtful.csv"
    write_doubtful(file, [DoubtfulPair(FORMULA, "anna/1.jpg", -0.01, mated=True)])
    with file.open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["first"], row["second"], row["score"]) == (f"'{FORMULA}", "anna/1.jpg", "-0.0100")
