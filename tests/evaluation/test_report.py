"""The report: one page for people who are no biometricians, and a line a rate for those who want more."""

import csv
import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape
from playwright.sync_api import sync_playwright

from service.evaluation import plots
from service.evaluation.comparisons import MOST_GROUPS
from service.evaluation.evaluation import Evaluation, evaluate
from service.evaluation.figures import Figure, to_csv
from service.evaluation.photographs import FaceSet
from service.evaluation.promises import FEWER, MORE, NO_DIFFERENCE, promises
from service.evaluation.report import About, one_in, percent, rare_rate, rate, render, summary, warnings
from tests.evaluation.people import face_set, unusable
from tests.synthetic import calibration

CHROMIUM = shutil.which("chromium")
ABOUT = About("pack", "pack@1.1", "people & others", "photographs", "1 March 2026", "0.1", "central", 0)
NASTY = "<script>alert(1)</script> $\\alpha"


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    sites = ("north", NASTY)
    return face_set(
        [3, 1, 2, 2] * 60,
        spread=0.8,
        facts=lambda person, number: {"site": sites[person % 2], "captured_at": f"20{10 + 3 * number}-01-01"},
        refused=[unusable("0001"), unusable("0002", "several_faces")],
    )


@pytest.fixture(scope="module")
def evaluation(faces: FaceSet) -> Evaluation:
    return evaluate(faces, calibration(), lambda _: None)


@pytest.fixture(scope="module")
def page(evaluation: Evaluation, faces: FaceSet) -> str:
    return render(evaluation, faces, ABOUT)


