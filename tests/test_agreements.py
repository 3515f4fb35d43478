"""A partner's search: let in by its agreement alone, noted before it is answered, and no slower for more candidates."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import anyio
import anyio.to_thread
import pytest

from service.access import Caller
from service.acting import Actor, acting_as, current_actor
from service.agreement import Agreement, Disclosure, Terms, UseOutcome
from service.agreements import AgreementService, PartnerAnswer
from service.api.agreements import search_as_partner
from service.api.bodies import FormBody
from service.api.context import Service
from service.domain import CaptureFacts, FacePolicy, NewTemplate
from service.errors import (
    AgreementNotFound,
    AuditChainBroken,
    IndexUnavailable,
    InvalidRequest,
    KeysMissing,
    NoFace,
    PackMismatch,
    PurposeNotAgreed,
    StoreUnavailable,
)
from service.identification import Identification
from service.ports import Agreements
from service.store.sql_store import SqlStore
from tests.fakes import FakeStore
from tests.store.building import enrol, new_enrolment
from tests.synthetic import PersonEmbedder, sample_of
from tests.world import GALLERY, START, World

PARTNER = "client:partner"
CALLER = Caller(PARTNER, ())
ADMIN = Actor("client:admin")
NOBODY = CaptureFacts()


class Watch:
    """Time that passes only while somebody waits for it, or is said to work."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Sharing:
    """A gallery with people, and the agreements about it."""

    def __init__(self, store: FakeStore | SqlStore | None = None, step_s: float = 0.5, *, waits: bool = False) -> None:
        self.store = store or FakeStore(lambda: START)
        self.world = World(self.store)
        self.watch = Watch()
        agreements: Agreements = self.store.agreements
        self.wait: Callable[[float], None] = time.sleep if waits else self.watch.wait
        self.service = AgreementService(
            agreements,
            self.world.identification,
            self.world.clock,
            step_s=step_s,
            seconds=time.monotonic if waits else self.watch,
        )

    def make(self, disclosure: Disclosure = Disclosure.FULL, **terms: object) -> Agreement:
        wanted = Terms(PARTNER, "purpose", None, disclosure, START, START + timedelta(days=1), 1000)
        with acting_as(ADMIN):
            return self.service.make(GALLERY, replace(wanted, **terms))  # type: ignore[arg-type]  # by name

    def search(self, agreement: Agreement, person: int, purpose: str | None = None) -> PartnerAnswer:
        with acting_as(Actor(PARTNER, purpose, request_id="r-1")):
            done = self.service.search(agreement.agreement_id, CALLER, sample_of(person, 9), NOBODY)
        self.wait(self.service.wait_s(done))
        return self.service.tell(done)

    def outcomes(self, agreement: Agreement) -> list[tuple[UseOutcome | None, bool | None, str | None]]:
        uses = self.service.uses(agreement.agreement_id, None, 99, partner_id=PARTNER).items
        return [(each.outcome, each.complete, each.error_code) for each in uses]


def test_a_partner_is_told_of_a_person_and_nothing_is_recorded_of_the_probe() -> None:
    sharing = Sharing()
    sharing.world.enrol(1, subject_id="S-1")
    agreement = sharing.make()

    found = sharing.search(agreement, 1)

    assert found.is_hit
    assert [each.subject_id for each in found.found.decision.candidates] == ["S-1"]
    assert sharing.store.subjects(GALLERY, None, 9).items == (sharing.store.subject(GALLERY, "S-1"),)
    assert sharing.world.gallery().last_seq == 1
    assert not sharing.search(agreement, 2).is_hit
    assert sharing.outcomes(agreement) == [(UseOutcome.HIT, True, None), (UseOutcome.NO_HIT, True, None)]


def test_nobody_makes_an_agreement_with_itself() -> None:
    sharing = Sharing()
    with pytest.raises(InvalidRequest, match="itself"):
        sharing.make(partner_id=ADMIN.client_id)


