"""Searches that wait are made together, each gets its own answer, and none is forgotten."""

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

import numpy as np
import pytest

from service.domain import Embeddings, Hit
from service.errors import IndexUnavailable
from service.gallery import together
from service.gallery.together import Found, Together, leave_cores_to_others

THRESHOLD = 0.5


def probe(number: float) -> Embeddings:
    return np.array([[number]], np.float32)


def echo(probes: Embeddings, threshold: float) -> Found:
    """Find for each probe its own number, with the threshold as the score."""
    return [[Hit(int(number), threshold)] for [number] in probes.tolist()]


class Gate:
    """A search that stops until it is let through, and remembers what it was asked."""

    def __init__(self, search: Callable[[Embeddings, float], Found] = echo) -> None:
        self.batches: list[list[float]] = []
        self.entered, self.open = threading.Semaphore(0), threading.Semaphore(0)
        self._search = search

    def __call__(self, probes: Embeddings, threshold: float) -> Found:
        self.batches.append(probes[:, 0].tolist())
        self.entered.release()
        assert self.open.acquire(timeout=30)
        return self._search(probes, threshold)


def wait_until(is_so: Callable[[], bool]) -> None:
    for _ in range(3000):
        if is_so():
            return
        threading.Event().wait(0.01)
    pytest.fail("it never came")


def test_what_waits_is_searched_together_and_each_gets_its_own() -> None:
    gate = Gate()
    searcher = Together()
    search = partial(searcher.search, gate)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(search, probe(0), THRESHOLD)
        assert gate.entered.acquire(timeout=30)
        others = [pool.submit(search, np.vstack([probe(n), probe(n + 100)]), THRESHOLD) for n in range(1, 6)]
        wait_until(lambda: len(searcher._waiting) == 5)
        gate.open.release(2)
        assert first.result(30) == [[Hit(0, THRESHOLD)]]
        for number, other in enumerate(others, start=1):
            assert other.result(30) == [[Hit(number, THRESHOLD)], [Hit(number + 100, THRESHOLD)]]
    assert len(gate.batches) == 2
    assert len(gate.batches[1]) == 10


def test_other_thresholds_and_what_does_not_fit_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "MOST", 3)
    gate = Gate()
    searcher = Together()
    search = partial(searcher.search, gate)
    with ThreadPoolExecutor(8) as pool:
        pool.submit(search, probe(0), THRESHOLD)
        assert gate.entered.acquire(timeout=30)
        asked = []
        for number, threshold in [(1, 0.5), (2, 0.7), (3, 0.5), (4, 0.5), (5, 0.5)]:
            asked.append((number, threshold, pool.submit(search, probe(number), threshold)))
            wait_until(lambda: len(searcher._waiting) == len(asked))
        gate.open.release(10)
        for number, threshold, answer in asked:
            assert answer.result(30) == [[Hit(number, threshold)]]
    assert gate.batches == [[0.0], [1.0, 3.0, 4.0], [2.0], [5.0]]


def test_a_batch_larger_than_the_most_is_searched_as_it_is() -> None:
    found = Together().search(echo, np.arange(1000, dtype=np.float32)[:, np.newaxis], THRESHOLD)
    assert [hits[0].reference_id for hits in found] == list(range(1000))


def test_everybody_learns_of_a_failure_and_the_next_search_goes_on() -> None:
    def broken(probes: Embeddings, threshold: float) -> Found:
        if 7.0 in probes:
            raise IndexUnavailable("broken")
        return echo(probes, threshold)

    gate = Gate(broken)
    searcher = Together()
    search = partial(searcher.search, gate)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(search, probe(0), THRESHOLD)
        assert gate.entered.acquire(timeout=30)
        others = [pool.submit(search, probe(number), THRESHOLD) for number in (7, 8)]
        wait_until(lambda: len(searcher._waiting) == 2)
        gate.open.release(3)
        assert first.result(30)
        for other in others:
            with pytest.raises(IndexUnavailable):
                other.result(30)
        assert pool.submit(search, probe(9), THRESHOLD).result(30) == [[Hit(9, THRESHOLD)]]


def test_nobody_is_forgotten_when_many_ask_at_once() -> None:
    searcher = Together()

    def ask(number: int) -> bool:
        return searcher.search(echo, probe(number), (0.4, 0.5)[number % 2])[0][0].reference_id == number

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(5000), timeout=60))
    assert not searcher._waiting
    assert not searcher._is_led


def test_who_waits_for_the_end_of_a_search_waits_no_longer_than_that() -> None:
    gate, searcher = Gate(), Together()
    searcher.wait_for_end(30)  # nothing runs
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(searcher.search, gate, probe(0), THRESHOLD)
        assert gate.entered.acquire(timeout=30)
        searcher.wait_for_end(0.01)  # no longer than it was told
        waiting = pool.submit(searcher.wait_for_end, 30)
        assert not wait([waiting], 0.1).done
        gate.open.release()
        running.result(30)
        waiting.result(10)


def test_a_search_is_remembered_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, searcher = Gate(), Together()
    assert not searcher.is_used()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(searcher.search, gate, probe(0), THRESHOLD)
        assert gate.entered.acquire(timeout=30)
        assert searcher.is_used()
        gate.open.release()
        running.result(30)
    assert searcher.is_used()
    now = time.perf_counter()
    monkeypatch.setattr(time, "perf_counter", lambda: now + 2)
    assert not searcher.is_used()


@pytest.mark.skipif(sys.platform != "linux", reason="only on Linux has a thread a priority of its own")
def test_a_thread_that_stands_back_leaves_others_as_they_are() -> None:
    found: list[int] = []

    def stand_back() -> None:
        leave_cores_to_others()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=stand_back)
    thread.start()
    thread.join()
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert own < found[0] <= own + 5


def test_a_thread_that_may_not_stand_back_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", forbidden)
    leave_cores_to_others()
