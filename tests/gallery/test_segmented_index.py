"""What the segments of an index do: sealed, merged, compacted and audited beside the searches."""

import dataclasses
import gc
import math
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.domain import Embeddings, Hit
from service.gallery import audits, side_by_side, together
from service.gallery.basis import Basis
from service.gallery.code_error import CodeError
from service.gallery.meter import Meter, Spent
from service.gallery.open_segment import OpenSegment
from service.gallery.rows import HeldRows, Ids
from service.gallery.sealed_segment import SealedSegment
from service.gallery.sealing import seal
from service.gallery.segmented_index import SegmentedIndex
from service.gallery.upkeep import OVERFULL, Segment
from service.metrics import Metrics
from tests.gallery.test_index_machine import DIMENSION, MAX_SEGMENT, SEAL_AT, HastySegment, planted, unit_rows


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
    assert all(count <= OVERFULL * MAX_SEGMENT for count in sealed)


def test_what_was_removed_is_gone_from_memory_after_compaction(rng: np.random.Generator) -> None:
    index, rows = filled(4000, rng)
    gone = list(range(0, 4000, 5))
    index.remove(5, gone)
    index.settle()
    sealed = [each for each in index._segments if isinstance(each, SealedSegment)]
    assert sum(each.used for each in sealed) == 3200
    held = np.concatenate([each.rows.take(np.arange(each.used)) for each in sealed])
    assert float((held @ rows[gone].T).max()) < 0.999
    assert not set(gone) & set(np.concatenate([each.ids for each in sealed]).tolist())


def test_one_removed_template_is_overwritten_at_once(rng: np.random.Generator) -> None:
    index, rows = filled(4000, rng)
    index.remove(5, [17])
    for segment in index._segments:
        if isinstance(segment, SealedSegment):
            assert float((segment.rows.take(np.arange(segment.used)) @ rows[17]).max()) < 0.999
    assert all(hit.reference_id != 17 for hit in index.search(rows[17:18], 0.99)[0])


def test_removals_during_sealing_are_not_lost(rng: np.random.Generator) -> None:
    sealing, go_on = threading.Event(), threading.Event()

    def slow(ids: Ids, rows: Embeddings, basis: Basis | None) -> SealedSegment:
        sealed = seal(ids, rows, basis)
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
    def broken(ids: Ids, rows: Embeddings, basis: Basis | None) -> SealedSegment:
        raise MemoryError

    index = SegmentedIndex(DIMENSION, threads=2, seal_at=SEAL_AT, make_sealed=broken)
    rows = unit_rows(2 * SEAL_AT, rng)
    for seq in (1, 2):
        index.add(seq, range((seq - 1) * SEAL_AT, seq * SEAL_AT), rows[(seq - 1) * SEAL_AT : seq * SEAL_AT])
    index.settle()
    assert [hit.reference_id for hit in index.search(rows[1500:1501], 0.99)[0]] == [1500]
    assert "index.sealing_failed" in caplog.text


@pytest.mark.parametrize("left", [0, 1, 5])
def test_a_segment_of_which_hardly_anything_is_left_is_compacted(rng: np.random.Generator, left: int) -> None:
    index, rows = filled(SEAL_AT, rng)
    index.remove(2, range(left, SEAL_AT))
    index.compact()
    assert (sum(part.removed for part in index.parts()), len(index)) == (0, left)
    for each in range(left):
        assert [hit.reference_id for hit in index.search(rows[each : each + 1], 0.9)[0]] == [each]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_seal_that_fails_in_an_unforeseen_way_keeps_nobody_waiting(rng: np.random.Generator) -> None:
    failing = True

    def broken(ids: Ids, rows: Embeddings, basis: Basis | None) -> SealedSegment:
        if failing:
            raise KeyError
        return seal(ids, rows, basis)

    index = SegmentedIndex(DIMENSION, threads=2, seal_at=SEAL_AT, make_sealed=broken)
    index.add(1, range(SEAL_AT), unit_rows(SEAL_AT, rng))
    index.settle()
    failing = False
    index.add(2, range(SEAL_AT, 2 * SEAL_AT), unit_rows(SEAL_AT, rng))
    index.settle()
    assert (SealedSegment, 2 * SEAL_AT) in kinds(index)


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
    monkeypatch.setattr(audits, "AUDIT_EVERY_S", 0.0)
    index = SegmentedIndex(DIMENSION, threads=1, seal_at=SEAL_AT, make_sealed=planted(HastySegment))
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


