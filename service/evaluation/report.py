"""A page that says what was measured, in words for people who are no biometricians; it needs no other file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from service.errors import SeveralFaces
from service.evaluation import plots
from service.evaluation.comparisons import MOST_GROUPS
from service.evaluation.evaluation import Evaluation
from service.evaluation.figures import FEW_PEOPLE, FEWEST_TOLD, REPLICATES, Figure
from service.evaluation.photographs import GAP, QUALITY, FaceSet
from service.evaluation.promises import FALSE_VERDICTS, FEWER, MORE, Promise, promises

REPORT_FILE, FIGURES_FILE, DOUBTFUL_FILE = "report.html", "figures.csv", "doubtful_pairs.csv"
_LARGE = 0.1  # share: from it on per cent say more than "1 in 7"
_MOST_REFUSED = 0.05  # of the photographs: above it the page warns


@dataclass(frozen=True, slots=True)
class About:
    """What was measured, for the head of the page."""

    pack_id: str
    model_id: str
    population: str | None  # of the calibration
    source: str
    day: str
    version: str
    face_policy: str
    seed: int


def render(evaluation: Evaluation, faces: FaceSet, about: About) -> str:
    """Return the page, HTML with its pictures inside."""
    environment = Environment(loader=PackageLoader("service.evaluation", ""), autoescape=True, trim_blocks=True)
    environment.filters |= {
        "rate": rate,
        "percent": percent,
        "one_in": rare_rate,
        "bare_one_in": one_in,
        "thousands": "{:,}".format,
    }
    figures = evaluation.figures
    misses = _misses(figures)
    return environment.get_template("report.html").render(
        vars_of(about),
        evaluation=evaluation,
        doubts=evaluation.doubts,
        all_photographs=len(faces.all_photographs),
        all_people=len({each.person for each in faces.all_photographs}),
        fta=_failure_to_acquire(figures),
        refusals=_refusals(evaluation),
        summary=summary(evaluation),
        warnings=warnings(evaluation),
        fpirs=sorted({each.target for each in _fnir(figures)}, reverse=True),
        misses=misses,
        example=_example(misses),
        promises=promises(figures),
        false_verdicts=FALSE_VERDICTS,
        in_doubt=plots.IN_DOUBT,
        gap=GAP,
        trade_off=plots.paired(figures),
        labels=[label for label in _labels(evaluation) if label["name"] != QUALITY],
        quality=next((label for label in _labels(evaluation) if label["name"] == QUALITY), None),
        largest=misses[-1][0] if misses else 0,
        few=FEW_PEOPLE,
        fewest=FEWEST_TOLD,
        most_groups=MOST_GROUPS,
        replicates=REPLICATES,
        figures_file=FIGURES_FILE,
        doubtful_file=DOUBTFUL_FILE,
        misses_plot=_drawn(plots.misses_by_size(evaluation)),
        trade_off_plot=_drawn(plots.trade_off(evaluation)),
        histogram_plot=_drawn(
            plots.score_histogram(
                evaluation, evaluation.group_threshold, f"false match rate {percent(evaluation.group_target)}"
            )
        ),
    )


def vars_of(about: About) -> dict[str, Any]:
    return {name: getattr(about, name) for name in about.__slots__}


def percent(share: float) -> str:
    """Return a share (0..1) in per cent: one decimal, below one per cent two digits that count."""
    return f"{100 * share:.1f} %" if share >= 0.01 else f"{float(f'{100 * share:.2g}'):g} %"


def rate(each: Figure) -> Markup:
    """Return a rate with its interval, in italics where it rests on few."""
    text = _with_interval(each)
    return Markup('<span class="few">{}</span>').format(text) if each.rests_on_few else Markup(text)  # noqa: S704  (numbers)


def one_in(share: float) -> str:
    """Return a small share as people say it, 1 in 5,000; a larger one in per cent."""
    if share <= 0:
        return "none seen"
    return percent(share) if share > _LARGE else f"1 in {int(float(f'{1 / share:.2g}')):,}"


def rare_rate(each: Figure) -> str:
    """Return a small rate with its interval, low to high, all of it as 1 in 5,000 or all of it in per cent."""
    if each.value <= 0:
        return f"none seen (up to {one_in(each.high)})"
    if each.high > _LARGE:
        return _with_interval(each)
    return f"{one_in(each.value)} ({one_in(each.low) if each.low > 0 else '0'} to {one_in(each.high)})"


def _with_interval(each: Figure) -> str:
    return f"{percent(each.value)} ({percent(each.low)} to {percent(each.high)})"


def _fnir(figures: Iterable[Figure]) -> list[Figure]:
    return [each for each in figures if each.measure == "fnir" and each.chosen_by == "here"]


def _misses(figures: Sequence[Figure]) -> list[tuple[int, list[Figure], Figure]]:
    """Return for each size of the gallery the FNIR by falling FPIR, and the last one at rank 1."""
    by_size: dict[int, list[Figure]] = {}
    for each in _fnir(figures):
        by_size.setdefault(each.gallery_size or 0, []).append(each)
    rows = []
    for size, some in sorted(by_size.items()):
        at_any = sorted((each for each in some if each.rank is None), key=lambda each: -(each.target or 0))
        strictest = at_any[-1].target
        first = next(each for each in some if each.rank == 1 and each.target == strictest)
        rows.append((size, at_any, first))
    return rows


def _failure_to_acquire(figures: Iterable[Figure]) -> Figure:
    return next(each for each in figures if each.measure == "failure_to_acquire" and each.label is None)


def _refusals(evaluation: Evaluation) -> list[tuple[str, int]]:
    return sorted(evaluation.refusals.items(), key=lambda pair: -pair[1])


def summary(evaluation: Evaluation) -> list[str]:
    """Return what matters most, a few sentences each."""
    misses = _misses(evaluation.figures)
    lines = []
    if misses:
        size, cells, _ = misses[-1]
        loosest, strictest = cells[0], cells[-1]
        lines.append(
            f"With {size:,} people enrolled: of every 100 who register again, about {_are(strictest.value)} "
            f"not noticed ({_of_hundred(strictest.low)} to {_of_hundred(strictest.high)}), if their photograph can be "
            f"used. The price: of every 100 newcomers {_are(strictest.target)} flagged by mistake, and somebody has to "
            "look."
        )
        if loosest is not strictest:
            lines.append(
                f"If {_of_hundred(loosest.target)} of every 100 newcomers may be flagged by mistake, of every "
                f"100 who register again about {_are(loosest.value)} not noticed ({_of_hundred(loosest.low)} to "
                f"{_of_hundred(loosest.high)})."
            )
        lines.append(
            f"More people enrolled means more missed; nothing was measured beyond {size:,}. And it holds for people "
            "and cameras like those in these photographs."
        )
    tested = promises(evaluation.figures)
    if tested:
        lines.append(
            "In daily use the model's calibration sets the threshold. "
            f"{_verdicts(tested)} {_what_would_show(tested)} This says nothing about what is missed."
        )
    return lines


def _verdicts(tested: Sequence[Promise]) -> str:
    counts = {kind: sum(each.verdict == kind for each in tested) for kind in (MORE, FEWER)}
    told = [
        f"In {count} of {len(tested)} tests there {kind} false alarms than it promises."
        for kind, count in counts.items()
        if count
    ]
    return " ".join(told) or f"None of {len(tested)} tests shows clearly more or fewer false alarms than it promises."


def _what_would_show(tested: Sequence[Promise]) -> str:
    easiest = max(tested, key=lambda each: (each.found.gallery_size or 0, each.target))
    line = (
        f"With {easiest.found.people:,} people it takes {percent(easiest.shows_from)} false alarms, where "
        f"{percent(easiest.target)} are promised, to tell that there are more."
    )
    if easiest.found.people >= easiest.people_needed:
        return line
    return f"{line} More people tell more: twice as many false alarms show with about {easiest.people_needed:,}."


def _of_hundred(share: float | None) -> str:
    assert share is not None
    return f"{float(f'{100 * share:.2g}'):g}"


def _are(share: float | None) -> str:
    number = _of_hundred(share)
    return f"{number} {'is' if number == '1' else 'are'}"


def warnings(evaluation: Evaluation) -> list[str]:
    """Return what should be looked at before the figures are believed, a few sentences each."""
    fta, tested = _failure_to_acquire(evaluation.figures), promises(evaluation.figures)
    lines = []
    if tested and evaluation.is_of_calibration:
        lines.append(
            "The calibration was made on these very photographs. That its promises hold here proves nothing: measure "
            "with others."
        )
    if fta.value > _MOST_REFUSED:
        lines.append(_refused(evaluation, fta))
    if evaluation.people_with_several < FEW_PEOPLE:
        lines.append(
            f"Only {evaluation.people_with_several} people have several photographs: what is said of missed duplicates "
            "rests on them."
        )
    broken = [each for each in tested if each.verdict == MORE]
    if broken:
        lines.append(_too_many_alarms(broken, evaluation))
    return lines


def _refused(evaluation: Evaluation, fta: Figure) -> str:
    reasons = ", ".join(f"{count:,} × {code}" for code, count in _refusals(evaluation))
    line = f"{percent(fta.value)} of the photographs could not be used ({reasons}): look at them before anything else."
    if SeveralFaces.code not in evaluation.refusals:
        return line
    return (
        f"{line} Where several people stand in the picture, --face-policy central takes the one in the middle; as it "
        "is set now, the service would not."
    )


def _too_many_alarms(broken: Sequence[Promise], evaluation: Evaluation) -> str:
    """Return what the tests may mean and what to do; `broken` are those that found more than was promised."""
    worst = max(broken, key=lambda each: each.found.value / each.target)
    line = (
        "There may be more false alarms among these people than the calibration of the model pack promises: "
        f"{percent(worst.target)} promised, {_with_interval(worst.found)} found with {worst.found.gallery_size:,} "
        "enrolled."
    )
    if evaluation.doubts.alike_people:
        return (
            f"{line} But some may be one person under two names, and no false alarm at all: clear the labels first "
            f"(the report lists them in {DOUBTFUL_FILE})."
        )
    if worst.found.people < worst.people_needed:
        return (
            f"{line} {worst.found.people:,} people are few to say so: measure with {worst.people_needed:,} or more "
            "before you change anything."
        )
    return f"{line} Its thresholds may be too low for them: biodedup calibrate makes a calibration of your own people."


def _example(misses: Sequence[Any]) -> str:
    if not misses:
        return "there are too few people for one."
    size, cells, _ = misses[-1]
    return (
        f"with {size:,} people enrolled, and a threshold at which {percent(cells[-1].target)} of the newcomers are "
        f"flagged by mistake, {percent(cells[-1].value)} of the people who come again are not found."
    )


def _labels(evaluation: Evaluation) -> list[dict[str, Any]]:
    found: dict[str, dict[str, dict[str, Figure]]] = {}
    for each in evaluation.figures:
        if each.label is not None and each.group is not None:
            found.setdefault(each.label, {}).setdefault(each.group, {})[each.measure] = each
    overall = next(
        (each for each in evaluation.figures if each.measure == "fnmr" and each.target == evaluation.group_target), None
    )
    return [_label(name, groups, overall) for name, groups in found.items()]


def _label(name: str, groups: Mapping[str, Mapping[str, Figure]], overall: Figure | None) -> dict[str, Any]:
    drawn = [rates["fnmr"] for rates in groups.values() if "fnmr" in rates]
    plot = plots.groups(name, drawn, overall, "one person taken for two (FNMR)") if drawn and overall else ""
    rows = [
        {
            "group": group,
            "people": max(each.people for each in rates.values()),
            "fta": rates.get("failure_to_acquire"),
            "fnmr": rates.get("fnmr"),
            "fmr": rates.get("fmr"),
        }
        for group, rates in groups.items()
    ]
    return {"name": name, "plot": _drawn(plot), "rows": rows}


def _drawn(svg: str) -> Markup:
    return Markup(svg)  # noqa: S704  (of `plots`, which escapes every text in it)
