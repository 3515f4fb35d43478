"""An open segment finds exactly what comparing every template finds."""

import numpy as np
import pytest

from service.domain import Embeddings
from service.gallery.basis import Probes
from service.gallery.meter import Spent
from service.gallery.open_segment import Found, OpenSegment

DIMENSION, COUNT = 128, 2500


@pytest.fixture
def rows() -> Embeddings:
    rows = np.random.default_rng(1).standard_normal((COUNT, DIMENSION), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def segment_of(rows: Embeddings) -> OpenSegment:
    """Filled as enrolments do, beyond its first room, the last rows one by one."""
    segment = OpenSegment(rows.shape[1], room=1024)
    starts = [*range(0, 2400, 100), *range(2400, len(rows))]
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        segment.append(range(start, end), rows[start:end])
    return segment


def search(segment: OpenSegment, probes: Embeddings, threshold: float, parts: int = 1) -> list[set[int]]:
    found: list[Found] = []
    for part in segment.parts(parts):
        look = part.begin(Probes(probes), threshold, Spent())
        look.run()
        found.append(look.found())
    return [{int(each) for one in found for each in one[number][0]} for number in range(len(probes))]


@pytest.mark.parametrize("threshold", [0.6, 0.2, 0.0, -1.0])
@pytest.mark.parametrize("count", [1, 3, 40])
@pytest.mark.parametrize("parts", [1, 3])
def test_all_that_reaches_the_threshold_is_found(rows: Embeddings, threshold: float, count: int, parts: int) -> None:
    segment, probes = segment_of(rows), rows[5 : 5 + count]
    exact = [set(np.flatnonzero(scores >= threshold).tolist()) for scores in (probes @ rows.T)]
    assert search(segment, probes, threshold, parts) == exact


def test_scores_are_those_of_the_rows(rows: Embeddings) -> None:
    (part,) = segment_of(rows).parts(1)
    look = part.begin(Probes(rows[:1]), 0.15, Spent())
    look.run()
    ((ids, scores),) = look.found()
    assert len(ids) > 20
    assert np.allclose(scores, rows[ids] @ rows[0], atol=1e-6)


@pytest.mark.parametrize("place", [0, 50, 100])
def test_a_row_that_rounds_badly_is_found_beside_rows_that_round_well(place: int) -> None:
    # all of one size: their codes are exact. The odd one lies above its code in every dimension but one
    signs = np.random.default_rng(2).choice([-1.0, 1.0], (100, DIMENSION)).astype(np.float32)
    odd = np.full(DIMENSION, 60.4, np.float32)
    odd[0] = 127
    rows = np.insert(signs, place, odd, axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    segment = OpenSegment(DIMENSION)
    for number, row in enumerate(rows):
        segment.append([number], row[None])
    probe = np.full((1, DIMENSION), DIMENSION**-0.5, np.float32)  # its own code is exact
    assert search(segment, probe, float(probe[0] @ rows[place]) - 1e-6) == [{place}]


def test_what_is_removed_is_not_found_and_leaves_nothing(rows: Embeddings) -> None:
    segment = segment_of(rows)
    segment.remove([7, 2450, 99_999])
    assert len(segment) == COUNT - 2
    assert search(segment, rows[7:8], 0.9) == [set()]
    assert search(segment, rows[[7, 2450, 1, 2, 3]], 0.9) == [set(), set(), {1}, {2}, {3}]
    (part,) = segment.parts(1)
    for place in (7, 2450):
        assert not part.rows[place].any()
        assert not part.coded.codes[place].any()


def test_what_is_removed_while_a_search_runs_is_not_found(rows: Embeddings) -> None:
    (part,) = segment_of(rows).parts(1)
    part.live[7] = False  # the first step of a removal
    look = part.begin(Probes(rows[7:8]), 0.9, Spent())
    look.run()
    assert len(look.found()[0][0]) == 0


def test_a_search_sees_the_templates_of_its_beginning(rows: Embeddings) -> None:
    segment = OpenSegment(DIMENSION, room=16)
    segment.append(range(16), rows[:16])
    (part,) = segment.parts(1)
    segment.append(range(16, 60), rows[16:60])  # into larger arrays
    look = part.begin(Probes(rows[20:21]), 0.9, Spent())
    look.run()
    assert len(look.found()[0][0]) == 0
    assert search(segment, rows[20:21], 0.9) == [{20}]


def test_probes_of_another_dimension_are_refused(rows: Embeddings) -> None:
    (part,) = segment_of(rows).parts(1)
    with pytest.raises(ValueError, match="dimension"):
        part.begin(Probes(rows[:1, :64]), 0.5, Spent())
