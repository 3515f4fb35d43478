"""The queue before the cores: bounded, first come first served, and it never loses a slot."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from service.errors import NotReady, Overloaded
from service.face.batching import SlotQueue

LONG_S = 30.0


@contextmanager
def occupied(queue: SlotQueue, slots: int) -> Iterator[threading.Event]:
    """Hold slots on other threads until the event is set or the block is left."""
    release, inside = threading.Event(), threading.Barrier(slots + 1)

    def hold() -> None:
        with queue.slot():
            inside.wait(LONG_S)
            release.wait(LONG_S)

    with ThreadPoolExecutor(slots) as threads:
        held = [threads.submit(hold) for _ in range(slots)]
        inside.wait(LONG_S)
        try:
            yield release
        finally:
            release.set()
            for future in held:
                future.result()


def wait_until_waiting(queue: SlotQueue, calls: int) -> None:
    tick = threading.Event()
    while queue.waiting < calls:
        tick.wait(0.001)


def test_no_more_than_the_slots_are_inside_at_once() -> None:
    queue = SlotQueue(2, queue_limit=50, max_wait_s=LONG_S)
    lock, inside, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal inside, most
        with queue.slot():
            with lock:
                inside += 1
                most = max(most, inside)
            threading.Event().wait(0.002)
            with lock:
                inside -= 1

    for _ in range(2):  # slots that were handed down the line must be none too many afterwards
        with ThreadPoolExecutor(12) as threads:
            for future in [threads.submit(work) for _ in range(40)]:
                future.result()
    assert most == 2
    assert queue.waiting == 0


def test_a_full_line_turns_the_next_call_away_and_says_when_to_come_back() -> None:
    queue = SlotQueue(1, queue_limit=0, max_wait_s=LONG_S)
    with occupied(queue, 1), pytest.raises(Overloaded) as caught, queue.slot():
        pass
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s >= 1


def test_a_call_that_waits_too_long_is_turned_away_and_leaves_the_line() -> None:
    queue = SlotQueue(1, queue_limit=5, max_wait_s=0.05)
    with occupied(queue, 1):
        with pytest.raises(Overloaded), queue.slot():
            pass
        assert queue.waiting == 0
    with queue.slot() as waited_s:
        assert waited_s < LONG_S


def test_the_longest_waiting_call_is_next() -> None:
    queue, served = SlotQueue(1, queue_limit=10, max_wait_s=LONG_S), []

    def work(number: int) -> None:
        with queue.slot():
            served.append(number)

    with ThreadPoolExecutor(6) as threads, occupied(queue, 1):
        waiting: list[Future[None]] = []
        for number in range(6):
            waiting.append(threads.submit(work, number))
            wait_until_waiting(queue, number + 1)
    assert served == [0, 1, 2, 3, 4, 5]


def test_a_call_that_fails_gives_its_slot_back() -> None:
    queue = SlotQueue(1, queue_limit=0, max_wait_s=LONG_S)
    for _ in range(3):
        with pytest.raises(KeyError), queue.slot():
            raise KeyError
    with queue.slot():
        pass


def test_closing_turns_waiting_calls_away_and_waits_for_the_running_one() -> None:
    queue = SlotQueue(1, queue_limit=5, max_wait_s=LONG_S)

    def work() -> None:
        with queue.slot():
            pass

    with ThreadPoolExecutor(2) as threads, occupied(queue, 1) as release:
        waiting = threads.submit(work)
        wait_until_waiting(queue, 1)
        closing = threads.submit(queue.close)
        with pytest.raises(NotReady):
            waiting.result(LONG_S)
        assert not closing.done()
        release.set()
        closing.result(LONG_S)
    with pytest.raises(NotReady), queue.slot():
        pass


@pytest.mark.parametrize(("slots", "limit", "wait_s"), [(0, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_a_queue_that_could_never_serve_is_not_built(slots: int, limit: int, wait_s: float) -> None:
    with pytest.raises(ValueError, match="queue"):
        SlotQueue(slots, queue_limit=limit, max_wait_s=wait_s)
