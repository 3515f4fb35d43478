"""What every record of sharing agreements keeps: who may search, how often, and that both sides see it."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from service.acting import Actor, acting_as
from service.agreement import Agreement, AgreementState, Disclosure, NewUse, Terms, UseOutcome, UseResult
from service.errors import (
    AgreementLimitReached,
    AgreementNotFound,
    GalleryNotFound,
    InvalidRequest,
    PurposeNotAgreed,
    Undecipherable,
)
from service.ports import Agreements
from service.store import tables
from service.store.sql_store import SqlStore
from tests.store.building import KINDS, SQL_KINDS, START, AnyStore, Clock, new_gallery, open_store

PARTNER = "client:partner"
TERMS = Terms(
    PARTNER, "double-registration", "as signed", Disclosure.FULL, START, START + timedelta(days=30), searches_per_day=3
)
MADE = Agreement("a" * 32, "camp", TERMS, "client:admin", START)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyStore]:
    for store in open_store(request.param, tmp_path, Clock()):
        store.create_gallery(new_gallery("elsewhere"))
        yield store


@pytest.fixture
def agreements(store: AnyStore) -> Agreements:
    store.agreements.add(MADE)
    return store.agreements


def use(*, partner_id: str = PARTNER, purpose: str | None = None, of: Agreement = MADE) -> NewUse:
    return NewUse(of.agreement_id, partner_id, purpose, "request-1")


def begin(agreements: Agreements, wanted: NewUse | None = None, now: datetime = START) -> tuple[Agreement, int]:
    return agreements.begin_use(wanted or use(), lambda: now)


def search(
    agreements: Agreements,
    now: datetime = START,
    outcome: UseOutcome = UseOutcome.NO_HIT,
    partner_gallery_ids: Sequence[str] = (),
) -> int:
    _, use_id = begin(agreements, now=now)
    agreements.finish_use(MADE.agreement_id, use_id, UseResult(outcome, complete=True), now, partner_gallery_ids)
    return use_id


def test_an_agreement_comes_back_as_it_was_made(agreements: Agreements) -> None:
    assert agreements.of_gallery("camp", None, 9).items == (MADE,)
    assert agreements.of_partner(PARTNER, None, 9).items == (MADE,)
    assert agreements.of_gallery("elsewhere", None, 9).items == ()
    assert agreements.of_partner("client:another", None, 9).items == ()


def test_listings_have_pages(agreements: Agreements) -> None:
    for letter in "bc":
        agreements.add(replace(MADE, agreement_id=letter * 32))
    first = agreements.of_gallery("camp", None, 2)
    assert first.next_after == "b" * 32
    assert [each.agreement_id for each in agreements.of_gallery("camp", first.next_after, 2).items] == ["c" * 32]
    assert agreements.of_partner(PARTNER, "b" * 32, 2).next_after is None


def test_an_agreement_needs_a_gallery(agreements: Agreements) -> None:
    with pytest.raises(GalleryNotFound):
        agreements.add(replace(MADE, gallery_id="nowhere", agreement_id="x"))
    with pytest.raises(GalleryNotFound):
        agreements.of_gallery("nowhere", None, 9)
    with pytest.raises(GalleryNotFound):
        agreements.end("nowhere", MADE.agreement_id, "client:admin", lambda: START)


@pytest.mark.parametrize(
    ("after_s", "state"), [(-1, "not_begun"), (0, "active"), (86400 * 30 - 1, "active"), (86400 * 30, "ended")]
)
def test_it_may_be_used_from_its_beginning_until_its_end(agreements: Agreements, after_s: float, state: str) -> None:
    now = START + timedelta(seconds=after_s)
    assert MADE.state(now) == state
    if state == "active":
        assert begin(agreements, now=now)[0] == MADE
        return
    with pytest.raises(AgreementNotFound) as refused:
        begin(agreements, now=now)
    assert refused.value.message == "there is no such agreement"


def test_nobody_else_may_use_it_and_is_told_the_same_as_of_none(agreements: Agreements) -> None:
    messages = set()
    for wrong in (use(partner_id="client:another"), replace(use(), agreement_id="f" * 32)):
        with pytest.raises(AgreementNotFound) as refused:
            begin(agreements, wrong)
        messages.add((refused.value.message, refused.value.retry_after_s))
    assert messages == {("there is no such agreement", None)}


def test_it_can_be_ended_before_its_date_by_its_own_gallery(agreements: Agreements) -> None:
    now = START + timedelta(hours=1)
    with pytest.raises(AgreementNotFound):
        agreements.end("elsewhere", MADE.agreement_id, "client:other-admin", lambda: now)

    ended = agreements.end("camp", MADE.agreement_id, "client:admin", lambda: now)

    assert (ended.ended_at, ended.ended_by, ended.state(now)) == (now, "client:admin", AgreementState.ENDED)
    for clock in (now, now - timedelta(minutes=1)):  # a process whose clock is late, or that waited, lets nobody in
        with pytest.raises(AgreementNotFound):
            begin(agreements, now=clock)
    assert agreements.end("camp", MADE.agreement_id, "client:late", lambda: now + timedelta(hours=1)) == ended


def test_one_that_ended_by_its_date_is_not_ended_again(agreements: Agreements) -> None:
    assert agreements.end("camp", MADE.agreement_id, "client:admin", lambda: TERMS.ends_at) == MADE


def test_another_purpose_is_refused_and_none_is_the_agreed_one(agreements: Agreements) -> None:
    with pytest.raises(PurposeNotAgreed):
        begin(agreements, use(purpose="curiosity"))
    for purpose in (None, TERMS.purpose):
        begin(agreements, use(purpose=purpose))
    noted = agreements.uses(MADE.agreement_id, None, 9, gallery_id="camp").items
    assert [each.purpose for each in noted] == [TERMS.purpose] * 2


def test_the_searches_of_a_day_are_counted_in_utc(agreements: Agreements) -> None:
    evening = START.replace(hour=23, minute=59, second=30, microsecond=0)
    for _ in range(3):
        search(agreements, evening)
    with pytest.raises(AgreementLimitReached) as refused:
        begin(agreements, now=evening)
    assert refused.value.retry_after_s == 31
    search(agreements, evening + timedelta(seconds=30))


def test_agreements_for_one_purpose_count_each_by_itself(agreements: Agreements) -> None:
    other = replace(MADE, agreement_id="b" * 32, terms=replace(TERMS, disclosure=Disclosure.HIT_OR_NO_HIT))
    agreements.add(other)
    for _ in range(3):
        assert begin(agreements)[0] == MADE
    with pytest.raises(AgreementLimitReached):
        begin(agreements)
    assert begin(agreements, use(of=other))[0] == other
    agreements.end("camp", other.agreement_id, "client:admin", lambda: START)
    assert begin(agreements, now=START + timedelta(days=1))[0] == MADE


def test_a_search_that_failed_does_not_count_and_one_that_was_cut_off_does(agreements: Agreements) -> None:
    for _ in range(5):
        search(agreements, outcome=UseOutcome.FAILED)
    for _ in range(3):
        begin(agreements)
    with pytest.raises(AgreementLimitReached):
        begin(agreements)


def test_no_two_searches_take_the_last_place_of_a_day(agreements: Agreements) -> None:
    start = threading.Barrier(8)

    def ask(_: int) -> bool:
        start.wait(20)
        try:
            begin(agreements)
        except AgreementLimitReached:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 3


def test_nobody_waits_past_the_end_and_is_let_in(agreements: Agreements) -> None:
    in_the_lock, asked_again, may_go_on = threading.Event(), threading.Event(), threading.Event()

    def first() -> datetime:
        in_the_lock.set()
        assert may_go_on.wait(20)
        return TERMS.ends_at - timedelta(seconds=1)

    def second() -> datetime:
        asked_again.set()
        return TERMS.ends_at if may_go_on.is_set() else START

    with ThreadPoolExecutor(2) as pool:
        let_in = pool.submit(agreements.begin_use, use(), first)
        assert in_the_lock.wait(20)
        waits = pool.submit(agreements.begin_use, use(), second)
        assert not asked_again.wait(0.3)  # what time it is matters once the lock is had
        may_go_on.set()
        assert let_in.result(20)[0] == MADE
        with pytest.raises(AgreementNotFound):
            waits.result(20)


def test_no_use_bears_a_later_time_than_the_end(agreements: Agreements) -> None:
    in_the_lock, asked_to_end, may_go_on = threading.Event(), threading.Event(), threading.Event()

    def of_the_search() -> datetime:
        in_the_lock.set()
        assert may_go_on.wait(20)
        return START + timedelta(hours=1)

    def of_the_end() -> datetime:
        asked_to_end.set()
        return START + timedelta(hours=1 if may_go_on.is_set() else 0)

    with ThreadPoolExecutor(2) as pool:
        let_in = pool.submit(agreements.begin_use, use(), of_the_search)
        assert in_the_lock.wait(20)
        ends = pool.submit(agreements.end, "camp", MADE.agreement_id, "client:admin", of_the_end)
        assert not asked_to_end.wait(0.3)
        may_go_on.set()
        let_in.result(20)
        ended_at = ends.result(20).ended_at
    (noted,) = agreements.uses(MADE.agreement_id, None, 9, gallery_id="camp").items
    assert ended_at is not None
    assert noted.used_at <= ended_at


def test_both_sides_see_each_use_and_nobody_else(agreements: Agreements) -> None:
    search(agreements, outcome=UseOutcome.HIT)
    _, failed = begin(agreements)
    agreements.finish_use(MADE.agreement_id, failed, UseResult(UseOutcome.FAILED, error_code="no_face"), START, ())
    begin(agreements)

    seen = agreements.uses(MADE.agreement_id, None, 9, gallery_id="camp").items

    assert seen == agreements.uses(MADE.agreement_id, None, 9, partner_id=PARTNER).items
    assert [(each.outcome, each.complete, each.error_code) for each in seen] == [
        (UseOutcome.HIT, True, None),
        (UseOutcome.FAILED, None, "no_face"),
        (None, None, None),
    ]
    assert {(each.used_by, each.used_at, each.request_id) for each in seen} == {(PARTNER, START, "request-1")}
    first = agreements.uses(MADE.agreement_id, None, 1, partner_id=PARTNER)
    assert agreements.uses(MADE.agreement_id, first.next_after, 9, partner_id=PARTNER).items == seen[1:]
    for other in ({"gallery_id": "elsewhere"}, {"partner_id": "client:another"}, {}):
        with pytest.raises(AgreementNotFound):
            agreements.uses(MADE.agreement_id, None, 9, **other)
    with pytest.raises(InvalidRequest):
        agreements.uses(MADE.agreement_id, "x", 9, gallery_id="camp")


def test_uses_are_numbered_by_agreement(agreements: Agreements) -> None:
    other = replace(MADE, agreement_id="b" * 32)
    agreements.add(other)
    numbers = [begin(agreements, use(of=each))[1] for each in (MADE, other, MADE, other, MADE)]
    assert numbers == [1, 1, 2, 2, 3]
    agreements.finish_use(other.agreement_id, 2, UseResult(UseOutcome.HIT, complete=True), START, ())
    outcomes = [each.outcome for each in agreements.uses(other.agreement_id, None, 9, gallery_id="camp").items]
    assert outcomes == [None, UseOutcome.HIT]
    own = agreements.uses(MADE.agreement_id, None, 9, gallery_id="camp").items
    assert [each.outcome for each in own] == [None] * 3
    assert agreements.uses(MADE.agreement_id, "1", 1, gallery_id="camp").next_after == "2"


def entries(store: AnyStore, chain: str | None) -> list[tuple[str, str | None, str, str | None, dict[str, object]]]:
    """Return what a chain says of agreements."""
    return [
        (each.event, each.outcome, each.client_id, each.agreement_id, each.details)
        for each in store.audit(chain, None, 99).items
        if each.event.startswith("agreement.")
    ]


def test_making_and_ending_stand_in_the_gallerys_chain(store: AnyStore) -> None:
    with acting_as(Actor("client:admin")):
        store.agreements.add(MADE)
        store.agreements.end("camp", MADE.agreement_id, "client:admin", lambda: START)
        store.agreements.end("camp", MADE.agreement_id, "client:late", lambda: START)

    terms = {
        "agreement_id": MADE.agreement_id,
        "partner_id": PARTNER,
        "purpose": "double-registration",
        "disclosure": "full",
        "starts_at": START.isoformat(),
        "ends_at": TERMS.ends_at.isoformat(),
        "searches_per_day": 3,
    }
    assert entries(store, "camp") == [
        ("agreement.made", None, "client:admin", None, terms),  # without its words, which may hold anything
        ("agreement.ended", None, "client:admin", None, {"agreement_id": MADE.agreement_id}),
    ]
    assert entries(store, "elsewhere") == entries(store, None) == []


@pytest.mark.parametrize(
    ("partner_gallery_ids", "noted"),
    [
        ((), ["camp", None]),
        (("nowhere",), ["camp", None]),
        (("elsewhere", "nowhere"), ["camp", "elsewhere"]),
        (("camp",), ["camp"]),
        (("elsewhere", "camp", "abroad"), ["camp", "elsewhere", "abroad"]),
    ],
)
def test_a_use_stands_in_the_chains_of_both_sides(
    store: AnyStore, agreements: Agreements, partner_gallery_ids: Sequence[str], noted: list[str | None]
) -> None:
    store.create_gallery(new_gallery("abroad"))
    with acting_as(Actor(PARTNER, "double-registration", MADE.agreement_id, "r-1")):
        use_id = search(agreements, outcome=UseOutcome.HIT, partner_gallery_ids=partner_gallery_ids)

    details = {"gallery_id": "camp", "use_id": use_id, "complete": True, "error_code": None}
    used = ("agreement.used", "hit", PARTNER, MADE.agreement_id, details)
    for chain in ("camp", "elsewhere", "abroad", None):
        found = [each for each in entries(store, chain) if each[0] == "agreement.used"]
        assert found == ([used] if chain in noted else []), chain
    (last,) = [each for each in store.audit("camp", None, 99).items if each.event == "agreement.used"]
    assert (last.purpose, last.request_id, last.references) == ("double-registration", "r-1", ())


def test_uses_that_are_noted_in_many_chains_at_once_do_not_wait_for_each_other_for_ever(
    store: AnyStore, agreements: Agreements
) -> None:
    many = replace(TERMS, searches_per_day=1000)
    others = [
        replace(MADE, agreement_id="b" * 32, terms=many),
        replace(MADE, agreement_id="c" * 32, terms=many, gallery_id="elsewhere"),
    ]
    for each in others:
        agreements.add(each)
    start = threading.Barrier(4)

    def ask(number: int) -> None:
        start.wait(20)
        own = ("elsewhere", "camp") if number % 2 else ("camp", "elsewhere")
        for _ in range(10):
            found, use_id = begin(agreements, use(of=others[number % 2]))
            agreements.finish_use(found.agreement_id, use_id, UseResult(UseOutcome.NO_HIT, complete=True), START, own)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    for chain in ("camp", "elsewhere"):
        assert sum(each[0] == "agreement.used" for each in entries(store, chain)) == 40


@pytest.mark.parametrize("store", SQL_KINDS, indirect=True)  # another has no rows
def test_the_words_of_an_agreement_are_encrypted(store: SqlStore, agreements: Agreements) -> None:
    other = replace(MADE, agreement_id="b" * 32, terms=replace(TERMS, description=None))
    agreements.add(other)

    assert agreements.of_gallery("camp", None, 9).items == (MADE, other)
    table = tables.agreements
    with store._engine.begin() as connection:
        kept = {row.agreement_id: row.description for row in connection.execute(select(table))}
        assert b"signed" not in kept[MADE.agreement_id]
        assert kept[other.agreement_id] is None
        connection.execute(update(table).values(description=kept[MADE.agreement_id]))
    with pytest.raises(Undecipherable):  # moved to another agreement
        agreements.of_gallery("camp", MADE.agreement_id, 9)
