"""A gallery with planted duplicates, and what a comparison of all with all finds in it."""

from dataclasses import dataclass

import numpy as np

from benchmarks import filling
from service.domain import Lease, Page, Sweep
from service.job_runner import LEASE_PERIOD, JobRunner
from service.ports import Store
from service.sweep import SweepService
from tests.synthetic import DIMENSION
from tests.world import GALLERY, START, World

OWNER = "the one process"
MODEL_ID = "synthetic-1"
LEASE = Lease(OWNER, START + LEASE_PERIOD)

Rows = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass
class Crowd:
    """Templates in the order of their enrolment, and whose they are."""

    rows: Rows
    subjects: list[str]

    def turned(self) -> "Crowd":
        """The last first: in a crowd of `crowd_of`, the earlier of each pair is then anywhere."""
        return Crowd(self.rows[::-1].copy(), self.subjects[::-1])

    def pairs(self, threshold: float) -> set[frozenset[str]]:
        """The pairs of different subjects with two templates at or above the threshold, by brute force."""
        found = np.argwhere(np.triu(self.rows @ self.rows.T >= np.float32(threshold), 1))
        return {
            frozenset((self.subjects[first], self.subjects[second]))
            for first, second in found
            if self.subjects[first] != self.subjects[second]
        }


def crowd_of(size: int, planted: int, seed: int = 7, dimension: int = DIMENSION) -> Crowd:
    """Random people; `planted` of them are enrolled twice under other names, at scores from 0.4 to 0.95."""
    rng = np.random.default_rng(seed)
    rows = _unit(rng.normal(size=(size, dimension)))
    for number, score in enumerate(np.linspace(0.4, 0.95, planted)):
        first, second = number, planted + (size - planted) * (number + 1) // planted - 1
        other = rng.normal(size=dimension)
        other -= other @ rows[first] * rows[first]
        rows[second] = score * rows[first] + np.sqrt(1 - score**2) * other / np.linalg.norm(other)
    return Crowd(_unit(rows), [f"s-{number}" for number in range(size)])


def _unit(rows: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | Rows) -> Rows:
    found: Rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found


def fill(store: Store, crowd: Crowd, gallery_id: str = GALLERY, prefix: str = "", model_id: str = MODEL_ID) -> None:
    """Put the crowd into the record without comparing anyone, as an import does."""
    rows = np.split(crowd.rows, len(crowd.rows)) if len(crowd.rows) else []
    subjects = list(zip(crowd.subjects, rows, strict=True))
    with store.reading() as reading:
        pack_id = reading.gallery(gallery_id).pack_id
    filling.fill(store, gallery_id, subjects, pack_id=pack_id, model_id=model_id, prefix=prefix)


def sweeps_of(world: World, block_size: int = 100) -> SweepService:
    return SweepService(world.store, world.matcher, world.packs, world.metrics, block_size=block_size)


def runner_of(sweeps: SweepService, world: World) -> JobRunner[Sweep]:
    return JobRunner(sweeps, is_alone=True, clock=world.clock, retry_s=0.0)


def sweep_through(world: World, allowed_false_pairs: int = 10) -> Sweep:
    """Sweep the gallery of the world from beginning to end."""
    sweeps = sweeps_of(world)
    sweep = sweeps.start(GALLERY, allowed_false_pairs)
    runner_of(sweeps, world).work()
    return sweeps.sweep(GALLERY, sweep.job_id)


def case_pairs(store: Store, gallery_id: str = GALLERY) -> list[frozenset[str | None]]:
    """The pair of subjects of every case of a sweep."""
    found: list[frozenset[str | None]] = []
    page: Page[object] | None = None
    while page is None or page.next_after is not None:
        cases = store.cases(gallery_id, page.next_after if page else None, 100)
        found += [
            frozenset((case.subject_id, case.candidate.subject_id))
            for case in cases.items
            if case.candidate is not None
        ]
        page = Page((), cases.next_after)
    return found