@pytest.mark.parametrize("disclosure", Disclosure)
def test_what_a_partner_says_of_a_person_lowers_no_threshold_unless_all_is_told(
    disclosure: Disclosure, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharing, given = Sharing(), []
    agreement = sharing.make(disclosure)
    identify = sharing.world.identification.identify

    def noted(gallery_id: str, sample: bytes, capture: CaptureFacts) -> Identification:
        given.append(capture)
        return identify(gallery_id, sample, capture)

    monkeypatch.setattr(sharing.world.identification, "identify", noted)
    facts = CaptureFacts(birth_year=1990)
    with acting_as(Actor(PARTNER)):
        sharing.service.search(agreement.agreement_id, CALLER, sample_of(1, 9), facts)
    assert given == [facts if disclosure is Disclosure.FULL else NOBODY]


def test_who_made_it_and_who_ended_it_is_kept() -> None:
    sharing = Sharing()
    agreement = sharing.make()
    with acting_as(Actor("client:other-admin")):
        ended = sharing.service.end(GALLERY, agreement.agreement_id)
    assert (ended.created_by, ended.ended_by, ended.ended_at) == ("client:admin", "client:other-admin", START)


def test_it_ends_by_itself_at_its_date() -> None:
    sharing = Sharing()
    agreement = sharing.make()
    sharing.world.clock.now = agreement.terms.ends_at - timedelta(seconds=1)
    sharing.search(agreement, 1)
    sharing.world.clock.now = agreement.terms.ends_at

    with pytest.raises(AgreementNotFound):
        sharing.search(agreement, 1)
    assert len(sharing.outcomes(agreement)) == 1


@pytest.mark.parametrize("ends_in", [timedelta(0), timedelta(days=-1)])
def test_an_agreement_must_end_after_it_begins(ends_in: timedelta) -> None:
    with pytest.raises(InvalidRequest, match="ends_at"):
        Sharing().make(ends_at=START + ends_in)


def test_the_search_is_done_under_the_agreement_and_for_its_purpose() -> None:
    sharing = Sharing()
    agreement = sharing.make()
    actors: list[Actor] = []
    identify = sharing.world.identification.identify

    class Watched:
        def identify(self, gallery_id: str, sample: bytes, capture: CaptureFacts = NOBODY) -> object:
            actors.append(current_actor())
            return identify(gallery_id, sample, capture)

    sharing.service._identification = Watched()  # type: ignore[assignment]  # it has what is used of it

    sharing.search(agreement, 1, purpose="purpose")

    assert actors == [Actor(PARTNER, "purpose", agreement.agreement_id, "r-1")]
    with pytest.raises(PurposeNotAgreed):
        sharing.search(agreement, 1, purpose="another")
    assert len(actors) == 1


@pytest.mark.parametrize(
    "error",
    [
        PackMismatch("of the pack x"),
        IndexUnavailable("changes faster than"),
        StoreUnavailable("of its database"),
        AuditChainBroken("of its chain"),
        KeysMissing("of its keys"),
    ],
)
def test_what_keeps_the_gallery_from_being_searched_is_not_told(error: Exception) -> None:
    sharing = Sharing()
    agreement = sharing.make()
    sharing.service._identification = _Failing(error)  # type: ignore[assignment]  # it has what is used of it

    with pytest.raises(IndexUnavailable) as refused:
        sharing.search(agreement, 1)

    assert refused.value.message == "the gallery cannot be searched now; try again"
    assert sharing.outcomes(agreement) == [(UseOutcome.FAILED, None, "index_unavailable")]


class _Failing:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def identify(self, *_: object) -> None:
        raise self._error


def test_a_photograph_without_a_face_says_so() -> None:
    sharing = Sharing()
    agreement = sharing.make(Disclosure.HIT_OR_NO_HIT)
    with acting_as(Actor(PARTNER)), pytest.raises(NoFace):
        sharing.service.search(agreement.agreement_id, CALLER, b"no face", NOBODY)
    assert sharing.outcomes(agreement) == [(UseOutcome.FAILED, None, "no_face")]


def test_what_the_partner_can_watch_changes_after_the_wait() -> None:
    sharing = Sharing()
    agreement = sharing.make(Disclosure.HIT_OR_NO_HIT)
    seen: list[object] = []

    def watch(_: float) -> None:
        trail = sharing.store.audit(None, None, 9).items
        seen.append((sharing.outcomes(agreement), [each.event for each in trail]))

    sharing.wait = watch

    sharing.search(agreement, 1)

    assert seen == [([(None, None, None)], [])]
    watch(0)
    assert seen[1] == ([(UseOutcome.NO_HIT, True, None)], ["agreement.used"])


def test_nothing_is_answered_of_a_use_that_cannot_be_noted() -> None:
    sharing = Sharing()
    agreement = sharing.make()

    def refuse(*_: object) -> None:
        raise AuditChainBroken("the head of this chain was removed")

    sharing.store.agreements.finish_use = refuse  # type: ignore[method-assign, assignment]  # in its place

    with pytest.raises(IndexUnavailable) as refused:
        sharing.search(agreement, 1)
    assert refused.value.message == "the gallery cannot be searched now; try again"


@pytest.mark.parametrize(("worked_s", "answered_s"), [(0.01, 0.5), (0.49, 0.5), (0.51, 1.0), (1.2, 1.5)])
def test_hit_or_no_hit_is_answered_at_whole_steps(worked_s: float, answered_s: float) -> None:
    sharing = Sharing()
    agreement = sharing.make(Disclosure.HIT_OR_NO_HIT)
    start, identify = sharing.watch.now, sharing.world.identification.identify

    class Late:
        def identify(self, gallery_id: str, sample: bytes, capture: CaptureFacts = NOBODY) -> object:
            sharing.watch.now += worked_s
            return identify(gallery_id, sample, capture)

    sharing.service._identification = Late()  # type: ignore[assignment]  # it has what is used of it

    sharing.search(agreement, 1)

    assert sharing.watch.now - start == pytest.approx(answered_s)


@pytest.mark.parametrize("disclosure", [Disclosure.FULL, Disclosure.CANDIDATE_REFERENCES])
def test_levels_that_name_people_do_not_wait(disclosure: Disclosure) -> None:
    sharing = Sharing()
    sharing.search(sharing.make(disclosure), 1)
    assert sharing.watch.waits == [0.0]


def test_partners_who_wait_hold_no_thread() -> None:
    sharing = Sharing(step_s=3600, waits=True)
    agreement = sharing.make(Disclosure.HIT_OR_NO_HIT)
    service = cast(Service, SimpleNamespace(agreements=sharing.service))

    async def ask(number: int) -> None:
        body = FormBody((("sample", sample_of(number, 1)),))
        await search_as_partner(service, CALLER, agreement.agreement_id, body)

    async def ask_at_once() -> None:
        anyio.to_thread.current_default_thread_limiter().total_tokens = 1
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(ask, number)
            with anyio.fail_after(20):
                while len(sharing.outcomes(agreement)) < 3:
                    await anyio.sleep(0.01)
                # the one thread is free for others, while all three wait
                await anyio.to_thread.run_sync(sharing.world.gallery)
            assert sharing.outcomes(agreement) == [(None, None, None)] * 3
            tasks.cancel_scope.cancel()

    with acting_as(Actor(PARTNER)):
        anyio.run(ask_at_once)


CANDIDATES = 100  # of the one person; of the other there is one


def test_time_does_not_tell_one_candidate_from_many(tmp_path: Path) -> None:
    """Without the steps it does: the same measurement shows it, and says how much there is to hide."""
    store = SqlStore(f"sqlite:///{tmp_path}/record.sqlite")
    store.migrate()
    sharing = Sharing(store, step_s=0.25, waits=True)
    embedder = PersonEmbedder()
    for number in range(CANDIDATES + 1):
        sample = sample_of(1 if number else 2, 10 + number)
        made = NewTemplate(
            0, embedder.extract(sample, FacePolicy.REFUSE), embedder.model_id, verifies=True, sample=None
        )
        enrol(store, new_enrolment(f"{number}", templates=[made]), GALLERY)
    open_hit, open_full = sharing.make(Disclosure.HIT_OR_NO_HIT), sharing.make(Disclosure.FULL)
    assert len(sharing.search(open_full, 1).found.decision.candidates) == CANDIDATES
    assert len(sharing.search(open_full, 2).found.decision.candidates) == 1

    bare = _difference(lambda person: sharing.search(open_full, person))
    told = _difference(lambda person: sharing.search(open_hit, person))

    assert bare > 0.001  # there is something to hide
    assert abs(told) < bare / 3
    store.close()


def _difference(search: Callable[[int], object], rounds: int = 10) -> float:
    """Return by how many seconds the median search of the person with many candidates takes longer."""
    taken: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for person, times in taken.items():
            start = time.perf_counter()
            search(person)
            times.append(time.perf_counter() - start)
    return statistics.median(taken[1]) - statistics.median(taken[2])
