"""How large the blocks of a sweep are, and what it makes of the hits of one."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from service.domain import FoundPair, Gallery, Hit, JobState, Reference, Sweep
from service.sweep import SweepService, block_size_of
from service.sweep_pairs import hits_of, pairs_of
from tests.sweeping import case_pairs, crowd_of, fill, runner_of
from tests.synthetic import calibration
from tests.world import GALLERY, World

MOMENT = datetime(2026, 3, 1, tzinfo=UTC)


def reference(number: int, subject_id: str) -> Reference:
    return Reference(number, subject_id, f"e-{number}", np.zeros(4, np.float32), verifies=True)


def sweep_of(other_gallery_id: str | None = None) -> Sweep:
    return Sweep(1, "camp", JobState.RUNNING, 10, 0.5, 0, 9, 9, 0, 9, 0, 0, 0.0, None, MOMENT, MOMENT, other_gallery_id)


def found(sweep: Sweep, probes: list[Reference], hits: list[list[Hit]], known: list[Reference]) -> list[FoundPair]:
    references = {each.reference_id: each for each in known}
    return list(
        pairs_of(sweep, hits_of(sweep, [each.reference_id for each in probes], hits), references, calibration())[1]
    )


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

    assert sizes == [2**28, 1342, 268, 128]


def test_a_gallery_with_smaller_blocks_is_swept_to_its_end() -> None:
    crowd = crowd_of(300, planted=30)
    world = World()
    fill(world.store, crowd)
    sweeps = SweepService(world.store, world.matcher, world.packs, world.metrics, block_comparisons=1)
    sweep = sweeps.start(GALLERY, 10)

    runner_of(sweeps, world).work()

    assert sweeps.sweep(GALLERY, sweep.job_id).done == 300
    assert set(case_pairs(world.store)) == crowd.pairs(sweep.threshold)
