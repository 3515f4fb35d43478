"""The segmented index beside exact arithmetic, whatever is changed, sealed, compacted, crashed and reloaded."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from service.domain import Embeddings
from service.gallery.basis import Basis, Probes
from service.gallery.exact_index import ExactIndex
from service.gallery.meter import Spent
from service.gallery.open_segment import Found
from service.gallery.rows import Ids, Pairs
from service.gallery.sealed_segment import SealedSegment
from service.gallery.sealing import seal
from service.gallery.segmented_index import SegmentedIndex
from service.gallery.snapshots import SnapshotFolder
from service.ports import GalleryIndex

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

MakeSealed = Callable[[Ids, Embeddings, Basis | None], SealedSegment]


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
        self.folder = tempfile.TemporaryDirectory()
        self.log: list[tuple[list[int], Embeddings | None]] = []
        self.exact = ExactIndex(DIMENSION)
        self.index = self.opened()
        self.rows: dict[int, Embeddings] = {}
        self.removed: dict[int, Embeddings] = {}

    def teardown(self) -> None:
        self.index.settle()
        self.folder.cleanup()

    def opened(self) -> SegmentedIndex:
        """Another index over the folder of the snapshots."""
        snapshots = SnapshotFolder(
            Path(self.folder.name),
            bytes(32),
            gallery_id="camp",
            pack_id="pack",
            timeline_id="t1",
            model_id="m1",
            dimension=DIMENSION,
            on_damage=pytest.fail,
        )
        return SegmentedIndex(
            DIMENSION,
            threads=2,
            seal_at=SEAL_AT,
            max_segment=MAX_SEGMENT,
            make_sealed=self.make_sealed,
            snapshots=snapshots,
            last_seq=len(self.log),
        )

    def change(self, added: dict[int, Embeddings], removed: list[int]) -> None:
        self.log.append((list(added), np.stack(list(added.values()))) if added else (removed, None))
        self.follow(self.exact)
        self.follow(self.index)
        self.index.settle()  # so that every run meets the same segments

    def follow(self, index: GalleryIndex) -> None:
        for seq in range(index.high_water_mark + 1, len(self.log) + 1):
            ids, rows = self.log[seq - 1]
            if rows is None:
                index.remove(seq, ids)
            else:
                index.add(seq, ids, rows)

    @rule()
    def compact(self) -> None:
        self.index.compact()
        assert all(part.removed == 0 for part in self.index.parts() if part.state != "open")

    @rule()
    def crash_and_reload(self) -> None:
        self.index = self.opened()
        self.follow(self.index)
        self.index.settle()

    @rule()
    def verify(self) -> None:
        (ids, rows), (true_ids, true_rows) = (each.templates(-1, 2**40) for each in (self.index, self.exact))
        assert ids.tolist() == true_ids.tolist()
        assert rows.tobytes() == true_rows.tobytes()

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
        assert (len(self.index), self.index.high_water_mark) == (len(self.rows), len(self.log))


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
    """A planted fault: the shortlist of a search has room for two."""

    def finished(self, probes: Probes, listed: Pairs, threshold: float, spent: Spent) -> Found:
        best = np.argsort(-self.fine.scores(probes, listed), kind="stable")[:2]
        return super().finished(probes, Pairs(listed.probes[best], listed.places[best]), threshold, spent)


def planted(kind: type[SealedSegment]) -> MakeSealed:
    """Return what seals as `seal` does, with a fault of this kind."""

    def make(ids: Ids, rows: Embeddings, basis: Basis | None) -> SealedSegment:
        good = seal(ids, rows, basis)
        return kind(good.ids, good.rows, good.codes, good.fine, good.errors, odd_rows=good.odd_rows)

    return make


@pytest.mark.parametrize("kind", [ForgetfulSegment, HastySegment])
def test_a_planted_fault_is_found(kind: type[SealedSegment]) -> None:
    class Faulty(IndexMachine):
        make_sealed = staticmethod(planted(kind))

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Faulty, settings=settings(STEPS, max_examples=200, phases=[Phase.generate], report_multiple_bugs=False)
        )