def test_many_probes_are_searched_in_portions(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    index, rows = filled(1500, rng)
    monkeypatch.setattr(side_by_side, "_PAIRS_AT_ONCE", 1500 * 90)
    sizes: list[int] = []
    search_all = index._side_by_side.search

    def counted(segments: Sequence[Segment], probes: Embeddings, threshold: float, spent: Spent) -> list[list[Hit]]:
        sizes.append(len(probes))
        return search_all(segments, probes, threshold, spent)

    monkeypatch.setattr(index._side_by_side, "search", counted)
    found = index.search(rows[:100], 0.99)
    assert [hits[0].reference_id for hits in found] == list(range(100))
    assert sizes == [64, 36]
    assert index.search(rows[:0], 0.99) == []


def test_a_fill_waits_for_what_is_not_sealed_yet(rng: np.random.Generator) -> None:
    go_on = threading.Event()

    def slow(ids: Ids, rows: Embeddings, basis: Basis | None) -> SealedSegment:
        assert go_on.wait(30)
        return seal(ids, rows, basis)

    index = SegmentedIndex(DIMENSION, threads=2, seal_at=SEAL_AT, max_segment=SEAL_AT, make_sealed=slow)
    rows = unit_rows(8 * SEAL_AT, rng)

    def fill() -> None:
        for seq in range(1, 9):
            index.add(seq, range((seq - 1) * SEAL_AT, seq * SEAL_AT), rows[(seq - 1) * SEAL_AT : seq * SEAL_AT])

    filling = threading.Thread(target=fill)
    filling.start()
    filling.join(1)
    assert filling.is_alive()
    assert index.high_water_mark <= 4
    go_on.set()
    filling.join(30)
    index.settle()
    assert len(index) == 8 * SEAL_AT
    assert [hit.reference_id for hit in index.search(rows[5:6], 0.99)[0]] == [5]


def test_a_search_tells_the_metrics_what_it_took(rng: np.random.Generator) -> None:
    metrics = Metrics(version="0")
    index = SegmentedIndex(DIMENSION, threads=2, seal_at=2000, meter=Meter(metrics))
    rows = unit_rows(2500, rng)
    for seq, start in enumerate(range(0, 2500, 500), start=1):
        index.add(seq, range(start, start + 500), rows[start : start + 500])
    index.settle()

    def value(name: str, **labels: str) -> float:
        return metrics.registry.get_sample_value(f"biodedup_index_{name}", labels) or 0.0

    def searched(phase: str) -> float:
        return value("search_seconds_count", phase=phase)

    index.search(rows[:20], 0.9)
    assert [searched(phase) for phase in ("codes", "fine", "rows", "open")] == [1, 1, 1, 1]
    assert value("batch_probes_sum") == 20
    assert 1 <= value("shortlist_templates_sum") < 100  # each of them is found by its own code at least
    index.search(rows[:20], -1.0)
    assert [searched(phase) for phase in ("codes", "open")] == [2, 2]
    sealed = sum(part.templates for part in index.parts() if part.state == "sealed")
    odd = sum(len(each.errors.odd) for each in index._segments if isinstance(each, SealedSegment))
    assert 2 * sealed > value("shortlist_templates_sum") > sealed - odd > 0  # the codes can rule out none of them


@pytest.mark.parametrize("probes", [1, 100])
@pytest.mark.parametrize("fault", ["finished", "begin", "run"])
def test_an_index_whose_search_failed_is_gone_when_it_is_dropped(
    rng: np.random.Generator, fault: str, probes: int
) -> None:
    def broken(ids: Ids, rows: Embeddings, basis: Basis | None) -> SealedSegment:
        sealed = seal(ids, rows, basis)
        if fault == "run":
            sealed.codes._scan = None  # met by the thread that scans
        else:
            setattr(sealed, fault, None)
        return sealed

    index = SegmentedIndex(DIMENSION, threads=2, seal_at=SEAL_AT, make_sealed=broken)
    rows = unit_rows(SEAL_AT, rng)
    index.add(1, range(SEAL_AT), rows)
    index.settle()
    held = weakref.ref(index)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(AttributeError if fault == "run" else TypeError):
            index.search(rows[:probes], 0.9)
        del index
        assert held() is None
    finally:
        gc.enable()


def test_an_odd_template_is_found_once_whatever_its_codes_and_not_when_removed(rng: np.random.Generator) -> None:
    rows = unit_rows(SEAL_AT, rng)
    good = seal(np.arange(SEAL_AT), rows)
    odd = np.array([5, 17, 700])
    for coarse in (good.errors.coarse, CodeError(2.0, 0.0, 0.0, 4.0)):  # with the latter no code is seen
        errors = dataclasses.replace(good.errors, coarse=coarse, odd=odd)
        segment = SealedSegment(good.ids, HeldRows(rows.copy()), good.codes, good.fine, errors, odd_rows=rows[odd])
        assert [ids.tolist() for ids, _ in segment.search(rows[odd], 0.9)] == [[5], [17], [700]]
        segment.remove([17])
        assert [ids.tolist() for ids, _ in segment.search(rows[odd], 0.9)] == [[5], [], [700]]


def test_additions_one_after_another_give_way_to_a_search(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, rows = filled(1500, rng)
    monkeypatch.setattr(together, "_PAUSE_S", 60.0)  # however slow the machine is
    waited: list[float] = []
    monkeypatch.setattr(index._together, "wait_for_end", waited.append)
    for number in range(3):
        index.add(index.high_water_mark + 1, [10_000 + number], rows[number : number + 1])
    assert waited == 3 * [together._PATIENCE_S]
    monkeypatch.setattr(together, "_PAUSE_S", 0.0)  # whoever comes now and then waits for nobody
    index.add(index.high_water_mark + 1, [11_000], rows[20:21])
    assert len(waited) == 3


@pytest.mark.parametrize("is_searched", [False, True])
@pytest.mark.parametrize("pause_s", [0.0, 60.0])
def test_additions_without_pause_wait_for_sealing_while_others_search(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, is_searched: bool, pause_s: float
) -> None:
    monkeypatch.setattr(together, "_PAUSE_S", pause_s)
    sealing, go_on = threading.Event(), threading.Event()

    def slow(ids: Ids, rows: Embeddings, basis: Basis | None) -> SealedSegment:
        sealing.set()
        assert go_on.wait(60)
        return seal(ids, rows, basis)

    index = SegmentedIndex(DIMENSION, threads=2, seal_at=SEAL_AT, max_segment=MAX_SEGMENT, make_sealed=slow)
    rows = unit_rows(4 * SEAL_AT, rng)
    if is_searched:
        index._together._last_s = math.inf  # a search has just ended, always
    added = threading.Semaphore(0)

    def add_all() -> None:
        for number in range(4):
            index.add(number + 1, range(number * SEAL_AT, (number + 1) * SEAL_AT), rows[number * SEAL_AT :][:SEAL_AT])
            added.release()

    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(add_all)
        assert sealing.wait(30)
        assert added.acquire(timeout=30)  # the one that is being sealed
        assert added.acquire(timeout=0.5) == (not is_searched or pause_s == 0)
        go_on.set()
        adding.result(60)
    index.settle()
    assert len(index) == 4 * SEAL_AT


@pytest.mark.parametrize("count", [1, 2, 17, 300])
def test_a_segment_too_small_to_be_measured_is_compared_exactly(rng: np.random.Generator, count: int) -> None:
    rows = unit_rows(count, rng)
    segment = seal(np.arange(count), rows)
    probes = unit_rows(500, rng)
    scores = probes @ rows.T
    for threshold in (-0.2, 0.1, float(scores.max()) - 1e-4):
        found = segment.search(probes, threshold)
        assert [sorted(ids.tolist()) for ids, _ in found] == [np.flatnonzero(s >= threshold).tolist() for s in scores]


def test_threads_begin_only_where_there_is_enough_to_read(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_by_side, "_BYTES_A_THREAD", 15_000)
    rows = unit_rows(2000, rng)
    index = SegmentedIndex(DIMENSION, threads=3, seal_at=100_000)
    begun: list[int] = []
    worth = index._side_by_side._worth

    def noted(scanned_bytes: int) -> int:
        begun.append(worth(scanned_bytes))
        return begun[-1]

    monkeypatch.setattr(index._side_by_side, "_worth", noted)
    for seq, start in enumerate(range(0, 2000, 500), start=1):
        index.add(seq, range(start, start + 500), rows[start : start + 500])
        assert [hit.reference_id for hit in index.search(rows[start : start + 1], 0.99)[0]] == [start]
        assert (index._side_by_side._pool is None) == (seq == 1)
    assert begun == [1, 2, 3, 3]  # 36 bytes a template
