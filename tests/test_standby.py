"""The union of both packs' answers, where some people are known to one pack alone (pure)."""

from dataclasses import replace

import pytest

from service.domain import Box, Candidate, Decision, Gallery, OutcomeKind
from service.probes import is_same_face
from service.standby import StandbyFinding, found_in_standby_alone, united
from tests.synthetic import BOX, PACK_ID, calibration, packs
from tests.world import GALLERY, START

GALLERY_OF_TWO = Gallery(
    GALLERY,
    "better",
    0.01,
    0.001,
    0.001,
    keep_samples=True,
    created_at=START,
    template_count=10,
    standby_pack_id=PACK_ID,
    standby_template_count=12,
    paired_count=9,
)
THRESHOLDS = packs().of(PACK_ID).rule.thresholds(GALLERY_OF_TWO, 13)


def candidate(subject: str, score: float, rank: int = 1, pack_id: str | None = None) -> Candidate:
    rate = calibration().false_match_rate(score)
    return Candidate(rank, subject, f"e-{subject}", 1, score, rate, pack_id=pack_id)


def decision(outcome: OutcomeKind, *found: Candidate) -> Decision:
    return Decision(outcome, found, THRESHOLDS, ("as ever",))


UNIQUE = decision(OutcomeKind.UNIQUE)


def test_where_both_packs_know_everybody_the_ruling_one_answers_alone() -> None:
    both = replace(GALLERY_OF_TWO, standby_template_count=9)
    beside = StandbyFinding(decision(OutcomeKind.DUPLICATE, candidate("a", 0.9)), (), 0.0)
    assert united(UNIQUE, both, beside) == (UNIQUE, True)


def test_candidates_of_both_are_in_the_order_of_their_false_match_rates() -> None:
    ruling = decision(OutcomeKind.REVIEW, candidate("a", 0.6), candidate("b", 0.5, 2))
    # the same score may mean another rate in another pack
    sure = replace(candidate("c", 0.4, 1, PACK_ID), false_match=calibration().false_match_rate(0.55))
    beside = StandbyFinding(decision(OutcomeKind.DUPLICATE, sure), (), 0.0)
    found, is_complete = united(ruling, GALLERY_OF_TWO, beside)
    assert is_complete
    assert found.outcome is OutcomeKind.DUPLICATE
    assert [(each.rank, each.subject_id, each.pack_id) for each in found.candidates] == [
        (1, "a", None),
        (2, "c", PACK_ID),
        (3, "b", None),
    ]
    assert found.warnings == (
        "as ever",
        "3 templates are of the pack synthetic alone; they were compared by that pack.",
    )


def test_a_subject_whom_both_find_is_named_once_by_the_surer_pack() -> None:
    ruling = decision(OutcomeKind.DUPLICATE, candidate("a", 0.6))
    beside = StandbyFinding(decision(OutcomeKind.REVIEW, candidate("a", 0.5, 1, PACK_ID)), (), 0.0)
    found, _ = united(ruling, GALLERY_OF_TWO, beside)
    assert [(each.score, each.pack_id) for each in found.candidates] == [(0.6, None)]
    assert found.outcome is OutcomeKind.DUPLICATE


@pytest.mark.parametrize("beside", [None, StandbyFinding(None, (), 0.0)])
def test_where_some_could_not_be_compared_nobody_is_unique(beside: StandbyFinding | None) -> None:
    found, is_complete = united(UNIQUE, GALLERY_OF_TWO, beside)
    assert (found.outcome, is_complete) == (OutcomeKind.REVIEW, False)
    assert "NOT compared" in found.warnings[-1]
    flagged = decision(OutcomeKind.DUPLICATE, candidate("a", 0.9))
    assert united(flagged, GALLERY_OF_TWO, beside)[0].outcome is OutcomeKind.DUPLICATE


def test_what_the_answer_names_already_is_no_case_of_the_standby_pack() -> None:
    answer = decision(OutcomeKind.REVIEW, candidate("a", 0.6))
    beside = StandbyFinding(UNIQUE, (candidate("a", 0.7, 1, PACK_ID), candidate("b", 0.6, 2, PACK_ID)), 0.0)
    assert [each.subject_id for each in found_in_standby_alone(answer, beside)] == ["b"]
    assert found_in_standby_alone(answer, None) == ()


def test_two_boxes_are_of_one_face_where_each_holds_the_middle_of_the_other() -> None:
    assert is_same_face(BOX, BOX)
    assert is_same_face(None, BOX)
    assert is_same_face(BOX, replace(BOX, left=40.0, bottom=90.0))
    assert not is_same_face(BOX, Box(101.0, 10.0, 191.0, 110.0))
    # a crowd's box around a small face holds its middle, and not the other way round
    assert not is_same_face(BOX, Box(0.0, 0.0, 1000.0, 1000.0))
    assert not is_same_face(Box(0.0, 0.0, 1000.0, 1000.0), BOX)
