"""Scores to false match rates and back: monotone, inverse, honest about what was not measured."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.calibration import Calibration, Tail, _lowest, fmr_for_fpir

# the same examples on every run, however slow the machine
seeded = settings(deadline=None, derandomize=True, max_examples=200)

SHIPPED = sorted((Path(__file__).parent.parent / "models").glob("*/calibration.json"))

STEEP = Tail(0.3, -4.0, -18.0, intercept_variance=0.001, slope_variance=0.7, covariance=0.02)


def curve(tail: Tail = STEEP, end: float = 0.4) -> Calibration:
    """Measured from -0.2 (FMR 1) to `end`, falling to FMR 1e-5, with bounds that widen."""
    steps = [step / 20 for step in range(21)]
    return Calibration(
        pack_id="synthetic",
        population="synthetic people",
        comparisons=10**7,
        people=2000,
        scores=tuple(-0.2 + step * (end + 0.2) for step in steps),
        log10_fmr=tuple(-5 * step * step for step in steps),
        log10_fmr_upper=tuple(-4.8 * step * step for step in steps),
        tail=tail,
        mated_scores=tuple(0.2 + 0.008 * step for step in range(101)),
    )


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    count = draw(st.integers(2, 12))
    gaps = st.lists(st.floats(0.001, 0.08), min_size=count, max_size=count)
    falls = st.lists(st.floats(0.0, 0.8), min_size=count, max_size=count)
    scores, rates, uppers = [-0.3], [-0.001], [-0.001]
    for gap, fall, share in zip(draw(gaps), draw(falls), draw(falls), strict=True):
        scores.append(scores[-1] + gap)
        rates.append(rates[-1] - fall)
        uppers.append(max(uppers[-1] - fall * min(share, 1.0), rates[-1]))
    slope = draw(st.floats(-30, -3))
    deviation = draw(st.floats(0, -slope / 2))
    centre, intercept = draw(st.floats(-0.2, 0.6)), draw(st.floats(-6, -1))
    tail = Tail(centre, intercept, slope, draw(st.floats(0, 0.1)), (0.9 * deviation) ** 2, 0.0)
    mated = tuple(sorted(draw(st.lists(st.floats(-1, 1), min_size=1, max_size=30))))
    return Calibration("any", "anyone", 1, 1, tuple(scores), tuple(rates), tuple(uppers), tail, mated)


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
@given(calibrations(), rates_asked, st.floats(-2, 2))
def test_a_wrong_guess_makes_no_other_threshold(calibration: Calibration, fmr: float, guess: float) -> None:
    wanted = math.log10(fmr)
    found = _lowest(calibration._log10_fmr, wanted, guess)
    assert (found or 1.00001) == calibration.threshold(fmr)
    careful = _lowest(calibration._log10_fmr_upper, wanted, guess)
    assert careful == calibration.threshold_by_upper_bound(fmr)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_the_guess_is_right_for_a_shipped_calibration(path: Path) -> None:
    calibration = Calibration.from_json(path.read_text(encoding="utf-8"))
    for wanted in (-0.5, -2.0, -4.9, -5.1, -7.0, -8.5):
        assert calibration.threshold(10**wanted) == pytest.approx(calibration._guess(wanted), abs=8e-6)
        careful = max(calibration._guess(wanted), calibration._guess_upper(wanted))
        assert calibration.threshold_by_upper_bound(10**wanted) == pytest.approx(careful, abs=8e-6)


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
@given(calibrations())
def test_the_tail_starts_where_the_measurement_ends(calibration: Calibration) -> None:
    end = calibration.scores[-1]
    before, after = calibration.false_match_rate(end), calibration.false_match_rate(end + 1e-9)
    assert after.fmr == pytest.approx(before.fmr, rel=1e-6)
    assert after.fmr_upper == pytest.approx(before.fmr_upper, rel=1e-6)


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
    calibration = replace(curve(), log10_fmr=(-0.01, *curve().log10_fmr[1:]))
    assert calibration.false_match_rate(-0.9).fmr == 1.0


def test_beyond_the_measured_scores_the_rate_follows_the_tail_and_says_so() -> None:
    calibration = curve()
    end, beyond = calibration.false_match_rate(0.4), calibration.false_match_rate(0.5)
    assert (end.extrapolated, beyond.extrapolated) == (False, True)
    assert (calibration.is_extrapolated(0.4), calibration.is_extrapolated(0.5)) == (False, True)
    # the fit lies below the measured end, so the tail is lifted to it
    assert math.log10(beyond.fmr) == pytest.approx(-5.0 - 18.0 * 0.1)


def test_a_fit_above_the_measured_end_waits_until_it_has_fallen_below_it() -> None:
    calibration = curve(replace(STEEP, intercept=-2.2))  # -4.0 at 0.4, where -5.0 was measured
    assert math.log10(calibration.false_match_rate(0.42).fmr) == pytest.approx(-5.0)
    assert math.log10(calibration.false_match_rate(0.5).fmr) == pytest.approx(-2.2 - 18 * 0.2)


def test_a_bound_that_needs_less_lifting_than_its_estimate_stays_above_it() -> None:
    # the doubt is least at 0.6: from 0.4 on the bound of the fit comes closer to the fit
    calibration = curve(Tail(0.6, -9.0, -18.0, intercept_variance=0.0, slope_variance=2.0, covariance=0.0))
    rate = calibration.false_match_rate(0.6)
    assert rate.fmr_upper >= rate.fmr


def test_doubt_about_the_slope_widens_the_bound_further_out() -> None:
    calibration = curve()
    widths = [
        math.log10(rate.fmr_upper / rate.fmr) for rate in map(calibration.false_match_rate, (0.45, 0.6, 0.8, 1.0))
    ]
    assert widths == sorted(widths)
    assert widths[-1] > widths[0] + 0.5


def test_a_rate_that_no_score_meets_has_a_threshold_above_every_score() -> None:
    calibration = curve(replace(STEEP, slope=-3.0, slope_variance=0.0, covariance=0.0))
    assert calibration.threshold(1e-9) > 1
    assert calibration.threshold_by_upper_bound(1e-9) is None
    assert calibration.expected_fnir(calibration.threshold(1e-9)) == 1.0


def test_a_mate_at_the_threshold_is_found() -> None:
    calibration = replace(curve(), mated_scores=(0.2, 0.4, 0.4, 0.6))
    assert calibration.expected_fnir(0.4) == 0.25
    assert calibration.expected_fnir(math.nextafter(0.4, 1)) == 0.75


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


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"log10_fmr": (-1.0,)}, "for each of at least two scores"),
        ({"scores": tuple(reversed(curve().scores))}, "must ascend"),
        ({"log10_fmr": (-1.0, *curve().log10_fmr[1:])}, "must not rise"),
        ({"log10_fmr_upper": (*curve().log10_fmr_upper[:-1], -6.0)}, "below its estimate"),
        ({"tail": replace(STEEP, slope=0.1)}, "must fall"),
        ({"tail": replace(STEEP, slope=-1.0, slope_variance=0.5)}, "must fall"),
        ({"mated_scores": ()}, "mated scores"),
        ({"mated_scores": (0.5, 0.4)}, "mated scores"),
    ],
)
def test_a_calibration_that_contradicts_itself_is_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Calibration.from_json(
            json.dumps(asdict(curve()) | {k: asdict(v) if isinstance(v, Tail) else v for k, v in change.items()})
        )


def test_a_calibration_survives_its_file() -> None:
    assert Calibration.from_json(json.dumps(asdict(curve()))) == curve()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_a_shipped_calibration_names_its_pack_and_covers_the_rates_that_operations_ask_for(path: Path) -> None:
    calibration = Calibration.from_json(path.read_text(encoding="utf-8"))
    assert calibration.pack_id == path.parent.name
    assert "your population differs" in calibration.population
    assert len(calibration.scores) <= 60
    assert calibration.log10_fmr[0] > -0.01
    assert calibration.log10_fmr[-1] < -4.9
    thresholds = [calibration.threshold(fmr) for fmr in (1e-3, 1e-4, 1e-5, 1e-6, 1e-8)]
    assert thresholds == sorted(thresholds)
    assert [calibration.is_extrapolated(threshold) for threshold in thresholds[-2:]] == [True, True]
    assert calibration.expected_fnir(thresholds[0]) < 0.05


def test_the_default_packs_are_calibrated() -> None:
    assert {"opencv-zoo", "buffalo_s"} <= {path.parent.name for path in SHIPPED}
