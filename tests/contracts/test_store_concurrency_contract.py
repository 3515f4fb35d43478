"""What every store keeps when several write at once: one after the other, each seeing what came before."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from service.domain import Enrolment
from tests.store.building import EVER, KINDS, AnyStore, Clock, enrol, new_enrolment, open_store

PATIENCE_S = 20


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyStore]:
    yield from open_store(request.param, tmp_path, Clock())


class Lost(Exception):
    """What a writer meets that must roll back."""


def test_a_second_writer_waits_and_then_sees_what_the_first_committed(store: AnyStore) -> None:
    first_holds_lock, second_has_lock = threading.Event(), threading.Event()

    def second() -> tuple[int, list[int], bool]:
        assert first_holds_lock.wait(PATIENCE_S)
        with store.writing("camp") as tx:
            second_has_lock.set()
            seen = [each.seq for each in tx.changes_after("camp", 0, 10)]
            is_known = tx.earlier_request("camp", "key", None, EVER) is not None
            return tx.insert_enrolment(new_enrolment("second")).seq, seen, is_known

    with ThreadPoolExecutor(1) as pool:
        answer: Future[tuple[int, list[int], bool]] = pool.submit(second)
        with store.writing("camp") as tx:
            first_holds_lock.set()
            # were there no lock, the second writer would be inside long before this wait is over
            assert not second_has_lock.wait(0.3)
            tx.insert_enrolment(new_enrolment("first", key="key"))
        assert answer.result(PATIENCE_S) == (2, [1], True)


def test_many_writers_number_their_changes_without_gaps_though_some_roll_back(store: AnyStore) -> None:
    start = threading.Barrier(8)

    def write(writer: int) -> list[int]:
        start.wait(PATIENCE_S)
        numbers = []
        for turn in range(12):
            with suppress(Lost), store.writing("camp") as tx:
                enrolled = tx.insert_enrolment(new_enrolment(f"{writer}-{turn}"))
                if turn % 3 == 1:
                    raise Lost
                numbers.append(enrolled.seq)
        return numbers

    with ThreadPoolExecutor(8) as pool:
        numbers = sorted(number for part in pool.map(write, range(8)) for number in part)

    assert numbers == list(range(1, 8 * 8 + 1))
    with store.reading() as tx:
        assert [each.seq for each in tx.changes_after("camp", 0, 1000)] == numbers
        assert tx.gallery("camp").template_count == len(numbers)


def test_readers_go_on_while_a_writer_holds_the_lock_and_see_nothing_of_it(store: AnyStore) -> None:
    enrol(store, new_enrolment("a"))

    def read() -> int:
        with store.reading() as tx:
            return len(tx.changes_after("camp", 0, 10))

    with ThreadPoolExecutor(1) as pool, store.writing("camp") as tx:
        tx.insert_enrolment(new_enrolment("b"))
        assert pool.submit(read).result(PATIENCE_S) == 1


def test_one_reading_is_one_snapshot(store: AnyStore) -> None:
    enrol(store, new_enrolment("a"))
    write: Callable[[], Enrolment] = lambda: enrol(store, new_enrolment("b"))  # noqa: E731

    with ThreadPoolExecutor(1) as pool, store.reading() as tx:
        before = tx.gallery("camp")
        pool.submit(write).result(PATIENCE_S)
        assert tx.gallery("camp") == before
        assert len(tx.changes_after("camp", 0, 10)) == 1
    with store.reading() as tx:
        assert tx.gallery("camp").last_seq == 2
