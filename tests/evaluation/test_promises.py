"""What is said of a calibration's promise: seldom wrong of one that is kept, and plain about what few people show."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from service.calibration import fmr_for_fpir
from service.evaluation.figures import Figure
from service.evaluation.promises import FALSE_VERDICTS, FEWER, MORE, NO_DIFFERENCE, Promise, promises, verdict
from service.evaluation.searches import FPIRS, searches
from service.population import population_of, score_at, survival
from tests.evaluation.people import embeddings


def found(value: float, people: int, target: float = 0.1) -> Figure:
    return Figure("fpir", value, value / 2, 2 * value, 10 * people, people, 0.3, target, "calibration", people // 2)


def promise(people: int, target: float = 0.1, tests: int = 3) -> Promise:
    return Promise(found(target, people, target), None, tests, NO_DIFFERENCE)


def test_a_rate_of_few_people_is_no_verdict_and_of_many_it_is() -> None:
    assert verdict(found(0.17, 40), 3) == NO_DIFFERENCE
    assert verdict(found(0.17, 200), 3) == MORE
    assert verdict(found(0.03, 40), 3) == NO_DIFFERENCE
    assert verdict(found(0.03, 200), 3) == FEWER


def test_the_more_tests_the_more_a_difference_takes() -> None:
    assert verdict(found(0.23, 40), 1) == MORE
    assert verdict(found(0.23, 40), 12) == NO_DIFFERENCE


@pytest.mark.parametrize("target", FPIRS)
@pytest.mark.parametrize("people", [20, 40, 250, 3000])
def test_a_share_is_called_more_from_where_the_page_says(people: int, target: float) -> None:
    told = promise(people, target)
    assert verdict(found(told.shows_from, people, target), told.tests) == MORE
    assert verdict(found(told.shows_from - 1 / people, people, target), told.tests) == NO_DIFFERENCE


@pytest.mark.parametrize("target", FPIRS)
def test_so_many_people_as_are_needed_notice_a_doubled_share_most_of_the_time(target: float) -> None:
    needed = promise(40, target).people_needed
    least = round(promise(needed, target).shows_from * needed)
    assert 0.7 < binom.sf(least - 1, needed, 2 * target) < 0.9


def test_each_promise_has_what_is_missed_at_its_threshold() -> None:
    missed = replace(found(0.02, 40), measure="fnir")
    first = replace(missed, rank=1, value=0.3)
    (told,) = promises([replace(missed, chosen_by="here", value=0.5), found(0.1, 40), missed, first])
    assert (told.missed, told.tests, told.verdict) == (missed, 1, NO_DIFFERENCE)


def test_a_calibration_that_keeps_its_promises_is_seldom_accused() -> None:
    everyone = population_of(embeddings([1] * 2000), [f"{person:04d}" for person in range(2000)])
    thresholds = {fpir: score_at(survival(everyone), fmr_for_fpir(fpir, 20)) for fpir in FPIRS}
    accused = 0
    for sample in range(60):
        rows = np.random.default_rng(sample).choice(2000, 40, replace=False)
        some = population_of(everyone.embeddings[rows], [f"{person:02d}" for person in range(40)])
        tops = np.concatenate([split.tops for split in searches(some, 20, sample)])
        shares = [(fpir, float((tops >= threshold).mean())) for fpir, threshold in thresholds.items()]
        accused += any(verdict(found(share, 40, fpir), len(FPIRS)) != NO_DIFFERENCE for fpir, share in shares)
    assert accused <= FALSE_VERDICTS * 60
