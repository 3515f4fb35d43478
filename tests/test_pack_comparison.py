"""The comparison of two packs: counted by hand, and intervals that hold the truth as often as they say."""

import numpy as np
import pytest

from service.domain import PairedTemplate
from service.pack_comparison import Judge, compare_packs
from tests.synthetic import _unit

JUDGES = (Judge("old", 0.5, 1e-3), Judge("new", 0.5, 1e-3))


def at(score: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A template that scores this much with `at(1)`."""
    return np.array([score, np.sqrt(1 - score**2)], np.float32)


def sample(subject: str, encounter: str, old: float, new: float, *, verifies: bool = True) -> PairedTemplate:
    return PairedTemplate(subject, f"{subject}-{encounter}", verifies, at(old), at(new))


def test_everybody_counts_the_same_and_doubted_pairs_are_left_out() -> None:
    repeated = [
        # the old pack misses one of two pairs with the first sample, and none of the third with the second
        sample("anna", "1", 1.0, 1.0),
        sample("anna", "2", 0.9, 0.9),
        sample("anna", "3", 0.1, 0.9),
        sample("ben", "1", 1.0, 1.0),
        sample("ben", "2", 0.9, 0.2),
        sample("carl", "1", 1.0, 1.0),
        sample("carl", "2", 0.9, 0.9, verifies=False),
    ]
    found = compare_packs(repeated, [], JUDGES)
    assert (found.subjects, found.mated_pairs, found.left_out_pairs) == (2, 4, 1)
    old, new = (figures.fnmr for figures in found.packs)
    assert old is not None
    assert new is not None
    # anna: the pairs 1-3 (0.1) and 2-3 (0.52): one of three is below 0.5
    assert [old.value, new.value] == pytest.approx([1 / 6, 1 / 2])
    assert (found.own_fmr, found.difference, found.packs[0].fmr) == (None, None, None)


def test_two_samples_of_one_encounter_are_no_mated_pair() -> None:
    found = compare_packs([sample("anna", "1", 1.0, 1.0), sample("anna", "1", 0.9, 0.9)], [], JUDGES)
    assert (found.subjects, found.mated_pairs, found.packs[0].fnmr) == (0, 0, None)


def test_where_nothing_was_missed_the_interval_reaches_as_far_as_so_many_people_allow() -> None:
    repeated = [sample(f"s{number:02}", each, 1.0, 1.0) for number in range(20) for each in "12"]
    estimate = compare_packs(repeated, [], JUDGES).packs[0].fnmr
    assert estimate is not None
    assert (estimate.value, estimate.low) == (0.0, 0.0)
    assert estimate.high == pytest.approx(1 - 0.025 ** (1 / 20))


def test_false_matches_are_counted_once_a_pair_of_people() -> None:
    others = [sample("a", "1", 1.0, 1.0), sample("a", "2", 1.0, 1.0), sample("b", "1", 0.9, 0.1)]
    others += [sample("c", "1", -1.0, -1.0)]
    found = compare_packs([], others, JUDGES)
    assert (found.non_mated_subjects, found.non_mated_pairs) == (3, 3)
    old, new = (figures.fmr for figures in found.packs)
    assert old is not None
    assert new is not None
    assert [old.value, new.value] == pytest.approx([1 / 3, 0.0])


def crowd(seed: int, people: int, spread: tuple[float, float]) -> list[PairedTemplate]:
    """Twice as many samples as people; the packs differ in how much two samples of a person do."""
    rng = np.random.default_rng(seed)
    found = []
    for person in range(people):
        faces = rng.normal(size=(2, 64))
        for encounter in "12":
            rows = [_unit(faces[k] + spread[k] * rng.normal(size=64)) for k in (0, 1)]
            found.append(PairedTemplate(f"s{person:04}", f"{person}-{encounter}", True, rows[0], rows[1]))
    return found


def test_the_better_pack_is_told_by_its_own_pairs_and_the_interval_holds_the_truth() -> None:
    spread, covered = (1.4, 0.6), 0
    truth = compare_packs(crowd(0, 2000, spread), crowd(1, 2000, spread), JUDGES)
    assert truth.own_fmr == 1e-4
    assert truth.difference is not None
    assert truth.difference.high < -0.3
    figures = truth.packs[0].fnmr
    assert figures is not None
    for seed in range(2, 42):
        one = compare_packs(crowd(seed, 100, spread), [], JUDGES).packs[0].fnmr
        assert one is not None
        covered += one.low <= figures.value <= one.high
    assert covered >= 34  # of 40 at 95 %: fewer happen once in a thousand times
