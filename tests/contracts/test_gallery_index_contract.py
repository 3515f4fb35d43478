"""What every gallery index promises; held against exact arithmetic in float64."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain import Embeddings
from service.errors import IndexUnavailable
from service.gallery.exact_index import ExactIndex
from service.gallery.faiss_index import FaissIndex
from service.gallery.segmented_index import SegmentedIndex
from service.ports import GalleryIndex

DIMENSION = 16
NewIndex = Callable[[], GalleryIndex]


def new_segmented(dimension: int) -> SegmentedIndex:
    """Small segments, so that a test of thousands of rows seals and merges some."""
    return SegmentedIndex(dimension, threads=2, seal_at=700, max_segment=2000)


@pytest.fixture(params=[ExactIndex, FaissIndex, new_segmented])
def new_index(request: pytest.FixtureRequest) -> NewIndex:
    return lambda: request.param(DIMENSION)


def unit_rows(count: int, seed: int) -> Embeddings:
    rows = np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def filled(index: GalleryIndex, rows: Embeddings) -> GalleryIndex:
    for position, row in enumerate(rows):
        index.add(position + 1, [position], row[np.newaxis, :])
    return index


def test_a_new_index_is_empty_and_finds_nothing(new_index: NewIndex) -> None:
    index = new_index()
    assert (len(index), index.high_water_mark) == (0, 0)
    assert index.search(unit_rows(2, 0), -1.0) == [[], []]


def test_everything_at_or_above_the_threshold_comes_back_best_first(new_index: NewIndex) -> None:
    rows, probes = unit_rows(3000, 1), unit_rows(7, 2)
    index = filled(new_index(), rows)
    exact = probes.astype(np.float64) @ rows.T.astype(np.float64)
    for hits, scores in zip(index.search(probes, 0.3), exact, strict=True):
        sure = set(np.flatnonzero(scores >= 0.3 + 1e-5))
        possible = set(np.flatnonzero(scores >= 0.3 - 1e-5))
        assert sure <= {hit.reference_id for hit in hits} <= possible
        assert all(abs(hit.score - scores[hit.reference_id]) < 1e-5 for hit in hits)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_score_equal_to_the_threshold_is_found(new_index: NewIndex) -> None:
    index = new_index()
    row = np.zeros((1, DIMENSION), np.float32)
    row[0, :2] = (0.5, np.sqrt(0.75))
    probe = np.zeros((1, DIMENSION), np.float32)
    probe[0, 0] = 1.0
    index.add(1, [9], row)
    assert [hit.reference_id for hit in index.search(probe, 0.5)[0]] == [9]


def test_a_removed_reference_is_never_found_again(new_index: NewIndex) -> None:
    rows = unit_rows(50, 3)
    index = filled(new_index(), rows)
    index.remove(51, [7, 8])
    found = {hit.reference_id for hit in index.search(rows[7:8], -1.0)[0]}
    assert found == set(range(50)) - {7, 8}
    assert (len(index), index.high_water_mark) == (48, 51)


def test_removing_an_unknown_reference_is_no_error(new_index: NewIndex) -> None:
    index = filled(new_index(), unit_rows(3, 4))
    index.remove(4, [99])
    assert (len(index), index.high_water_mark) == (3, 4)


def test_a_reference_can_come_back_after_it_was_removed(new_index: NewIndex) -> None:
    rows = unit_rows(3, 5)
    index = filled(new_index(), rows)
    index.remove(4, [1])
    index.add(5, [1], rows[1:2])
    assert index.search(rows[1:2], 0.999)[0][0].reference_id == 1
    assert len(index) == 3


def test_a_change_that_adds_nothing_moves_the_high_water_mark(new_index: NewIndex) -> None:
    index = new_index()
    index.add(1, [], np.empty((0, DIMENSION), np.float32))
    assert (len(index), index.high_water_mark) == (0, 1)


@pytest.mark.parametrize("seq", [0, 2, 5])
def test_a_gap_or_a_repeat_in_the_change_log_is_refused_and_changes_nothing(new_index: NewIndex, seq: int) -> None:
    rows = unit_rows(2, 6)
    index = filled(new_index(), rows[:1])
    wrong = 1 if seq == 0 else seq + 1
    with pytest.raises(IndexUnavailable):
        index.add(wrong, [1], rows[1:])
    with pytest.raises(IndexUnavailable):
        index.remove(wrong, [0])
    assert (len(index), index.high_water_mark) == (1, 1)


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=40), seed=st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_both_indexes_agree_after_any_history(steps: list[tuple[bool, int]], seed: int) -> None:
    rows = unit_rows(13, seed)
    indexes: list[GalleryIndex] = [ExactIndex(DIMENSION), FaissIndex(DIMENSION)]
    present: set[int] = set()
    for seq, (adds, reference_id) in enumerate(steps, start=1):
        if adds and reference_id not in present:
            present.add(reference_id)
            for index in indexes:
                index.add(seq, [reference_id], rows[reference_id : reference_id + 1])
        else:
            present.discard(reference_id)
            for index in indexes:
                index.remove(seq, [reference_id])
    exact, fast = (index.search(rows[:3], -2.0) for index in indexes)
    for one, other in zip(exact, fast, strict=True):
        assert {hit.reference_id for hit in one} == {hit.reference_id for hit in other} == present
        scores = {hit.reference_id: hit.score for hit in other}
        assert all(abs(hit.score - scores[hit.reference_id]) < 1e-5 for hit in one)


def test_growth_beyond_the_first_array_loses_nothing() -> None:
    index = filled(ExactIndex(DIMENSION), unit_rows(1000, 8))
    index.add(1001, list(range(1000, 5000)), unit_rows(4000, 9))
    assert len(index.search(unit_rows(1, 10), -2.0)[0]) == 5000


def test_what_the_library_refuses_is_an_index_that_failed(new_index: NewIndex) -> None:
    index = filled(new_index(), unit_rows(2, 11))
    with pytest.raises(IndexUnavailable):
        index.add(3, [2], np.zeros((1, DIMENSION + 1), np.float32))
    with pytest.raises(IndexUnavailable):
        index.search(np.zeros((1, DIMENSION + 1), np.float32), 0.5)


def test_it_gives_back_what_it_holds_byte_for_byte(new_index: NewIndex) -> None:
    rows = unit_rows(1500, 8)
    index = new_index()
    index.add(1, range(1499, -1, -1), rows[::-1])
    index.remove(2, [7, 900])
    ids, found = index.templates(-1, 2000)
    kept = [each for each in range(1500) if each not in {7, 900}]
    assert ids.tolist() == kept
    assert found.tobytes() == rows[kept].tobytes()
    ids, found = index.templates(5, 9)
    assert ids.tolist() == [6, 8, 9]
    assert found.tobytes() == rows[[6, 8, 9]].tobytes()


def test_an_empty_index_holds_nothing(new_index: NewIndex) -> None:
    ids, rows = new_index().templates(-1, 2000)
    assert (len(ids), rows.shape) == (0, (0, DIMENSION))


def test_compaction_gives_back_the_room_and_changes_no_answer(new_index: NewIndex) -> None:
    rows = unit_rows(1500, 9)
    index = new_index()
    index.add(1, range(1500), rows)
    index.add(2, [], np.empty((0, DIMENSION), np.float32))
    index.remove(3, range(0, 1500, 100))
    before = index.search(rows[:20], 0.3)
    assert sum(part.templates for part in index.parts()) == 1485
    index.compact()
    for old, new in zip(before, index.search(rows[:20], 0.3), strict=True):
        scores = {hit.reference_id: hit.score for hit in new}
        assert scores == pytest.approx({hit.reference_id: hit.score for hit in old}, abs=1e-6)
    assert (sum(part.templates for part in index.parts()), len(index), index.high_water_mark) == (1485, 1485, 3)
    assert sum(part.removed for part in index.parts()) == 0
    index.add(4, [5000], rows[:1])
    assert [hit.reference_id for hit in index.search(rows[:1], 0.999)[0]] == [5000]


def test_a_threshold_above_every_score_finds_nothing(new_index: NewIndex) -> None:
    rows = unit_rows(3000, 1)
    index = new_index()
    index.add(1, range(3000), rows)
    if isinstance(index, SegmentedIndex):
        index.settle()
    assert index.search(rows[:3], 1.00001) == [[], [], []]
