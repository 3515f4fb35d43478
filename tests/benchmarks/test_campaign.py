"""A plan comes true: campaigns simulated enrolment by enrolment, and counted against the intervals of the plan."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from benchmarks.campaign import FPIRS, Comparison, calibrated, compared, main, summary
from benchmarks.campaign_simulation import MEASURES, Counted, held, simulate, total
from benchmarks.datasets import Dataset, load_dataset, person_of
from benchmarks.embeddings import FaceSet, extract_faces
from service.campaign import Campaign, outlook
from service.decision import DecisionRule
from service.domain import Embeddings
from service.face.model_packs import installed_pack
from tests.synthetic import calibration

CAMPAIGN = Campaign(size_now=200, size_end=600, enrolments_per_day=40, duplicate_share=0.1)
CALIBRATED, OTHERS, DIMENSION = 200, 640, 32
SEEDS = 12


def random_people(seed: int) -> tuple[Embeddings, list[np.ndarray[tuple[int], np.dtype[np.intp]]]]:
    """Two photographs each of people who look alike by chance only, and are often missed."""
    rng = np.random.default_rng([5, seed])
    count = CALIBRATED + OTHERS
    rows = np.repeat(rng.normal(size=(count, DIMENSION)), 2, axis=0) + 0.7 * rng.normal(size=(2 * count, DIMENSION))
    unit = np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
    return unit, [np.array([2 * person, 2 * person + 1], np.intp) for person in range(count)]


@cache
def campaign_of(seed: int, review_fpir: float) -> Comparison:
    embeddings, people = random_people(seed)
    found = calibrated(FaceSet(embeddings, {}, {}), people[:CALIBRATED], seed)
    days = simulate(
        DecisionRule(found, fnir_warning=1.0),
        review_fpir,
        CAMPAIGN,
        embeddings,
        people[CALIBRATED:],
        np.random.default_rng([6, seed]),
    )
    return Comparison(review_fpir, outlook(found, CAMPAIGN, review_fpir), tuple(days))


@pytest.mark.parametrize("name", MEASURES)
def test_simulated_campaigns_stay_within_the_intervals_of_their_plans(name: str) -> None:
    found = [campaign_of(seed, 0.05) for seed in range(SEEDS)]
    wholes = [held(each.planned.whole, each.whole)[name] for each in found]
    days = [held(each.planned.a_day, day)[name] for each in found for day in each.days]
    assert np.mean(wholes) >= 0.85
    assert np.mean(days) >= 0.9


@pytest.mark.parametrize("name", MEASURES)
def test_the_means_of_many_campaigns_are_those_of_their_plans(name: str) -> None:
    found = [campaign_of(seed, 0.05) for seed in range(SEEDS)]
    planned = np.mean([getattr(each.planned.whole, name).expected for each in found])
    assert np.mean([getattr(each.whole, name) for each in found]) == pytest.approx(planned, rel=0.25)


def test_the_interval_would_not_hold_what_another_setting_brings() -> None:
    """Else it could be so wide that it says nothing."""
    found = [(campaign_of(seed, 0.05), campaign_of(seed, 0.005)) for seed in range(3)]
    assert not any(held(loose.planned.whole, strict.whole)["false_alarms"] for loose, strict in found)
    assert not any(held(strict.planned.whole, loose.whole)["false_alarms"] for loose, strict in found)


def test_everyone_who_comes_is_counted_once() -> None:
    days = campaign_of(0, 0.05).days
    whole = total(days)
    assert len(days) == CAMPAIGN.days
    assert whole.cases == whole.false_alarms + whole.found_duplicates
    assert 20 <= whole.found_duplicates + whole.missed_duplicates <= 60  # 40 expected


def test_a_threshold_that_no_score_reaches_misses_every_duplicate() -> None:
    embeddings, people = random_people(0)
    campaign = Campaign(100, 200, 100, 0.5)
    rule = DecisionRule(calibration(), fnir_warning=1.0)
    (day,) = simulate(rule, 1e-9, campaign, embeddings, people, np.random.default_rng(0))
    assert (day.cases, day.found_duplicates) == (0, 0)
    assert 30 <= day.missed_duplicates <= 70


def test_too_few_people_are_refused() -> None:
    embeddings, people = random_people(0)
    rule = DecisionRule(calibration(), fnir_warning=1.0)
    with pytest.raises(ValueError, match="too few people for this campaign"):
        simulate(rule, 0.01, CAMPAIGN, embeddings, people[:300], np.random.default_rng(0))
    with pytest.raises(ValueError, match="two photographs"):
        simulate(rule, 0.01, CAMPAIGN, embeddings, [rows[:1] for rows in people], np.random.default_rng(0))


def test_what_is_held_is_told_for_each_measure() -> None:
    workload = outlook(calibration(), CAMPAIGN, 0.05).whole
    inside = Counted(*(round(getattr(workload, name).expected) for name in MEASURES))
    outside = Counted(*(int(getattr(workload, name).high) + 1 for name in MEASURES))
    assert all(held(workload, inside).values())
    assert not any(held(workload, outside).values())


def some_photographs(faces_dir: Path) -> Dataset:
    """Two photographs each of 160 people, and one each of 160 others."""
    whole = load_dataset(faces_dir)
    files: dict[str, list[str]] = {}
    for photograph in whole.photographs:
        files.setdefault(person_of(photograph), []).append(photograph)
    several = [found[:2] for found in files.values() if len(found) > 1][:160]
    single = [found for found in files.values() if len(found) == 1][:160]
    return Dataset(
        faces_dir, tuple(photograph for found in several + single for photograph in found), (), whole.open_set
    )


@pytest.mark.models
@pytest.mark.faces
def test_campaigns_with_real_faces_stay_within_their_plans(faces_dir: Path, models_dir: Path) -> None:
    pack = installed_pack(models_dir, "opencv-zoo", accepted_licences=frozenset())
    faces = extract_faces(some_photographs(faces_dir), pack, workers=2, min_face_width_px=20, progress=lambda _: None)
    campaign = Campaign(size_now=50, size_end=140, enrolments_per_day=10, duplicate_share=0.2)
    found = [each for split in range(8) for each in compared(faces, split, 160, campaign)]
    for name in MEASURES:
        assert np.mean([held(each.planned.whole, each.whole)[name] for each in found]) >= 0.85
        assert np.mean([held(each.planned.a_day, day)[name] for each in found for day in each.days]) >= 0.9
    assert {each.review_fpir for each in found} == set(FPIRS)
    assert summary(found).row_count == len(FPIRS) * 5


def test_a_data_set_that_is_none_is_told(tmp_path: Path) -> None:
    assert main(["--dataset", str(tmp_path)]) == 1
