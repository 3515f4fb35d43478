"""Erasure and withdrawal: gone from the answers at once, and from the record."""

from datetime import timedelta
from pathlib import Path

import pytest

from service.domain import CaseStatus, EncounterStatus, Erasure, OutcomeKind
from service.errors import (
    EncounterNotFound,
    EncounterWithdrawn,
    IdempotencyKeyReused,
    StoreUnavailable,
    SubjectNotFound,
    VarUnusable,
)
from service.key_ring import KeyRing
from service.receipts import verified
from service.store.sql_store import SqlStore
from tests.fake_keys import FakeKeyStore, FakeMasterKey
from tests.world import GALLERY, DeafMatcher, InterruptedStore, World, new_issuer


@pytest.fixture
def world() -> World:
    return World()


def test_an_erased_subject_is_found_by_nobody(world: World) -> None:
    world.enrol(1, subject_id="s")
    erasure = world.erasure.erase_subject(GALLERY, "s")
    assert (erasure.encounters, erasure.templates, erasure.samples, erasure.seq) == (1, 1, 0, 2)
    assert world.identify(1).decision.outcome is OutcomeKind.UNIQUE
    assert world.matcher.state(GALLERY).in_step
    with pytest.raises(SubjectNotFound):
        world.store.subject(GALLERY, "s")


def test_an_index_that_has_not_followed_names_nobody_who_was_erased() -> None:
    world = World(matcher=DeafMatcher)
    world.enrol(1, subject_id="s")
    world.matcher.catch_up(GALLERY)
    world.erasure.erase_subject(GALLERY, "s")
    assert len(world.indexes[0]) == 1
    assert world.identify(1).decision.candidates == ()


def test_the_answers_of_others_no_longer_name_an_erased_subject(world: World) -> None:
    world.enrol(1, subject_id="s")
    other = world.enrol(1, 1, subject_id="t")
    world.erasure.erase_subject(GALLERY, "s")
    [candidate] = world.store.enrolment(GALLERY, other.enrolment_id).candidates
    assert (candidate.subject_id, candidate.encounter_id, candidate.reference_id) == (None, None, None)
    assert candidate.score == pytest.approx(other.candidates[0].score)
    assert world.store.case(GALLERY, other.case_ids[0]).status is CaseStatus.VOID


def test_an_erased_subject_can_be_enrolled_anew(world: World) -> None:
    world.enrol(1, subject_id="s", encounter_id="e")
    world.erasure.erase_subject(GALLERY, "s")
    anew = world.answer(b"face 1 0 good", subject_id="s", encounter_id="e")
    assert (anew.is_replay, anew.enrolment.outcome) == (False, OutcomeKind.UNIQUE)


def test_who_is_not_enrolled_cannot_be_erased(world: World) -> None:
    with pytest.raises(SubjectNotFound):
        world.erasure.erase_subject(GALLERY, "nobody")


def test_a_withdrawn_encounter_keeps_no_biometric_data_and_never_comes_back(world: World) -> None:
    first = world.enrol(1, subject_id="s")
    world.enrol(1, 1, subject_id="s")
    withdrawn = world.erasure.set_encounter_status(GALLERY, first.encounter_id, EncounterStatus.WITHDRAWN)
    assert (withdrawn.status, withdrawn.templates) == (EncounterStatus.WITHDRAWN, ())
    assert len(world.identify(1).decision.candidates) == 1
    assert world.matcher.state(GALLERY).in_step
    with pytest.raises(EncounterWithdrawn):
        world.erasure.set_encounter_status(GALLERY, first.encounter_id, EncounterStatus.ACTIVE)


def test_an_unknown_encounter_is_an_error(world: World) -> None:
    with pytest.raises(EncounterNotFound):
        world.erasure.set_encounter_status(GALLERY, "none", EncounterStatus.INACTIVE)


def test_an_erasure_is_answered_with_a_receipt_that_verifies(world: World) -> None:
    world.enrol(1, subject_id="s")
    receipt = world.erasure.erase_subject(GALLERY, "s").receipt
    found = verified(receipt, new_issuer().public_key)
    assert (found["subject_id"], found["parts"]["templates"], found["parts"]["index_places"]) == ("s", 1, 1)


def test_a_repeat_with_the_same_key_gets_the_same_receipt(world: World) -> None:
    world.enrol(1, subject_id="s")
    first = world.erasure.erase_subject(GALLERY, "s", "once")
    world.clock.now += timedelta(days=400)
    world.enrol(1, subject_id="s")
    again = world.erasure.erase_subject(GALLERY, "s", "once")
    assert again == first
    assert again.receipt
    assert world.store.subject(GALLERY, "s").encounter_ids


def test_a_key_of_another_erasure_erases_nobody(world: World) -> None:
    world.enrol(1, subject_id="s")
    world.enrol(2, subject_id="t")
    world.erasure.erase_subject(GALLERY, "s", "once")
    with pytest.raises(IdempotencyKeyReused):
        world.erasure.erase_subject(GALLERY, "t", "once")
    assert world.store.subject(GALLERY, "t").encounter_ids


def test_without_a_key_a_repeat_finds_nobody(world: World) -> None:
    world.enrol(1, subject_id="s")
    world.erasure.erase_subject(GALLERY, "s")
    with pytest.raises(SubjectNotFound):
        world.erasure.erase_subject(GALLERY, "s")


def test_the_same_request_at_the_same_time_gets_the_same_receipt() -> None:
    store = InterruptedStore()
    world = World(store)
    world.enrol(1, subject_id="s")
    others: list[Erasure] = []
    store.before_writing = lambda: others.append(world.erasure.erase_subject(GALLERY, "s", "once"))
    assert world.erasure.erase_subject(GALLERY, "s", "once") == others[0]


def test_the_index_follows_an_erasure_whose_key_could_not_be_destroyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/record.sqlite", cipher=KeyRing(FakeKeyStore(), FakeMasterKey()))
    store.migrate()
    world = World(store)
    world.enrol(1, subject_id="s")

    def refuse(_lines: object) -> None:
        raise VarUnusable("the disk is full")

    monkeypatch.setattr(store, "_on_erased", refuse)
    with pytest.raises(VarUnusable):
        world.erasure.erase_subject(GALLERY, "s")
    assert len(world.indexes[0]) == 0
    store.close()


def test_an_erasure_whose_key_could_not_be_destroyed_is_whole_when_it_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = FakeKeyStore()
    store = SqlStore(f"sqlite:///{tmp_path}/record.sqlite", cipher=KeyRing(keys, FakeMasterKey()))
    store.migrate()
    world = World(store)
    world.enrol(1, subject_id="s")

    def refuse(_key_ids: object) -> None:
        raise StoreUnavailable("the key store does not answer")

    with monkeypatch.context() as down:
        down.setattr(keys, "destroy", refuse)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                world.erasure.erase_subject(GALLERY, "s", "once")
    assert keys.all_destroyed() == {}

    erasure = world.erasure.erase_subject(GALLERY, "s", "once")
    assert list(keys.all_destroyed()) == [erasure.record.key_id]
    assert verified(erasure.receipt, new_issuer().public_key)["subject_id"] == "s"
    store.close()
