"""Which segments become one next."""

import numpy as np
import pytest

from service.gallery.open_segment import OpenSegment
from service.gallery.sealed_segment import SealedSegment
from service.gallery.sealing import seal
from service.gallery.upkeep import next_work, shared_basis
from tests.gallery.test_index_machine import DIMENSION, unit_rows

MAX_SEGMENT = 1600


@pytest.mark.parametrize(
    ("sizes", "merged"),
    [
        ([], []),
        ([400, 600, 600], [400, 600, 600]),  # one that is full
        ([600, 500, 1500, 200], [600, 500, 200]),  # the smallest first
        ([500, 600], []),  # together too small to be full
        ([1100, 200], []),  # the small one would make the large one anew
        ([1000, 1001], []),  # too large together
        ([1000, 1000], [1000, 1000]),  # just not: a quarter more than the largest size
        ([550, 600, 650], [550, 600, 650]),  # two would not be full
        ([700, 1250], []),  # one is full already
        ([700, 700, 800], [700, 700]),  # two are, and three would be too large
        ([100, 100, 100, 100, 1500], [100, 100, 100, 100]),  # of one size
        ([100, 100, 100, 1500], []),
    ],
)
def test_segments_are_merged_that_make_a_full_one_or_are_four_of_a_size(sizes: list[int], merged: list[int]) -> None:
    rng, filling = np.random.default_rng(1), OpenSegment(DIMENSION)
    sealed = [seal(np.arange(size), unit_rows(size, rng)) for size in sizes]
    work = next_work([*sealed, filling], filling, 100, MAX_SEGMENT, -1)
    assert sorted(merged) == sorted(len(each) for each in (work.segments if work else ()))
    assert work is None or (work.kind == "merge" and all(isinstance(each, SealedSegment) for each in work.segments))


def test_a_new_segment_shares_the_basis_of_the_largest_unless_it_is_much_larger() -> None:
    rng, filling = np.random.default_rng(1), OpenSegment(DIMENSION)
    small, large = (seal(np.arange(size), unit_rows(size, rng)) for size in (600, 1000))
    for size, expected in [(100, large), (2000, large), (2001, None)]:
        found = shared_basis([small, filling, large], size, at_least=600)
        assert found is (expected.codes.basis if expected is not None else None)


def test_a_basis_that_few_templates_chose_is_not_shared() -> None:
    rng = np.random.default_rng(1)
    few = seal(np.arange(599), unit_rows(599, rng))
    assert shared_basis([few], 599, at_least=600) is None
    assert shared_basis([few], 599, at_least=599) is few.codes.basis
    assert shared_basis([OpenSegment(DIMENSION)], 599, at_least=1) is None
