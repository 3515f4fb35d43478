"""The segmented index beside exact arithmetic, whatever is added, removed, sealed, merged and compacted in between."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from service.domain import Embeddings
from service.gallery import audits
from service.gallery.exact_index import ExactIndex
from service.gallery.sealing import seal
from service.gallery.segmented_index import SegmentedIndex
from service.gallery.segments import Found, Ids, OpenSegment, SealedSegment

DIMENSION = 32
SEAL_AT, MAX_SEGMENT = 1000, 4000
SAME_SCORE = 1e-5
STEPS = settings(
    max_examples=15,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

MakeSealed = Callable[[Ids, Embeddings], SealedSegment]


def unit_rows(count: int, rng: np.random.Generator) -> Embeddings:
    rows = rng.standard_normal((count, DIMENSION), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def mate_of(row: Embeddings, cosine: float, rng: np.random.Generator) -> Embeddings:
    """A unit vector at `cosine` to `row`, (D,)."""
    away = unit_rows(1, rng)[0]
    away -= (away @ row) * row
    away /= np.linalg.norm(away)
    return np.asarray(cosine * row + np.sqrt(1 - cosine**2) * away, np.float32)


class IndexMachine(RuleBasedStateMachine):
    """Random changes and searches; `ExactIndex` says what is right."""

    make_sealed: MakeSealed = staticmethod(seal)

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(7)
        self.exact = ExactIndex(DIMENSION)
        self.index = SegmentedIndex(
            DIMENSION, threads=2, seal_at=SEAL_AT, max_segment=MAX_SEGMENT, make_sealed=self.make_sealed
        )
        self.rows: dict[int, Embeddings] = {}
        self.removed: dict[int, Embeddings] = {}
        self.seq = 0

    def change(self, added: dict[int, Embeddings], removed: list[int]) -> None:
        self.seq += 1
        for index in (self.exact, self.index):
            if added:
                index.add(self.seq, list(added), np.stack(list(added.values())))
            else:
                index.remove(self.seq, removed)
        self.index.settle()  # so that every run meets the same segments

    @rule(count=st.integers(1, 1500))
    def add(self, count: int) -> None:
        first = len(self.rows) + len(self.removed)
        added = dict(enumerate(unit_rows(count, self.rng), start=first))
        self.rows |= added
        self.change(added, [])

    @precondition(lambda self: self.rows)
    @rule(share=st.sampled_from([0.001, 0.05, 0.4]))
    def remove(self, share: float) -> None:
        count = max(1, int(share * len(self.rows)))
        chosen = [int(each) for each in self.rng.choice(list(self.rows), count, replace=False)]
        self.removed |= {each: self.rows.pop(each) for each in chosen}
        self.change({}, chosen)

    @precondition(lambda self: self.removed)
    @rule(count=st.integers(1, 50))
    def bring_back(self, count: int) -> None:
        chosen = [int(each) for each in self.rng.permutation(list(self.removed))[:count]]
        added = {each: self.removed.pop(each) for each in chosen}
        self.rows |= added
        self.change(added, [])

    @precondition(lambda self: self.rows)
    @rule(cosine=st.floats(0.5, 1.0), threshold=st.floats(0.45, 0.9), probes=st.integers(1, 12))
    def search(self, cosine: float, threshold: float, probes: int) -> None:
        known = [*self.rows.values(), *self.removed.values()]
        chosen = np.stack([mate_of(known[self.rng.integers(len(known))], cosine, self.rng) for _ in range(probes)])
        for found, true in zip(self.index.search(chosen, threshold), self.exact.search(chosen, threshold), strict=True):
            scores, truth = ({hit.reference_id: hit.score for hit in hits} for hits in (found, true))
            for reference_id in scores.keys() ^ truth.keys():
                either = scores.get(reference_id, truth.get(reference_id, 0.0))
                assert abs(either - threshold) < SAME_SCORE
            assert all(abs(scores[each] - truth[each]) < SAME_SCORE for each in scores.keys() & truth.keys())

    @invariant()
    def counts_agree(self) -> None:
        assert (len(self.index), self.index.high_water_mark) == (len(self.rows), self.seq)


def test_it_finds_what_exact_arithmetic_finds() -> None:
    run_state_machine_as_test(IndexMachine, settings=STEPS)


@pytest.mark.soak
def test_it_finds_what_exact_arithmetic_finds_in_thousands_of_steps() -> None:
    run_state_machine_as_test(IndexMachine, settings=settings(STEPS, max_examples=100, stateful_step_count=100))


class ForgetfulSegment(SealedSegment):
    """A planted fault: what was removed comes back."""

    def remove(self, ids: object) -> None:
        return


class HastySegment(SealedSegment):
    """A planted fault: the shortlist has room for two, and is never widened."""

    def search(self, probes: Embeddings, threshold: float) -> Found:
        _, places = self.codes.search(probes, 2)
        found: Found = [(self.ids[:0], np.empty(0, np.float32))] * len(probes)
        self._rank(probes, np.arange(len(probes)), places, threshold, found)
        return found


@pytest.mark.parametrize("kind", [ForgetfulSegment, HastySegment])
def test_a_planted_fault_is_found(kind: type[SealedSegment]) -> None:
    def faulty(ids: Ids, rows: Embeddings) -> SealedSegment:
        good = seal(ids, rows)
        return kind(good.ids, good.rows, good.codes, good.error)

    class Faulty(IndexMachine):
        make_sealed = staticmethod(faulty)

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Faulty, settings=settings(STEPS, phases=[Phase.generate], report_multiple_bugs=False))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def filled(count: int, rng: np.random.Generator, each: int = 1000) -> tuple[SegmentedIndex, Embeddings]:
    index, rows = SegmentedIndex(DIMENSION, threads=2, seal_at=SEAL_AT, max_segment=MAX_SEGMENT), unit_rows(count, rng)
    for seq, start in enumerate(range(0, count, each), start=1):
        index.add(seq, range(start, min(start + each, count)), rows[start : start + each])
    index.settle()
    return index, rows


def kinds(index: SegmentedIndex) -> list[tuple[type, int]]:
    return sorted(((type(each), len(each)) for each in index._segments), key=str)


def test_a_full_segment_is_sealed_and_small_ones_are_merged(rng: np.random.Generator) -> None:
    index, _ = filled(4300, rng)
    assert (OpenSegment, 300) in kinds(index)
    sealed = [count for kind, count in kinds(index) if kind is SealedSegment]
    assert sum(sealed) == 4000
    assert all(count <= MAX_SEGMENT for count in sealed)


def test_what_was_removed_is_gone_from_memory_after_compaction(rng: np.random.Generator) -> None:
    index, rows = filled(4000, rng)
    gone = list(range(0, 4000, 5))
    index.remove(5, gone)
    index.settle()
    sealed = [each for each in index._segments if isinstance(each, SealedSegment)]
    assert sum(each.used for each in sealed) == 3200
    held = np.concatenate([each.rows for each in sealed])
    assert float((held @ rows[gone].T).max()) < 0.999
    assert not set(gone) & set(np.concatenate([each.ids for each in sealed]).tolist())


def test_one_removed_template_is_overwritten_at_once(rng: np.random.Generator) -> None:
    index, rows = filled(4000, rng)
    index.remove(5, [17])
    for segment in index._segments:
        if isinstance(segment, SealedSegment):
            assert float((segment.rows @ rows[17]).max()) < 0.999
    assert all(hit.reference_id != 17 for hit in index.search(rows[17:18], 0.99)[0])


def test_removals_during_sealing_are_not_lost(rng: np.random.Generator) -> None:
    sealing, go_on = threading.Event(), threading.Event()

    def slow(ids: Ids, rows: Embeddings) -> SealedSegment:
        sealed = seal(ids, rows)
        sealing.set()
        assert go_on.wait(30)
        return sealed

    index = SegmentedIndex(DIMENSION, threads=2, seal_at=SEAL_AT, max_segment=MAX_SEGMENT, make_sealed=slow)
    rows = unit_rows(SEAL_AT, rng)
    index.add(1, range(SEAL_AT), rows)
    assert sealing.wait(30)
    index.remove(2, [5])
    index.add(3, [5000], rows[5:6])
    assert [hit.reference_id for hit in index.search(rows[5:6], 0.99)[0]] == [5000]
    go_on.set()
    index.settle()
    assert [hit.reference_id for hit in index.search(rows[5:6], 0.99)[0]] == [5000]
    assert len(index) == SEAL_AT


def test_a_failing_seal_leaves_every_answer_right(rng: np.random.Generator, caplog: pytest.LogCaptureFixture) -> None:
    def broken(ids: Ids, rows: Embeddings) -> SealedSegment:
        raise MemoryError

    index = SegmentedIndex(DIMENSION, threads=2, seal_at=SEAL_AT, make_sealed=broken)
    rows = unit_rows(2 * SEAL_AT, rng)
    for seq in (1, 2):
        index.add(seq, range((seq - 1) * SEAL_AT, seq * SEAL_AT), rows[(seq - 1) * SEAL_AT : seq * SEAL_AT])
    index.settle()
    assert [hit.reference_id for hit in index.search(rows[1500:1501], 0.99)[0]] == [1500]
    assert "index.sealing_failed" in caplog.text


def test_the_bound_on_misses_counts_the_audits(rng: np.random.Generator) -> None:
    assert SegmentedIndex(DIMENSION).miss_bound == 0.0
    index, _ = filled(4000, rng)
    sealed = [each for each in index._segments if isinstance(each, SealedSegment)]
    pairs = sum(each.tally.pairs for each in sealed)
    assert pairs >= 6400
    assert index.miss_bound == pytest.approx(1 - 0.05 ** (1 / pairs), rel=1e-6)
    sealed[0].tally.missed += 10
    assert index.miss_bound > 10 / pairs


def test_live_searches_are_audited_in_the_background(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def hasty(ids: Ids, rows: Embeddings) -> SealedSegment:
        good = seal(ids, rows)
        return HastySegment(good.ids, good.rows, good.codes, good.error)

    monkeypatch.setattr(audits, "AUDIT_EVERY_S", 0.0)
    index = SegmentedIndex(DIMENSION, threads=1, seal_at=SEAL_AT, make_sealed=hasty)
    rows = unit_rows(SEAL_AT, rng)
    index.add(1, range(SEAL_AT), rows)
    index.settle()
    assert index.miss_bound == 0.0
    index.search(rows[:1], 0.2)
    for thread in threading.enumerate():
        if thread.name == "audit":
            thread.join()
    true = int(np.count_nonzero(rows @ rows[0] >= 0.2))
    tally = next(each.tally for each in index._segments if isinstance(each, SealedSegment))
    assert (tally.pairs, tally.missed) == (true, true - 2)
    assert index.miss_bound > tally.missed / tally.pairs
    assert "index.candidates_missed" in caplog.text