class Links(HTMLParser):
    """Collects what a page would fetch, and its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.elements: set[str] = set()
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href"} and value and not value.startswith("#"):
                self.fetched.append(value)
            if name == "id" and value:
                self.ids.append(value)


def test_the_page_fetches_nothing_and_runs_nothing(page: str) -> None:
    links = Links()
    links.feed(page)
    assert links.fetched == []
    assert "script" not in links.elements
    assert len(links.ids) == len(set(links.ids))
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page


def test_texts_from_outside_are_shown_as_texts(page: str) -> None:
    assert NASTY not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt; $\\alpha") >= 2  # in the table and in the picture
    assert "people &amp; others" in page


def test_the_page_says_the_same_as_the_figures(page: str, evaluation: Evaluation) -> None:
    largest = max(each.gallery_size or 0 for each in evaluation.figures)
    (missed,) = (
        each
        for each in evaluation.figures
        if (each.measure, each.gallery_size, each.target, each.rank, each.chosen_by)
        == ("fnir", largest, 0.01, None, "here")
    )
    assert f"{percent(missed.value)} ({percent(missed.low)} to {percent(missed.high)})" in page
    assert f"With {largest:,} people enrolled: of every 100 who register again" in page
    for line in summary(evaluation):
        assert str(escape(line)) in page


def test_every_plot_has_a_name_for_those_who_cannot_see_it(page: str) -> None:
    drawings = re.findall(r"<svg [^>]*>", page)
    assert len(drawings) >= 4
    assert all('role="img"' in each and "aria-label=" in each for each in drawings)


def test_refusals_groups_and_doubts_are_told(page: str) -> None:
    for text in ("several_faces", "By site", "By years between captures", "doubtful_pairs.csv"):
        assert text in page


def test_each_promise_of_the_calibration_has_its_verdict(page: str, evaluation: Evaluation) -> None:
    tested = promises(evaluation.figures)
    assert len(tested) == 6
    for verdict in (NO_DIFFERENCE, MORE, FEWER):
        assert page.count(f"<td>{verdict}</td>") == sum(each.verdict == verdict for each in tested)
    more = sum(each.verdict == MORE for each in tested)
    assert more
    assert f"In {more} of 6 tests there may be more false alarms than it promises." in page


def test_photographs_of_the_calibration_prove_nothing_about_it(faces: FaceSet, evaluation: Evaluation) -> None:
    same = replace(calibration(), people=evaluation.people, comparisons=evaluation.comparisons)
    found = evaluate(faces, same, lambda _: None)
    assert "made on these very photographs" in render(found, faces, ABOUT)
    assert "made on these very photographs" not in render(evaluation, faces, ABOUT)


def test_a_calibration_that_promises_too_much_is_told(faces: FaceSet) -> None:
    # everyone looks somewhat alike: more false alarms than the calibration of strangers says
    rows = faces.embeddings + 0.6 * faces.embeddings[0]
    rows /= (rows**2).sum(axis=1, keepdims=True) ** 0.5
    alike = FaceSet(faces.photographs, rows, faces.refused)
    found = evaluate(alike, calibration(), lambda _: None)
    shown = render(found, alike, ABOUT)
    assert "<td>may be more</td>" in shown
    assert "There may be more false alarms among these people" in shown
    assert ("thresholds may be too low" in shown) != (found.doubts.alike_people > 0)


def false_alarms(evaluation: Evaluation, value: float, people: int) -> Evaluation:
    """The same with these false alarms, where one in ten is promised, and no doubt about labels."""
    found = Figure("fpir", value, value / 2, 2 * value, 10 * people, people, 0.3, 0.1, "calibration", people // 2)
    others = [each for each in evaluation.figures if each.measure != "fpir"]
    return replace(evaluation, figures=[*others, found], doubts=replace(evaluation.doubts, alike_people=0))


def test_few_people_are_told_to_be_few_before_thresholds_are_blamed(evaluation: Evaluation) -> None:
    (few,) = (line for line in warnings(false_alarms(evaluation, 0.4, 40)) if "false alarms" in line)
    assert "There may be more" in few
    assert re.search(r"40 people are few to say so: measure with \d+ or more", few)
    assert "thresholds" not in few
    (many,) = (line for line in warnings(false_alarms(evaluation, 0.4, 400)) if "false alarms" in line)
    assert "Its thresholds may be too low for them: biodedup calibrate" in many


def test_a_difference_that_chance_explains_is_no_warning_and_the_summary_says_what_would_show(
    evaluation: Evaluation,
) -> None:
    chance = false_alarms(evaluation, 0.17, 40)
    assert not any("false alarms" in line for line in warnings(chance))
    said = summary(chance)[-1]
    assert "None of 1 tests shows clearly more or fewer" in said
    assert "With 40 people it takes 22.5 % false alarms, where 10.0 % are promised" in said
    assert "twice as many false alarms show with about" in said
    assert "twice as many" not in summary(false_alarms(evaluation, 0.1, 400))[-1]


def test_what_could_not_be_used_is_told_with_its_reasons(evaluation: Evaluation) -> None:
    refused = [each for each in evaluation.figures if each.measure == "failure_to_acquire" and each.label is None]
    many = [replace(each, value=0.2, high=0.3) if each in refused else each for each in evaluation.figures]
    (line,) = warnings(replace(evaluation, figures=many, refusals={"no_face": 1, "several_faces": 1200}))[:1]
    assert line.startswith("20.0 % of the photographs could not be used (1,200 × several_faces, 1 × no_face)")
    assert "--face-policy central" in line
    (line,) = warnings(replace(evaluation, figures=many, refusals={"no_face": 7}))[:1]
    assert "--face-policy" not in line


def test_one_is_and_several_are(evaluation: Evaluation) -> None:
    assert "of every 100 newcomers 1 is flagged" in summary(evaluation)[0]
    loose = [each for each in evaluation.figures if each.target == 0.1]
    assert "of every 100 newcomers 10 are flagged" in summary(replace(evaluation, figures=loose))[0]


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (0.1, 0.077, 0.124, "10.0 % (7.7 % to 12.4 %)"),
        (0.03, 0.02, 0.04, "1 in 33 (1 in 50 to 1 in 25)"),
        (0.03, 0.0, 0.04, "1 in 33 (0 to 1 in 25)"),
        (0.0, 0.0, 0.04, "none seen (up to 1 in 25)"),
    ],
)
def test_a_line_has_one_form_low_to_high(value: float, low: float, high: float, words: str) -> None:
    assert rare_rate(Figure("fmr", value, low, high, 100, 100)) == words


def test_the_legend_names_only_what_is_drawn(evaluation: Evaluation) -> None:
    across = [match.value for match, _ in plots.paired(evaluation.figures)]
    for share, is_drawn in ((0.0, False), (min(across), True), (min(across) / 100, False)):
        drawn = plots.trade_off(replace(evaluation, doubts=replace(evaluation.doubts, alike_share=share)))
        assert (plots.IN_DOUBT in drawn) == is_drawn


def test_one_size_of_gallery_is_drawn_with_its_interval(evaluation: Evaluation) -> None:
    only = next(each for each in evaluation.figures if each.measure == "fnir" and each.chosen_by == "here")
    drawn = plots.misses_by_size(replace(evaluation, figures=[only]))
    assert "LineCollection" in drawn
    assert f"{only.gallery_size}</text>" in drawn


def test_no_interval_and_no_dot_is_cut_off_at_an_edge() -> None:
    least, most = plots.around([Figure("fnmr", 0.0, 0.0, 0.4, 10, 10), Figure("fnmr", 0.2, 0.1, 0.3, 10, 10)])
    assert least < 0
    assert most > 0.4


def test_charts_of_groups_say_what_bars_and_band_are(page: str) -> None:
    told = page[page.index("Groups of people") : page.index("Errors in the photographs")]
    assert "the band its interval" in told
    assert "interval of all people</text>" in told
    assert "need not add up to the 180 who have a pair" in told  # by years between captures


def test_what_poor_photographs_cost_is_told_and_is_no_group_of_people(faces: FaceSet) -> None:
    rng = np.random.default_rng(0)
    rated = [replace(each, unified=int(rng.integers(0, 101))) for each in faces.photographs]
    some = FaceSet([replace(each, groups={}) for each in rated], faces.embeddings, faces.refused)
    page = render(evaluate(some, None, lambda _: None), some, ABOUT)
    told = page[page.index("Do poor photographs cost anything?") : page.index("Errors in the photographs")]
    assert "need not add up to the 180 who have a pair" in told
    assert all(band in told for band in ("0 to 14", "15 to 29", "30 to 49", "50 to 100"))
    assert "quality score" not in page[: page.index("Do poor photographs")]


def test_without_a_score_nothing_is_said_of_quality(page: str) -> None:
    assert "Do poor photographs cost anything?" not in page


def test_without_groups_calibration_or_second_photographs_the_page_still_stands() -> None:
    faces = face_set([1] * 25)
    shown = render(evaluate(faces, None, lambda _: None), faces, ABOUT)
    assert "Only 0 people have several photographs" in shown
    assert "Does the calibration keep its promise" not in shown
    assert "Larger galleries" not in shown
    assert "Whether some are served worse is unknown" in shown


def test_a_handful_of_people_is_too_few() -> None:
    with pytest.raises(ValueError, match="20"):
        evaluate(face_set([2] * 19), None, lambda _: None)


def test_the_figures_are_a_table_with_what_each_rests_on(evaluation: Evaluation) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(evaluation.figures))))
    assert len(rows) == len(evaluation.figures)
    assert {row["measure"] for row in rows} == {"failure_to_acquire", "fmr", "fnmr", "fpir", "fnir"}
    for row in rows:
        assert 0 <= float(row["low"]) <= float(row["value"]) <= float(row["high"]) <= 1
        assert float(row["high"]) > 0  # seeing nothing proves no rate of zero
        assert float(row["low"]) < 1
        assert int(row["trials"]) > 0
        assert int(row["people"]) > 0
    assert {row["gallery_size"] for row in rows if row["measure"] == "fnir"} == {"100", "120"}


def test_the_same_seed_gives_the_same_figures(evaluation: Evaluation, faces: FaceSet) -> None:
    assert to_csv(evaluate(faces, calibration(), lambda _: None).figures) == to_csv(evaluation.figures)
    assert to_csv(evaluate(faces, calibration(), lambda _: None, seed=1).figures) != to_csv(evaluation.figures)


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "none seen"), (0.7, "70.0 %"), (1e-4, "1 in 10,000"), (1 / 777, "1 in 780")],
)
def test_small_shares_are_told_as_people_say_them(share: float, words: str) -> None:
    assert one_in(share) == words


def test_a_rate_of_few_people_is_marked() -> None:
    few, many = (Figure("fnmr", 0.1, 0.05, 0.2, 10, people) for people in (29, 30))
    assert rate(few) == '<span class="few">10.0 % (5.0 % to 20.0 %)</span>'
    assert rate(many) == "10.0 % (5.0 % to 20.0 %)"


@pytest.mark.browser
def test_the_page_opens_in_a_browser_and_fits_a_small_screen(page: str, tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    problems: list[str] = []
    with (
        sync_playwright() as driver,
        driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser,
    ):
        tab = browser.new_page(viewport={"width": 400, "height": 800})
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        requests: list[str] = []
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(file.as_uri())
        assert tab.locator("h1").inner_text() == "How well people who register twice are noticed"
        widths = tab.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1]
        boxes = [drawing.bounding_box() for drawing in tab.locator("svg").all()]
        assert all(box is not None and box["width"] > 200 and box["height"] > 50 for box in boxes)
    assert problems == []
    assert requests == [file.as_uri()]


def test_false_alarms_are_told_also_without_second_photographs() -> None:
    faces = face_set([1] * 60)
    shown = render(evaluate(faces, calibration(), lambda _: None), faces, ABOUT)
    assert "Does the calibration keep its promise" in shown


def test_small_groups_are_told_of_nowhere() -> None:
    at = ("2020-01-01", "2026-01-01")

    def facts(person: int, number: int) -> dict[str, str]:
        site = "tiny place" if person < 4 else f"of {person % 6}"
        return {"site": site, **({"captured_at": at[number]} if person < 4 else {})}

    faces = face_set([2] * 40, facts=facts)
    found = evaluate(faces, None, lambda _: None)
    assert {each.group for each in found.figures if each.label} == {f"of {number}" for number in range(6)}
    assert "tiny place" not in render(found, faces, ABOUT)


def test_a_label_with_very_many_values_shows_the_largest() -> None:
    faces = face_set([1] * 215, facts=lambda person, _: {"site": f"s{person // 5:02d}" if person < 210 else "s00"})
    found = evaluate(faces, None, lambda _: None)
    told = {each.group for each in found.figures if each.label}
    assert len(told) == MOST_GROUPS
    assert "s00" in told  # of ten people


@pytest.mark.parametrize("name", ["বাংলা", "a" * 300, "50 % $x^{$ <b>"])
def test_any_name_of_a_group_can_be_drawn(name: str) -> None:
    faces = face_set([2] * 30, spread=0.9, facts=lambda person, _: {"site": name if person % 2 else "other"})
    shown = render(evaluate(faces, None, lambda _: None), faces, ABOUT)
    drawn = shown.split("By site")[1].split("</svg>")[0]
    assert name[:6].replace("<", "&lt;") in drawn
    assert len(name) < 100 or name not in drawn


def test_one_photograph_under_many_names_leaves_curves_that_can_be_drawn() -> None:
    faces = face_set([2] * 120, spread=0.4)
    rows = faces.embeddings.copy()
    rows[0:80:2] = rows[0]  # a placeholder in forty folders: one pair in nine
    faces = FaceSet(faces.photographs, rows, ())
    found = evaluate(faces, calibration(), lambda _: None)
    assert found.doubts.alike_people >= 40 * 39 / 2
    assert sum(not each.mated for each in found.doubts.listed) == 200
    assert all((each.threshold or 0) < 1 and each.value > 0 for each in found.figures if each.measure == "fmr")
    shown = render(found, faces, ABOUT)
    assert "one person under two names, and no false alarm at all" in shown


def test_copies_of_a_photograph_are_counted_at_the_highest_score() -> None:
    faces = face_set([2] * 30)
    rows = np.repeat(faces.embeddings[::2], 2, axis=0) * np.float32(1.0000001)
    found = evaluate(FaceSet(faces.photographs, rows, ()), None, lambda _: None)
    assert found.mated_shares[-1] == pytest.approx(1)


def test_in_the_histogram_everyone_counts_the_same() -> None:
    faces = face_set([60, *[2] * 30], spread=0.1)
    rows = faces.embeddings.copy()
    rows[0:60:2] *= -1  # half of the pairs of the much photographed one score like strangers
    found = evaluate(FaceSet(faces.photographs, rows, ()), None, lambda _: None)
    assert found.mated_shares[:100].sum() < 0.03
