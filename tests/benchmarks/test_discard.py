"""Error-versus-discard curves of made people, where it is known which samples are bad."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.discard import fit_scale, measure
from benchmarks.discard_curves import (
    MEASURES,
    SHARES,
    UNIFIED,
    Half,
    Point,
    begin,
    curve,
    discarded_at_random,
    false_match_rate,
    is_reported,
    kept_of,
)
from benchmarks.discard_plot import draw
from benchmarks.embeddings import FaceSet
from tests.test_quality_rule import GOOD

PEOPLE, EACH, DIMENSION = 120, 4, 32
BAD = 0.05


def made() -> tuple[
    np.ndarray[tuple[int, ...], np.dtype[np.float32]], list[str], np.ndarray[tuple[int], np.dtype[np.bool_]]
]:
    """Return embeddings of people, whose they are, and which are so bad that they look like nobody."""
    rng = np.random.default_rng(0)
    faces = rng.normal(size=(PEOPLE, 1, DIMENSION)) + 0.3 * rng.normal(size=(PEOPLE, EACH, DIMENSION))
    rows = faces.reshape(-1, DIMENSION)
    is_bad = rng.permutation(len(rows)) < round(BAD * len(rows))
    rows[is_bad] = rng.normal(size=(is_bad.sum(), DIMENSION))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    people = [f"person-{number:03}" for number in range(PEOPLE) for _ in range(EACH)]
    return rows.astype(np.float32), people, is_bad


def half_of() -> tuple[Half, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    rows, people, is_bad = made()
    return begin(rows, people, fmr=1e-3), is_bad


def point_at(points: list[Point], share: float) -> Point:
    return next(each for each in points if each.share == share)


def test_a_measure_that_knows_the_bad_samples_takes_away_all_errors() -> None:
    half, is_bad = half_of()
    points = curve(half, [0.0 if bad else 1.0 for bad in is_bad], discarded_at_random(half))
    before, after = point_at(points, 0.0), point_at(points, BAD)
    assert before.fnmr == pytest.approx(2 * BAD, abs=0.03)
    assert after.fnmr < 0.005
    assert after.random_fnmr == pytest.approx(before.fnmr, abs=0.01)
    assert after.gain == pytest.approx(after.random_fnmr - after.fnmr)
    assert 0 < after.gain_low <= after.gain <= after.gain_high
    assert [each.share for each in points] == list(SHARES)


def test_a_measure_that_knows_nothing_gains_nothing() -> None:
    half, _ = half_of()
    values = np.random.default_rng(5).normal(size=PEOPLE * EACH).tolist()
    after = point_at(curve(half, values, discarded_at_random(half)), BAD)
    assert after.gain_low < 0 < after.gain_high
    assert abs(after.gain) < 0.02


def test_a_measure_that_prefers_the_bad_samples_is_seen_to_harm() -> None:
    half, is_bad = half_of()
    points = curve(half, [1.0 if bad else 0.0 for bad in is_bad], discarded_at_random(half))
    assert point_at(points, 0.2).gain_high < 0


def test_equal_values_are_discarded_at_random_and_what_was_not_measured_last() -> None:
    kept = kept_of([1.0] * 500 + [None] * 500, 0.2)
    assert kept.sum() == 800
    assert kept[500:].all()
    assert 10 < np.flatnonzero(~kept).mean() < 490
    assert kept_of([3.0, 1.0, 2.0, 5.0, 4.0], 0.2).tolist() == [True, False, True, True, True]


def test_the_threshold_stays_and_false_matches_are_counted_at_it() -> None:
    rows, people, is_bad = made()
    half = begin(rows, people, fmr=1e-3)
    everyone = np.ones(len(rows), np.bool_)
    assert false_match_rate(half, everyone, people) == pytest.approx(1e-3, rel=0.1)
    assert false_match_rate(half, ~is_bad, people) == pytest.approx(1e-3, rel=0.5)


def test_the_halves_do_not_share_a_person_and_never_change() -> None:
    reported = [is_reported(f"person-{number}") for number in range(1000)]
    assert 450 < sum(reported) < 550
    assert is_reported("ada") == (hashlib.sha256(b"ada").digest()[0] % 2 == 1)


def test_a_scale_has_its_middle_at_the_middle_of_the_other_half() -> None:
    norms = np.exp(np.random.default_rng(0).normal(3, 0.1, 5000))
    scale = fit_scale("tiny", norms.tolist(), 900)
    scores = np.array([scale.score(norm) for norm in norms])
    assert scores.mean() == pytest.approx(50, abs=0.5)
    assert scores.std() == pytest.approx(15, abs=0.5)
    assert (scale.photographs, scale.people) == (5000, 900)


def test_every_measure_is_drawn_and_written(tmp_path: Path) -> None:
    rows, people, is_bad = made()
    names = [f"{person}/{number:04}.jpg" for number, person in enumerate(people)]
    qualities = [replace(GOOD, embedding_norm=5.0 if bad else 20.0) for bad in is_bad]
    faces = FaceSet(rows, {name: row for row, name in enumerate(names)}, {}, qualities)
    figures = measure("tiny", names, faces, fit_scale("tiny", [18.0, 20.0, 22.0], 3))
    assert set(figures["curves"]) == set(MEASURES)
    assert figures["people"] == sum(is_reported(f"person-{number:03}") for number in range(PEOPLE))
    unified = figures["curves"][UNIFIED]
    assert unified[-1]["gain"] > 0
    assert figures["gates"]["off"]["refused"] == 0 < figures["gates"]["strict"]["refused"]
    draw([figures, json.loads(json.dumps(figures))], tmp_path / "images" / "discard.svg")
    drawn = (tmp_path / "images" / "discard.svg").read_text()
    assert all(name.split(" / ")[0] in drawn for name in MEASURES)
