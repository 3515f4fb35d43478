"""How large the blocks of a sweep are, and what it makes of the hits of one."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from service.domain import FoundPair, Gallery, Hit, JobState, Reference, Sweep
from service.sweep import SweepService, block_size_of
from service.sweep_pairs import hits_of, pairs_of
from tests.sweeping import case_pairs, crowd_of, fill, runner_of
from tests.synthetic import calibration
from tests.world import GALLERY, World

MOMENT = datetime(2026, 3, 1, tzinfo=UTC)


def reference(number: int, subject_id: str) -> Reference:
    return Reference(number, subject_id, f"e-{number}", np.zeros(4, np.float32), verifies=True)


def sweep_of(other_gallery_id: str | None = None, cursor: int = 0) -> Sweep:
    return Sweep(
        1, "camp", JobState.RUNNING, 10, 0.5, cursor, 9, 9, 0, 9, 0, 0, 0.0, None, MOMENT, MOMENT, other_gallery_id
    )


def counted(
    sweep: Sweep, probes: list[Reference], hits: list[list[Hit]], known: list[Reference]
) -> tuple[int, tuple[FoundPair, ...]]:
    references = {each.reference_id: each for each in known}
    return pairs_of(sweep, hits_of(sweep, [each.reference_id for each in probes], hits), references, calibration())


def found(sweep: Sweep, probes: list[Reference], hits: list[list[Hit]], known: list[Reference]) -> list[FoundPair]:
    return list(counted(sweep, probes, hits, known)[1])


@pytest.mark.parametrize(
    "hits",
    [[[], [Hit(1, 0.6)]], [[Hit(2, 0.6)], []], [[Hit(1, 1.0), Hit(2, 0.6)], [Hit(2, 1.0), Hit(1, 0.6)]]],
    ids=["by the later one", "by the earlier one", "by both"],
)
def test_a_pair_is_found_from_either_side_and_counted_once(hits: list[list[Hit]]) -> None:
    people = [reference(1, "a"), reference(2, "b")]

    count, (pair,) = counted(sweep_of(), people, hits, people)

    assert (count, pair.is_counted) == (1, True)
    assert (pair.encounter_id, pair.candidate.encounter_id, pair.candidate.score) == ("e-2", "e-1", 0.6)


def test_a_pair_is_counted_in_the_first_block_that_can_find_it() -> None:
    people = [reference(1, "a"), reference(2, "b")]

    first, (begun,) = counted(sweep_of(), people[:1], [[Hit(2, 0.6)]], people)
    second, (again,) = counted(sweep_of(cursor=1), people[1:], [[Hit(1, 0.6)]], people)

    assert (first, begun.is_counted, second, again.is_counted) == (1, True, 0, False)
    assert (begun.encounter_id, again.encounter_id) == ("e-2", "e-2")


def test_who_came_after_the_beginning_is_left_to_the_next_sweep() -> None:
    assert hits_of(sweep_of(), [8, 9], [[Hit(10, 0.6)], [Hit(10, 0.6)]]) == []


def test_two_subjects_that_are_each_the_later_one_once_are_one_pair() -> None:
    people = [reference(1, "a"), reference(2, "b"), reference(3, "a")]
    hits = [[], [Hit(1, 0.6)], [Hit(2, 0.7)]]

    (pair,) = found(sweep_of(), people, hits, people)

    assert (pair.subject_id, pair.candidate.subject_id, pair.candidate.score) == ("a", "b", 0.7)


def test_who_has_the_names_of_a_pair_the_other_way_round_in_another_gallery_is_another_pair() -> None:
    here, there = [reference(1, "a"), reference(2, "b")], [reference(3, "a"), reference(4, "b")]
    hits = [[Hit(4, 0.6)], [Hit(3, 0.6)]]

    pairs = found(sweep_of("village"), here, hits, [*here, *there])

    assert [(pair.subject_id, pair.candidate.subject_id) for pair in pairs] == [("a", "b"), ("b", "a")]
    assert {pair.candidate.gallery_id for pair in pairs} == {"village"}


def test_a_hit_below_the_threshold_is_none_whatever_the_index_was_asked_for() -> None:
    assert hits_of(sweep_of(), [1, 2], [[], [Hit(1, 0.49)]]) == []


def test_a_block_is_smaller_in_a_larger_gallery_and_never_tiny() -> None:
    gallery = Gallery("camp", "pack", 0.01, 0.001, 0.001, keep_samples=False, created_at=MOMENT)

    sizes = [block_size_of(replace(gallery, template_count=count)) for count in (0, 200_000, 10**6, 10**7)]

    assert sizes == [2**29, 2684, 536, 128]


def test_a_gallery_with_smaller_blocks_is_swept_to_its_end() -> None:
    crowd = crowd_of(300, planted=30)
    world = World()
    fill(world.store, crowd)
    sweeps = SweepService(world.store, world.matcher, world.packs, world.metrics, block_comparisons=1)
    sweep = sweeps.start(GALLERY, 10)

    runner_of(sweeps, world).work()

    assert sweeps.sweep(GALLERY, sweep.job_id).done == 300
    assert set(case_pairs(world.store)) == crowd.pairs(sweep.threshold)
