"""Scores to false match rates and back: monotone, inverse, honest about what was not measured."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.calibration import Calibration, fmr_for_fpir, fpir_of_fmr
from tests.synthetic import forged

# the same examples on every run, however slow the machine
seeded = settings(deadline=None, derandomize=True, max_examples=200)

SHIPPED = sorted((Path(__file__).parent.parent / "models").glob("*/calibration.json"))

STEPS = [step / 24 for step in range(25)]


def curve() -> Calibration:
    """From -0.2 (FMR 1) to 1 (FMR 1e-10), measured to 0.4, with bounds that widen."""
    return Calibration(
        pack_id="synthetic",
        model_id="synthetic-1",
        method="photographs",
        population="synthetic people",
        people=2000,
        comparisons=10**7,
        found_mates=0.0,
        scores=tuple(-0.2 + step * 1.2 for step in STEPS),
        log10_fmr=tuple(-10 * step * step for step in STEPS),
        log10_fmr_lower=tuple(-11 * step * step for step in STEPS),
        log10_fmr_upper=tuple(-9 * step * step for step in STEPS),
        measured_to=0.4,
        mated_scores=tuple(0.2 + 0.008 * step for step in range(101)),
        mated_people=400,
        mated_population="synthetic people",
    )


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    count = draw(st.integers(2, 12))
    gaps = st.lists(st.floats(0.001, 0.08), min_size=count, max_size=count)
    falls = st.lists(st.floats(0.0, 0.8), min_size=count, max_size=count)
    scores, rates, uppers, lowers = [-0.3], [-0.001], [-0.001], [-0.01]
    for gap, fall, share in zip(draw(gaps), draw(falls), draw(falls), strict=True):
        scores.append(scores[-1] + gap)
        rates.append(rates[-1] - fall)
        uppers.append(max(uppers[-1] - fall * min(share, 1.0), rates[-1]))
        lowers.append(lowers[-1] - fall * (1 + share))
    last = draw(st.floats(0, 12))
    mated = tuple(sorted(draw(st.lists(st.floats(-1, 1), min_size=1, max_size=30))))
    return replace(
        curve(),
        scores=(*scores, 1.0),
        log10_fmr=(*rates, rates[-1] - last),
        log10_fmr_upper=(*uppers, max(uppers[-1] - last * draw(st.floats(0, 1)), rates[-1] - last)),
        log10_fmr_lower=(*lowers, lowers[-1] - last),
        measured_to=draw(st.floats(-0.3, 1)),
        mated_scores=mated,
        mated_people=draw(st.integers(1, 2000)),
    )


cosines = st.floats(-1, 1)
rates_asked = st.floats(-11, -0.01).map(lambda exponent: 10**exponent)


@seeded
@given(calibrations(), cosines, cosines)
def test_a_higher_score_never_looks_less_sure(calibration: Calibration, one: float, other: float) -> None:
    lower, higher = (calibration.false_match_rate(score) for score in sorted((one, other)))
    assert higher.fmr <= lower.fmr
    assert higher.fmr_upper <= lower.fmr_upper


@seeded
@given(calibrations(), cosines)
def test_a_rate_is_a_share_and_its_bound_lies_above_it(calibration: Calibration, score: float) -> None:
    rate = calibration.false_match_rate(score)
    assert 0 <= rate.fmr <= rate.fmr_upper <= 1


@seeded
@given(calibrations(), rates_asked)
def test_the_threshold_is_the_lowest_score_that_meets_the_rate(calibration: Calibration, fmr: float) -> None:
    threshold = calibration.threshold(fmr)
    if threshold <= 1:
        assert calibration.false_match_rate(threshold).fmr <= fmr
    assert threshold > 1 or threshold > -0.3 - 2e-5
    assert calibration.false_match_rate(min(threshold, 1.0) - 2e-5).fmr > fmr


@seeded
@given(calibrations(), rates_asked)
def test_the_upper_bound_asks_for_at_least_the_threshold_of_the_estimate(calibration: Calibration, fmr: float) -> None:
    careful = calibration.threshold_by_upper_bound(fmr)
    if careful is None:
        assert calibration.false_match_rate(1.0).fmr_upper > fmr
    else:
        assert calibration.false_match_rate(careful).fmr_upper <= fmr
        assert careful >= calibration.threshold(fmr) - 2e-5


@seeded
@given(calibrations(), rates_asked, rates_asked)
def test_a_stricter_rate_never_has_a_lower_threshold(calibration: Calibration, one: float, other: float) -> None:
    strict, loose = sorted((one, other))
    assert calibration.threshold(strict) >= calibration.threshold(loose)


@seeded
@given(calibrations(), cosines, cosines)
def test_a_higher_threshold_never_misses_less(calibration: Calibration, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= calibration.expected_fnir(low) <= calibration.expected_fnir(high) <= 1


@seeded
@given(calibrations(), cosines)
def test_the_interval_of_the_misses_holds_them(calibration: Calibration, threshold: float) -> None:
    low, high = calibration.expected_fnir_interval(threshold)
    assert 0 <= low <= calibration.expected_fnir(threshold) + 1e-12
    assert calibration.expected_fnir(threshold) - 1e-12 <= high <= 1


def test_the_interval_of_the_misses_is_wilsons() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, 15 of 148, 0 of 20 and 1 of 29
    known = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (missed, people), bounds in known.items():
        scores = (0.1,) * missed + (0.9,) * (people - missed)
        found = replace(curve(), mated_scores=scores, mated_people=people).expected_fnir_interval(0.5)
        assert found == pytest.approx(bounds, abs=1e-4)


def test_a_measured_score_has_its_measured_rate() -> None:
    calibration = curve()
    rate = calibration.false_match_rate(calibration.scores[10])
    assert rate.fmr == pytest.approx(10 ** calibration.log10_fmr[10])
    assert rate.fmr_upper == pytest.approx(10 ** calibration.log10_fmr_upper[10])


def test_between_two_measured_scores_the_logarithm_is_interpolated() -> None:
    calibration = curve()
    middle = (calibration.scores[10] + calibration.scores[11]) / 2
    expected = (calibration.log10_fmr[10] + calibration.log10_fmr[11]) / 2
    assert math.log10(calibration.false_match_rate(middle).fmr) == pytest.approx(expected)


def test_below_the_measured_scores_everyone_may_match() -> None:
    calibration = replace(
        curve(), log10_fmr=(-0.01, *curve().log10_fmr[1:]), log10_fmr_lower=(-0.01, *curve().log10_fmr_lower[1:])
    )
    assert calibration.false_match_rate(-0.9).fmr == 1.0


def test_beyond_what_was_measured_the_answer_says_so() -> None:
    calibration = curve()
    end, beyond = calibration.false_match_rate(0.4), calibration.false_match_rate(0.5)
    assert (end.extrapolated, beyond.extrapolated) == (False, True)
    assert (calibration.is_extrapolated(0.4), calibration.is_extrapolated(0.5)) == (False, True)


def test_a_score_above_all_is_judged_as_the_highest() -> None:
    # a product of float32 vectors of length 1 can be 1.0000001
    assert curve().false_match_rate(1.0000001) == curve().false_match_rate(1.0)


def test_a_rate_that_no_score_meets_has_a_threshold_above_every_score() -> None:
    calibration = curve()
    assert calibration.threshold(1e-9) < 1 < calibration.threshold(1e-11)
    assert calibration.threshold_by_upper_bound(10**-9.5) is None
    assert calibration.expected_fnir(calibration.threshold(1e-11)) == 1.0


def test_a_mate_at_the_threshold_is_found() -> None:
    calibration = replace(curve(), mated_scores=(0.2, 0.4, 0.4, 0.6))
    assert calibration.expected_fnir(0.4) == 0.25
    assert calibration.expected_fnir(math.nextafter(0.4, 1)) == 0.75


def test_a_rate_of_one_in_one_is_met_by_everyone() -> None:
    assert curve().threshold(1.0) < -0.999


@seeded
@given(st.floats(1e-6, 0.5), st.integers(1, 10**7))
def test_so_many_comparisons_at_this_rate_give_the_wanted_fpir(fpir: float, comparisons: int) -> None:
    fmr = fmr_for_fpir(fpir, comparisons)
    assert -math.expm1(comparisons * math.log1p(-fmr)) == pytest.approx(fpir, rel=1e-9)


def test_ten_million_comparisons_keep_every_digit() -> None:
    # 1 - (1 - 1e-6)^(1e-7) by its series; the plain formula keeps two digits of it
    assert fmr_for_fpir(1e-6, 10**7) == pytest.approx(1.0000005e-13, rel=1e-9)


def test_an_empty_gallery_is_judged_as_one_comparison() -> None:
    assert fmr_for_fpir(0.01, 0) == fmr_for_fpir(0.01, 1) == pytest.approx(0.01)


@pytest.mark.parametrize(("fpir", "comparisons"), [(0.0, 10), (1.0, 10), (-0.1, 10), (0.01, -1), (math.nan, 10)])
def test_an_impossible_rate_or_count_is_refused(fpir: float, comparisons: int) -> None:
    with pytest.raises(ValueError, match="fpir must lie between 0 and 1"):
        fmr_for_fpir(fpir, comparisons)


@seeded
@given(st.floats(1e-6, 0.5), st.integers(1, 10**7))
def test_the_fpir_of_a_rate_is_the_way_back(fpir: float, comparisons: int) -> None:
    assert fpir_of_fmr(fmr_for_fpir(fpir, comparisons), comparisons) == pytest.approx(fpir, rel=1e-9)


def test_where_everyone_matches_every_search_is_a_false_alarm() -> None:
    assert fpir_of_fmr(1.0, 5) == 1.0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"log10_fmr": (-1.0,)}, "for each of at least two scores"),
        ({"scores": tuple(reversed(curve().scores))}, "must ascend"),
        ({"scores": tuple(score - 0.1 for score in curve().scores)}, "must reach 1"),
        ({"log10_fmr": (-10.0, *curve().log10_fmr[1:])}, "not rise"),
        (
            {"log10_fmr_upper": tuple(rate + 0.1 for rate in curve().log10_fmr_upper)},
            "log10_fmr_upper of a calibration",
        ),
        ({"log10_fmr_upper": (*curve().log10_fmr_upper[:-1], -12.0)}, "outside its bounds"),
        ({"log10_fmr_lower": curve().log10_fmr_upper}, "outside its bounds"),
        ({"mated_scores": ()}, "mated scores"),
        ({"mated_scores": (0.5, 0.4)}, "mated scores"),
        ({"mated_people": 0}, "mated_people of a calibration"),
    ],
)
def test_a_calibration_that_contradicts_itself_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(curve(), **change)


def test_a_calibration_survives_its_file() -> None:
    text = curve().to_json()
    assert Calibration.from_json(text) == curve()
    assert len(text.splitlines()) == len(curve().as_json()) + 3


def test_a_changed_file_is_refused() -> None:
    changed = json.loads(curve().to_json())
    changed["log10_fmr"][-1] = -9.9
    with pytest.raises(ValueError, match="was changed"):
        Calibration.from_json(json.dumps(changed))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pack_id", 3),
        ("method", "guessing"),
        ("method", {"a": 1}),
        ("population", None),
        ("population", ["people"]),
        ("population", ""),
        ("population", "a\0b"),
        ("population", "a\ud800b"),
        ("population", "x" * 10_000),
        ("people", "many"),
        ("people", 1.5),
        ("people", True),
        ("people", 0),
        ("comparisons", 10**40),
        ("found_mates", "x"),
        ("found_mates", math.nan),
        ("found_mates", -1.0),
        ("scores", "many"),
        ("scores", [math.nan] * 24 + [1.0]),
        ("scores", ["a"] * 25),
        ("scores", [*curve().scores[:-1], 10**400]),
        ("log10_fmr", None),
        ("log10_fmr_lower", [*curve().log10_fmr_lower[:-1], -math.inf]),
        ("log10_fmr_lower", [*curve().log10_fmr_lower[:-1], -400.0]),
        ("measured_to", None),
        ("measured_to", math.nan),
        ("mated_scores", [math.nan] * 5),
        ("mated_scores", [True]),
        ("mated_scores", [0.5] * 100_000),
        ("mated_people", 10**400),
        ("mated_population", 3),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_what_is_no_calibration_is_refused_whatever_its_id(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} of a calibration"):
        Calibration.from_json(json.dumps(forged(curve(), **{name: value})))


@pytest.mark.parametrize("text", ["", "[1]", "null", '{"people": 3}', "NaN"])
def test_another_text_is_no_calibration(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting value|this is no calibration"):
        Calibration.from_json(text)


def test_a_calibration_of_whole_numbers_is_read() -> None:
    whole = forged(curve(), found_mates=0, mated_scores=[0, 1])
    assert Calibration.from_json(json.dumps(whole)).mated_scores == (0, 1)


def test_two_calibrations_differ_in_their_ids() -> None:
    assert curve().calibration_id == curve().calibration_id
    assert curve().calibration_id != replace(curve(), people=1999).calibration_id
    assert curve().calibration_id.startswith("synthetic-")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_a_shipped_calibration_names_its_pack_and_covers_the_rates_that_operations_ask_for(path: Path) -> None:
    calibration = Calibration.from_json(path.read_text(encoding="utf-8"))
    assert calibration.pack_id == path.parent.name
    assert "your population differs" in calibration.population
    assert len(calibration.scores) <= 120
    assert calibration.log10_fmr[0] > -0.01
    thresholds = [calibration.threshold(fmr) for fmr in (1e-3, 1e-4, 1e-5, 1e-6, 1e-8)]
    assert thresholds == sorted(thresholds)
    assert [calibration.is_extrapolated(threshold) for threshold in thresholds[-3:]] == [False, True, True]
    assert calibration.expected_fnir(thresholds[0]) < 0.05


def test_the_default_packs_are_calibrated() -> None:
    assert {"opencv-zoo", "buffalo_s"} <= {path.parent.name for path in SHIPPED}
