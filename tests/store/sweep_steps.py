"""Steps of a sweep as a store is given them."""

from datetime import timedelta

from service.domain import Enrolment, FoundPair, Lease, Sweep, SweepStep
from tests.store.building import START, AnyStore, candidate_of

MINE = Lease("me", START + timedelta(minutes=1))
OTHERS = Lease("somebody else", START + timedelta(minutes=1))


def begin(store: AnyStore, *, is_leased: bool = True) -> Sweep:
    with store.sweeping("camp") as tx:
        sweep = tx.begin_sweep(10, 0.4)
        return (tx.lease_sweep(sweep.job_id, MINE) or sweep) if is_leased else sweep


def pair_of(later: Enrolment, earlier: Enrolment) -> FoundPair:
    return FoundPair(later.subject_id, later.encounter_id, candidate_of(earlier))


def step(sweep: Sweep, *pairs: FoundPair, cursor: int = 1, is_last: bool = False) -> SweepStep:
    return SweepStep(sweep.cursor, cursor, 5, len(pairs), pairs, 0.25, is_last)


def advance(store: AnyStore, sweep: Sweep, *pairs: FoundPair, is_last: bool = False) -> Sweep:
    with store.sweeping("camp") as tx:
        moved = tx.advance_sweep(sweep.job_id, MINE, step(sweep, *pairs, cursor=sweep.cursor + 1, is_last=is_last))
    assert moved is not None
    return moved
