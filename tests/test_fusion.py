"""The fused score, and that a search finds whatever has one at its threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain import Embeddings, Reference
from service.fusion import (
    LEAST_LENGTH,
    comparisons,
    fused_probe,
    fused_reference,
    fused_scores,
    search_probes,
    search_threshold,
)

seeded = settings(deadline=None, derandomize=True, max_examples=300)


def unit(rows: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Embeddings:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def captures(rng: np.random.Generator, count: int, spread: float, dimension: int = 16) -> Embeddings:
    """Samples of one person: the larger the spread, the less they agree."""
    return unit(rng.normal(size=dimension) + spread * rng.normal(size=(count, dimension)))


def references_of(embeddings: Embeddings, subject_id: str = "ada", *, failed: int | None = None) -> list[Reference]:
    return [Reference(place, subject_id, f"e-{place}", row, place != failed) for place, row in enumerate(embeddings)]


def test_the_mean_of_samples_that_agree_has_length_one() -> None:
    rows = captures(np.random.default_rng(1), 3, 0.3)
    mean = unit(rows.mean(axis=0).astype(np.float64))
    assert fused_probe(rows) == pytest.approx(mean, abs=1e-6)
    assert fused_reference(rows) == pytest.approx(mean, abs=1e-6)
    assert search_probes(rows) == pytest.approx(np.vstack([rows, mean]), abs=1e-6)


def test_samples_of_two_people_are_not_fused() -> None:
    two = np.eye(2, 16, dtype=np.float32)
    assert fused_probe(two) is None
    assert search_probes(two) is two
    assert not fused_scores(two, references_of(captures(np.random.default_rng(1), 2, 0.3)))


def test_references_of_two_people_count_less_together() -> None:
    two = np.eye(2, 16, dtype=np.float32)
    assert np.linalg.norm(fused_reference(two)) == pytest.approx(np.sqrt(0.5) / LEAST_LENGTH)
    assert np.linalg.norm(fused_reference(np.stack([two[0], -two[0]]))) == 0


def test_one_sample_stays_as_it_is() -> None:
    row = captures(np.random.default_rng(1), 1, 0.3)
    assert fused_probe(row) == pytest.approx(row[0], abs=1e-7)
    assert fused_reference(row) == pytest.approx(row[0], abs=1e-7)
    assert search_probes(row) is row
    assert not fused_scores(row, references_of(row))


def test_the_fused_score_is_the_cosine_of_the_means_and_the_best_pair_stays_visible() -> None:
    rng = np.random.default_rng(2)
    both = captures(rng, 5, 0.8)
    probes, own = both[:2], both[2:]
    found = fused_scores(probes, [*references_of(own), *references_of(captures(rng, 1, 0.1), "ben")])
    ada, scores = found["ada"], own @ probes.T
    means = unit(probes.mean(axis=0).astype(np.float64)), unit(own.mean(axis=0).astype(np.float64))
    assert ada.score == pytest.approx(float(means[0] @ means[1]), abs=1e-6)
    assert (ada.pair_score, ada.best.reference_id) == (scores.max(), scores.max(axis=1).argmax())
    assert set(found) == {"ada", "ben"}  # one reference, but two probes


def test_a_reference_that_failed_the_continuity_check_is_compared_and_left_out_of_the_mean() -> None:
    rng = np.random.default_rng(3)
    probes, own, stranger = captures(rng, 2, 0.5), captures(rng, 2, 0.5), captures(rng, 1, 0.5)
    with_failed = fused_scores(probes, references_of(np.vstack([own, stranger]), failed=2))["ada"]
    assert with_failed.score == fused_scores(probes, references_of(own))["ada"].score
    assert fused_scores(stranger, references_of(np.vstack([own, stranger]), failed=2))["ada"].best.reference_id == 2
    assert not fused_scores(probes, references_of(stranger, failed=0))


@pytest.mark.parametrize(
    ("templates", "several", "searched", "counted"),
    [(10, 0, 1, 10), (10, 2, 1, 12), (10, 9, 1, 15), (10, 0, 3, 30), (10, 4, 4, 40), (0, 0, 1, 0)],
)
def test_each_fused_comparison_is_counted(templates: int, several: int, searched: int, counted: int) -> None:
    assert comparisons(templates, several, searched) == counted


@seeded
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 5), st.floats(0, 4), st.floats(0, 4), st.floats(-1, 1))
def test_a_fused_score_at_the_threshold_needs_a_reference_that_the_search_finds(
    seed: int, count: int, enrolled: int, spread: float, other_spread: float, alike: float
) -> None:
    rng = np.random.default_rng(seed)
    probes, own = captures(rng, count, spread), captures(rng, enrolled, other_spread)
    own = unit((1 - abs(alike)) * own + alike * probes.mean(axis=0))
    fused = fused_scores(probes, references_of(own)).get("ada")
    pair = float((probes @ own.T).max())
    threshold = pair if fused is None else max(pair, fused.score)  # the highest at which there is anything to find
    from_here = search_threshold(threshold, several=int(enrolled > 1))
    assert float((search_probes(probes) @ own.T).max()) >= from_here - 1e-6


def test_the_worst_case_of_the_bound_is_reached() -> None:
    """Two references whose mean is as short as counts, and a probe that lies in its direction."""
    half = np.arccos(LEAST_LENGTH)
    own = np.array([[np.cos(half), np.sin(half)], [np.cos(half), -np.sin(half)]], np.float32)
    probe = np.array([[1, 0]], np.float32)
    fused = fused_scores(probe, references_of(own))["ada"]
    assert fused.score == pytest.approx(1)
    assert fused.pair_score == pytest.approx(search_threshold(fused.score, several=1), abs=1e-5)


def test_only_references_of_several_are_looked_for_from_lower_down() -> None:
    assert search_threshold(0.5, several=0) == 0.5
    assert search_threshold(0.5, several=3) == 0.5 * LEAST_LENGTH
    assert search_threshold(-0.5, several=3) == -0.5
