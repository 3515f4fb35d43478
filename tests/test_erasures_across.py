"""Two galleries that erase, at the same moment, people who were found for each other: neither waits for ever."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from service.domain import CaseKind, FoundPair
from service.store.sql_store import SqlStore
from tests.postgres import fresh_database
from tests.store.building import candidate_of, enrol, new_enrolment, new_gallery
from tests.store.sweep_steps import MINE, step

ROUNDS = 40

pytestmark = pytest.mark.postgres


@pytest.fixture
def store() -> Iterator[SqlStore]:
    store = SqlStore(fresh_database())
    store.create_gallery(new_gallery("camp"))
    store.create_gallery(new_gallery("village"))
    yield store
    store.close()


def found_for_each_other(store: SqlStore, name: str) -> None:
    """Enrol one person in both galleries, thrice, each time found in the other one; a sweep pairs the two as well."""
    first = {each: enrol(store, new_enrolment(f"{name}-0", f"s-{name}"), each) for each in ("camp", "village")}
    for number in (3, 2, 1):  # not in the order of their ids
        for home, other in (("camp", "village"), ("village", "camp")):
            candidate = replace(candidate_of(first[other]), gallery_id=other)
            again = new_enrolment(f"{name}-{number}", f"s-{name}", candidates=[candidate], cases=[CaseKind.DUPLICATE])
            with store.writing(home, (other,)) as writing:
                writing.insert_enrolment(again)
    with store.sweeping("camp", "village") as sweeping:
        sweep = sweeping.begin_sweep(10, 0.4)
        leased = sweeping.lease_sweep(sweep.job_id, MINE)
        assert leased is not None
        candidate = replace(candidate_of(first["village"]), gallery_id="village")
        pair = FoundPair(f"s-{name}", f"e-{name}-0", candidate)
        sweeping.advance_sweep(sweep.job_id, MINE, step(leased, pair, is_last=True))


def erase(store: SqlStore, gallery_id: str, name: str) -> None:
    with store.writing(gallery_id) as writing:
        writing.erase_subject(f"s-{name}")


def test_two_galleries_erase_at_once_whom_they_found_for_each_other(store: SqlStore) -> None:
    for number in range(ROUNDS):
        found_for_each_other(store, f"{number}")
    together = threading.Barrier(2)

    def work(gallery_id: str) -> None:
        for number in range(ROUNDS):
            together.wait(60)
            try:
                erase(store, gallery_id, f"{number}")
            except BaseException:
                together.abort()
                raise

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(work, each) for each in ("camp", "village")]:
            done.result(120)

    assert store.subjects("camp", None, 9).items == store.subjects("village", None, 9).items == ()
