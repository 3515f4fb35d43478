"""Which segments become one next."""

import numpy as np
import pytest

from service.gallery.open_segment import OpenSegment
from service.gallery.sealed_segment import SealedSegment
from service.gallery.sealing import seal
from service.gallery.upkeep import next_work
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
