"""Candidates and thresholds to an outcome."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.calibration import fmr_for_fpir
from service.decision import STATED_SIZES, DecisionRule, percent, stated_size
from service.domain import Gallery, Hit, OutcomeKind, Reference, Thresholds
from tests.synthetic import calibration

# the same examples on every run, however slow the machine
seeded = settings(deadline=None, derandomize=True, max_examples=200)

RULE = DecisionRule(calibration(), fnir_warning=0.1)
NOBODY = np.zeros(4, np.float32)


def gallery(review_fpir: float = 0.01, duplicate_fpir: float = 0.001) -> Gallery:
    return Gallery("camp", "synthetic", review_fpir, duplicate_fpir, 0.001, False, datetime(2025, 1, 1, tzinfo=UTC))


def reference(reference_id: int, subject_id: str, *, verifies: bool = True) -> Reference:
    return Reference(reference_id, subject_id, f"encounter-{reference_id}", NOBODY, verifies)


def unit(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    array = np.array(values, np.float32)
    return np.asarray(array / np.linalg.norm(array), np.float32)


THRESHOLDS = replace(RULE.thresholds(gallery(), 1000), review=0.4, duplicate=0.5)
REFERENCES = {1: reference(1, "ada"), 2: reference(2, "ada"), 3: reference(3, "ben"), 4: reference(4, "cleo")}


def outcome(*hits: Hit, thresholds: Thresholds = THRESHOLDS, own: str | None = None) -> OutcomeKind:
    return RULE.decide(hits, REFERENCES, own, thresholds).outcome


def test_nobody_at_the_review_threshold_is_unique() -> None:
    assert outcome() is OutcomeKind.UNIQUE
    assert outcome(Hit(1, 0.39), Hit(3, -0.2)) is OutcomeKind.UNIQUE


def test_a_score_at_the_review_threshold_is_for_review() -> None:
    assert outcome(Hit(1, 0.4)) is OutcomeKind.REVIEW


def test_a_score_at_the_duplicate_threshold_is_a_duplicate() -> None:
    assert outcome(Hit(1, 0.4999)) is OutcomeKind.REVIEW
    assert outcome(Hit(1, 0.5)) is OutcomeKind.DUPLICATE


def test_without_a_proven_threshold_nothing_is_a_duplicate() -> None:
    assert outcome(Hit(1, 1.0), thresholds=replace(THRESHOLDS, duplicate=None)) is OutcomeKind.REVIEW


def test_candidates_come_best_first_and_show_their_own_error_rate() -> None:
    decision = RULE.decide([Hit(3, 0.42), Hit(1, 0.45), Hit(4, 0.41)], REFERENCES, None, THRESHOLDS)
    assert [(one.rank, one.subject_id) for one in decision.candidates] == [(1, "ada"), (2, "ben"), (3, "cleo")]
    assert [one.false_match for one in decision.candidates] == [
        RULE.calibration.false_match_rate(score) for score in (0.45, 0.42, 0.41)
    ]


def test_a_subject_is_shown_once_by_its_best_reference() -> None:
    decision = RULE.decide([Hit(1, 0.42), Hit(2, 0.47), Hit(1, 0.44)], REFERENCES, None, THRESHOLDS)
    assert [(one.subject_id, one.encounter_id, one.score) for one in decision.candidates] == [
        ("ada", "encounter-2", 0.47)
    ]


def test_equal_scores_are_ordered_by_reference() -> None:
    for hits in ([Hit(4, 0.45), Hit(3, 0.45)], [Hit(3, 0.45), Hit(4, 0.45)]):
        decision = RULE.decide(hits, REFERENCES, None, THRESHOLDS)
        assert [one.reference_id for one in decision.candidates] == [3, 4]


def test_a_person_is_no_duplicate_of_themselves() -> None:
    assert outcome(Hit(1, 0.99), Hit(2, 0.98), own="ada") is OutcomeKind.UNIQUE
    assert outcome(Hit(1, 0.99), Hit(3, 0.41), own="ada") is OutcomeKind.REVIEW


def test_a_reference_erased_since_the_search_is_dropped() -> None:
    assert outcome(Hit(77, 0.99)) is OutcomeKind.UNIQUE
    assert outcome(Hit(77, 0.99), Hit(3, 0.41)) is OutcomeKind.REVIEW


@seeded
@given(
    st.lists(st.tuples(st.integers(0, 6), st.floats(-1, 1)), max_size=20),
    st.sampled_from([None, "ada", "ben", "nobody"]),
)
def test_the_outcome_follows_from_the_best_other_person(found: list[tuple[int, float]], own: str | None) -> None:
    hits = [Hit(*pair) for pair in found]
    others = [
        hit.score for hit in hits if hit.reference_id in REFERENCES and REFERENCES[hit.reference_id].subject_id != own
    ]
    decision = RULE.decide(hits, REFERENCES, own, THRESHOLDS)
    best = max(others, default=-1.0)
    expected = "DUPLICATE" if best >= 0.5 else "REVIEW" if best >= 0.4 else "UNIQUE"
    assert decision.outcome == expected
    assert [one.rank for one in decision.candidates] == list(range(1, len(decision.candidates) + 1))
    assert len({one.subject_id for one in decision.candidates}) == len(decision.candidates)


@seeded
@given(st.integers(0, 10**7), st.floats(1e-6, 0.5), st.floats(1e-6, 0.5))
def test_duplicate_is_given_only_where_the_upper_bound_meets_its_target(
    comparisons: int, review_fpir: float, duplicate_fpir: float
) -> None:
    thresholds = RULE.thresholds(gallery(review_fpir, duplicate_fpir), comparisons)
    assert thresholds.duplicate_fmr == fmr_for_fpir(duplicate_fpir, stated_size(comparisons))
    if thresholds.duplicate is None:
        assert RULE.calibration.false_match_rate(1.0).fmr_upper > thresholds.duplicate_fmr
        return
    assert RULE.calibration.false_match_rate(thresholds.duplicate).fmr_upper <= thresholds.duplicate_fmr
    assert thresholds.duplicate >= thresholds.review


@seeded
@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_a_larger_gallery_never_has_a_lower_threshold(one: int, other: int) -> None:
    small, large = (RULE.thresholds(gallery(), size) for size in sorted((one, other)))
    assert large.review >= small.review
    assert large.expected_fnir >= small.expected_fnir


def test_the_first_person_of_a_gallery_is_judged_as_the_second() -> None:
    assert RULE.thresholds(gallery(), 0).review == RULE.thresholds(gallery(), 1).review


@pytest.mark.parametrize(("comparisons", "extrapolated"), [(0, False), (2, False), (10**4, True), (10**7, True)])
def test_thresholds_beyond_the_measured_scores_say_so(comparisons: int, *, extrapolated: bool) -> None:
    assert RULE.thresholds(gallery(), comparisons).extrapolated is extrapolated


def test_a_setting_that_misses_many_duplicates_shouts() -> None:
    few, many = RULE.thresholds(gallery(), 100), RULE.thresholds(gallery(), 10**6)
    assert few.expected_fnir < 0.1 < many.expected_fnir
    assert RULE.warnings(few) == ()
    assert f"miss {percent(many.expected_fnir)} of the duplicates" in RULE.warnings(many)[0]
    assert RULE.decide([], {}, None, many).warnings == RULE.warnings(many)


@pytest.mark.parametrize(
    ("share", "words"),
    [(1.0, "100 %"), (0.996, "100 %"), (0.5, "50 %"), (0.0123, "1.2 %"), (0.0001, "0.01 %"), (0.0, "0 %")],
)
def test_a_share_is_said_with_two_digits_that_count(share: float, words: str) -> None:
    assert percent(share) == words


def test_a_missing_duplicate_threshold_is_said() -> None:
    thresholds = replace(RULE.thresholds(gallery(), 100), duplicate=None)
    assert RULE.warnings(thresholds) == (
        "No score proves a duplicate at the wanted duplicate_fpir: all findings are REVIEW.",
    )


def test_every_answer_names_the_population_of_its_expectation() -> None:
    assert RULE.thresholds(gallery(), 100).expected_fnir_population == "synthetic people"


ADA, ADA_AGAIN, BEN = unit(1, 0, 0, 0), unit(1, 0.2, 0, 0), unit(0, 1, 0, 0)


def own(embedding: np.ndarray[tuple[int], np.dtype[np.float32]], *, verifies: bool = True) -> Reference:
    return Reference(1, "ada", "encounter-1", embedding, verifies)


def test_a_further_encounter_of_the_same_person_continues() -> None:
    continuity, verifies = RULE.continuity(np.stack([ADA_AGAIN]), [own(BEN), own(ADA)], 0.001)
    assert continuity is not None
    assert continuity.passed
    assert continuity.score == pytest.approx(float(ADA_AGAIN @ ADA))
    assert verifies == (True,)


def test_a_further_encounter_of_someone_else_breaks_continuity_and_verifies_nobody() -> None:
    continuity, verifies = RULE.continuity(np.stack([ADA_AGAIN, BEN]), [own(ADA)], 0.001)
    assert continuity is not None
    assert not continuity.passed
    assert continuity.score == pytest.approx(0.0)
    assert verifies == (True, False)


def test_a_reference_that_failed_before_vouches_for_nobody() -> None:
    continuity, verifies = RULE.continuity(np.stack([BEN]), [own(ADA), own(BEN, verifies=False)], 0.001)
    assert continuity is not None
    assert not continuity.passed
    assert verifies == (False,)


def test_the_samples_of_a_first_encounter_are_compared_with_the_first_of_them() -> None:
    assert RULE.continuity(np.stack([ADA]), [], 0.001) == (None, (True,))
    continuity, verifies = RULE.continuity(np.stack([ADA, ADA_AGAIN, BEN]), [], 0.001)
    assert continuity is not None
    assert not continuity.passed
    assert verifies == (True, True, False)


@seeded
@given(st.integers(0, 10**14))
def test_a_stated_size_is_never_smaller_and_at_most_an_eighth_larger(comparisons: int) -> None:
    size = stated_size(comparisons)
    assert size >= comparisons
    assert size <= max(1.1221 * comparisons + 1, 1)
    assert stated_size(size) == size


def test_stated_sizes_are_round_numbers_of_comparisons() -> None:
    assert STATED_SIZES[:12] == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13)
    assert {100, 1000, 10**6, 10**9} <= set(STATED_SIZES)


def test_more_comparisons_than_any_stated_size_take_the_largest() -> None:
    assert stated_size(10**20) == STATED_SIZES[-1] == 10**14
