"""Pairs of simultaneous enrolments of one person, made to overlap between search and commit."""

import contextlib
import multiprocessing
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier as ProcessBarrier
from typing import Any

from prometheus_client import CollectorRegistry

from service.domain import FacePolicy, Gallery
from service.enrolment import EnrolmentService
from service.enrolment_request import EnrolmentRequest
from service.erasure import ErasureService
from service.errors import BiodedupError, SubjectNotFound
from service.gallery.faiss_index import FaissIndex
from service.live_accuracy import LiveAccuracy
from service.matching import Matcher, Newcomers
from service.metrics import Metrics
from service.store.sql_store import SqlStore
from service.store.writing import SqlWriting
from tests.synthetic import PACK_ID, packs, sample_of
from tests.world import new_issuer

GALLERY = "race"
_MEETING_S = 60


def gallery(gallery_id: str = GALLERY) -> Gallery:
    return Gallery(gallery_id, PACK_ID, 0.01, 0.001, 0.001, keep_samples=False, created_at=datetime.now(UTC))


@dataclass(frozen=True)
class Trouble:
    """What goes wrong around the races."""

    unruly_index: bool = False  # index updates are lost, late, or come in another order
    erasures: bool = False  # someone is erased between search and commit


@dataclass(frozen=True)
class Race:
    """How the races are run. `blind` and `isolation_level` are planted faults, to see that the races catch them."""

    url: str
    pairs: int
    trouble: Trouble = Trouble()
    seed: int = 0
    blind: bool = False  # the comparison inside the transaction is removed
    isolation_level: str = "READ COMMITTED"
    # of each side: the gallery it enrols into, and those that it names beside it
    galleries: tuple[str, str] = (GALLERY, GALLERY)
    also: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


@dataclass
class Finding:
    """What one of the two was answered."""

    outcome: str
    candidates: tuple[str | None, ...] = ()


@dataclass
class Report:
    """The pairs, each with its two answers."""

    pairs: list[tuple[Finding, Finding]] = field(default_factory=list)

    @property
    def missed(self) -> int:
        """Pairs in which neither was told of the other."""
        return sum(
            subject(number, 1) not in one.candidates and subject(number, 0) not in other.candidates
            for number, (one, other) in enumerate(self.pairs)
        )

    @property
    def failed(self) -> int:
        return sum(one.outcome not in {"UNIQUE", "REVIEW", "DUPLICATE"} for pair in self.pairs for one in pair)


class MeetingStore(SqlStore):
    """A store in which an enrolment takes the lock only when the other side has searched too."""

    def __init__(self, race: Race, meet: Callable[[], Any]) -> None:
        super().__init__(race.url, isolation_level=race.isolation_level)
        self.meet = meet
        self.enrolling = threading.local()

    @contextmanager
    def writing(self, gallery_id: str, also: Sequence[str] = ()) -> Iterator[SqlWriting]:
        if getattr(self.enrolling, "armed", False):
            self.enrolling.armed = False
            self.meet()
        with super().writing(gallery_id, also) as writing:
            yield writing


class UnrulyMatcher(Matcher):
    """A matcher whose index updates are lost, late or out of order, as after a fault."""

    rng = random.Random(0)
    late: list[tuple[Any, ...]]

    def applied(self, *change: Any) -> None:
        self.late = [*getattr(self, "late", []), change]
        if self.rng.random() < 0.5:
            return
        waiting, self.late = self.late, []
        self.rng.shuffle(waiting)
        for one in waiting:
            if self.rng.random() < 0.7:
                super().applied(*one)


class BlindMatcher(Matcher):
    """The planted fault: newcomers are not compared."""

    def compare_newcomers(self, reading: Any, gallery: Gallery, after: int, *_: Any) -> Newcomers:
        return Newcomers(after, 0, ())


def services(race: Race, store: SqlStore) -> tuple[EnrolmentService, ErasureService]:
    kind = BlindMatcher if race.blind else UnrulyMatcher if race.trouble.unruly_index else Matcher
    metrics = Metrics(CollectorRegistry())
    matcher = kind(store, lambda _gallery, embedder: FaissIndex(embedder.dimension), packs(), metrics)
    enrolment = EnrolmentService(
        store,
        matcher,
        packs(),
        metrics,
        accuracy=LiveAccuracy(matcher, packs(), metrics),
        face_policy=FacePolicy.REFUSE,
        idempotency_period=timedelta(hours=24),
        clock=lambda: datetime.now(UTC),
    )
    return enrolment, ErasureService(store, matcher, new_issuer())


def subject(pair: int, side: int) -> str:
    return f"p{pair}-{side}"


def run_side(
    race: Race, side: int, store: MeetingStore, enrolment: EnrolmentService, erasure: ErasureService
) -> list[Finding]:
    """Enrol this side's photograph of each person, and now and then erase someone while the other side waits."""
    rng = random.Random(race.seed)
    findings = []
    for pair in range(race.pairs):
        store.meet()
        store.enrolling.armed = True
        person, own_id = sample_of(pair, side), subject(pair, side)
        request = EnrolmentRequest(race.galleries[side], (person,), subject_id=own_id, also_search=race.also[side])
        eraser = _erased_while_meeting(race, rng, pair, side, erasure)
        if eraser:
            eraser.start()
        try:
            answer = enrolment.enrol(request).enrolment
            findings.append(Finding(answer.outcome.value, tuple(c.subject_id for c in answer.candidates)))
        except BiodedupError as error:
            findings.append(Finding(error.code))
        if store.enrolling.armed:  # it failed before its transaction: the other side must not wait for ever
            store.enrolling.armed = False
            store.meet()
        if eraser:
            eraser.join()
    return findings


def _erased_while_meeting(
    race: Race, rng: random.Random, pair: int, side: int, erasure: ErasureService
) -> threading.Thread | None:
    """Return a thread that erases both records of an earlier pair, so that erasures fall between search and commit."""
    victim = rng.randrange(pair) if pair else 0
    if not race.trouble.erasures or side or not pair or rng.random() < 0.5:
        return None

    def erase() -> None:
        for one in (0, 1):
            with contextlib.suppress(SubjectNotFound):  # erased in an earlier round
                erasure.erase_subject(race.galleries[one], subject(victim, one))

    return threading.Thread(target=erase)


def run_threads(race: Race) -> Report:
    """Both sides are threads of one process, with one store and one index."""
    barrier = threading.Barrier(2, timeout=_MEETING_S)
    store = MeetingStore(race, barrier.wait)
    enrolment, erasure = services(race, store)
    found: dict[int, list[Finding]] = {}
    threads = [
        threading.Thread(target=lambda side=side: found.update({side: run_side(race, side, store, enrolment, erasure)}))
        for side in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    return Report(list(zip(found[0], found[1], strict=True)))


def _process(race: Race, side: int, barrier: ProcessBarrier, queue: Any) -> None:
    store = MeetingStore(race, lambda: barrier.wait(_MEETING_S))
    queue.put((side, run_side(race, side, store, *services(race, store))))
    store.close()


def run_processes(race: Race) -> Report:
    """Each side is a process of its own, with its own index, on one database."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_process, args=(race, side, barrier, queue)) for side in (0, 1)]
    for process in processes:
        process.start()
    found = dict(queue.get(timeout=_MEETING_S + race.pairs) for _ in processes)
    for process in processes:
        process.join()
    return Report(list(zip(found[0], found[1], strict=True)))
