"""What every store keeps: encounter statuses, repeated requests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.domain import CaseKind, EarlierRequest, EncounterFacts, EncounterStatus
from service.errors import EncounterNotFound, EncounterOutdated, EncounterWithdrawn, IdempotencyKeyReused
from tests.store.building import (
    EVER,
    FACTS,
    KINDS,
    START,
    AnyStore,
    Clock,
    candidate_of,
    enrol,
    new_enrolment,
    new_template,
    open_store,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[AnyStore]:
    yield from open_store(request.param, tmp_path, clock)


def _set_status(store: AnyStore, status: EncounterStatus) -> EncounterStatus:
    with store.writing("camp") as tx:
        return tx.set_encounter_status("e-a", status).status


def test_an_inactive_encounter_is_not_searched_until_it_is_active_again(store: AnyStore) -> None:
    reference_id = enrol(store, new_enrolment("a")).samples[0].reference_id or 0

    assert _set_status(store, EncounterStatus.INACTIVE) is EncounterStatus.INACTIVE
    with store.reading() as tx:
        assert tx.references("camp", [reference_id]) == {}
        assert tx.subject_references("camp", "s-a") == []
        assert tx.gallery("camp").template_count == 0

    assert _set_status(store, EncounterStatus.ACTIVE) is EncounterStatus.ACTIVE
    with store.reading() as tx:
        assert list(tx.references("camp", [reference_id])) == [reference_id]
        assert tx.gallery("camp").template_count == 1
        changes = tx.changes_after("camp", 1, 10)
    assert changes[0].removed == (reference_id,)
    assert [number for number, _ in changes[1].added] == [reference_id]


def test_erasing_an_inactive_encounter_does_not_lower_the_count_twice(store: AnyStore) -> None:
    enrol(store, new_enrolment("a"))
    enrol(store, new_enrolment("b"))
    _set_status(store, EncounterStatus.INACTIVE)

    with store.writing("camp") as tx:
        assert tx.erase_subject("s-a").templates == 1

    with store.reading() as tx:
        assert tx.gallery("camp").template_count == 1


@pytest.mark.parametrize("before", [EncounterStatus.ACTIVE, EncounterStatus.INACTIVE])
def test_a_withdrawn_encounter_keeps_nothing_but_the_fact_of_it(store: AnyStore, before: EncounterStatus) -> None:
    withdrawn = enrol(store, new_enrolment("a", facts=FACTS, templates=[new_template("a", 0, b"image")]))
    enrol(store, new_enrolment("b", candidates=[candidate_of(withdrawn)], cases=[CaseKind.DUPLICATE]))
    _set_status(store, before)

    _set_status(store, EncounterStatus.WITHDRAWN)

    encounter = store.encounter("camp", "e-a")
    assert encounter.status is EncounterStatus.WITHDRAWN
    assert (encounter.facts, encounter.templates, encounter.has_samples) == (EncounterFacts(), (), False)
    finding = store.enrolment("camp", "n-a").samples[0]
    assert (finding.reference_id, finding.quality, finding.box) == (None, None, None)
    candidate = store.enrolment("camp", "n-b").candidates[0]
    assert (candidate.subject_id, candidate.encounter_id, candidate.reference_id) == ("s-a", "e-a", None)
    with store.reading() as tx:
        assert tx.gallery("camp").template_count == 1
        assert tx.changes_after("camp", 0, 1)[0].added == ()
        removed = {each for change in tx.changes_after("camp", 0, 10) for each in change.removed}
    assert removed == {withdrawn.samples[0].reference_id}


@pytest.mark.parametrize("status", [EncounterStatus.ACTIVE, EncounterStatus.INACTIVE])
def test_a_withdrawn_encounter_gets_no_other_status(store: AnyStore, status: EncounterStatus) -> None:
    enrol(store, new_enrolment("a"))
    _set_status(store, EncounterStatus.WITHDRAWN)

    with pytest.raises(EncounterWithdrawn):
        _set_status(store, status)


@pytest.mark.parametrize("status", list(EncounterStatus))
def test_the_same_status_again_is_no_change(store: AnyStore, status: EncounterStatus) -> None:
    enrol(store, new_enrolment("a"))
    _set_status(store, status)
    with store.reading() as tx:
        before = tx.gallery("camp")

    assert _set_status(store, status) is status

    with store.reading() as tx:
        assert tx.gallery("camp") == before


def test_an_unknown_encounter_has_no_status(store: AnyStore) -> None:
    with pytest.raises(EncounterNotFound):
        _set_status(store, EncounterStatus.INACTIVE)


def _earlier(store: AnyStore, key: str | None, encounter_id: str | None, clock: Clock) -> EarlierRequest | None:
    with store.reading() as tx:
        return tx.earlier_request("camp", key, encounter_id, not_before=clock.now.replace(day=clock.now.day - 1))


def test_an_earlier_request_is_found_by_its_key_for_a_day_and_by_its_encounter_for_ever(
    store: AnyStore, clock: Clock
) -> None:
    clock.pass_by(days=3)
    new = new_enrolment("a", key="key")
    expected = EarlierRequest(new.content_digest, enrol(store, new))

    clock.pass_by(hours=24)
    assert _earlier(store, "key", None, clock) == expected
    clock.pass_by(seconds=1)
    assert _earlier(store, "key", None, clock) is None
    assert _earlier(store, "key", "e-a", clock) == expected
    assert _earlier(store, None, "e-other", clock) is None


def test_a_key_comes_before_the_encounter(store: AnyStore) -> None:
    enrol(store, new_enrolment("a"))
    by_key = enrol(store, new_enrolment("b", key="key"))

    with store.reading() as tx:
        earlier = tx.earlier_request("camp", "key", "e-a", EVER)

    assert earlier is not None
    assert earlier.enrolment == by_key


def test_keys_of_other_galleries_do_not_count(store: AnyStore) -> None:
    enrol(store, new_enrolment("a", key="key"))

    with store.reading() as tx:
        assert tx.earlier_request("abroad", "key", "e-a", EVER) is None


def test_a_key_is_taken_for_a_day(store: AnyStore, clock: Clock) -> None:
    enrol(store, new_enrolment("a", key="key"))

    with pytest.raises(IdempotencyKeyReused):
        enrol(store, new_enrolment("b", key="key"))
    clock.pass_by(hours=24, seconds=1)
    assert enrol(store, new_enrolment("c", key="key")).seq == 2


def test_a_rejection_is_remembered_unless_its_key_is_taken(store: AnyStore, clock: Clock) -> None:
    enrolled = enrol(store, new_enrolment("a", key="enrolled"))
    store.remember_rejection("camp", "rejected", "digest", "no_face", "no face was found")
    store.remember_rejection("camp", "rejected", "other", "face_too_small", "the face is too small")
    store.remember_rejection("camp", "enrolled", "other", "no_face", "no face was found")

    with store.reading() as tx:
        rejected = tx.earlier_request("camp", "rejected", None, START)
        kept = tx.earlier_request("camp", "enrolled", None, START)
    assert rejected == EarlierRequest("digest", None, "no_face", "no face was found")
    assert kept is not None
    assert kept.enrolment == enrolled

    clock.pass_by(hours=24, seconds=1)
    store.remember_rejection("camp", "rejected", "later", "no_face", "no face was found")
    with store.reading() as tx:
        again = tx.earlier_request("camp", "rejected", None, clock.now)
    assert again is not None
    assert again.content_digest == "later"


def test_keys_are_erased_with_their_subject(store: AnyStore) -> None:
    enrol(store, new_enrolment("a", key="key"))
    with store.writing("camp") as tx:
        tx.erase_subject("s-a")

    with store.reading() as tx:
        assert tx.earlier_request("camp", "key", "e-a", EVER) is None


def test_a_writer_finds_the_request_that_its_predecessor_committed(store: AnyStore) -> None:
    first = enrol(store, new_enrolment("a", key="key"))

    with store.writing("camp") as tx:
        earlier = tx.earlier_request("camp", "key", None, EVER)

    assert earlier is not None
    assert earlier.enrolment == first


def test_an_erasure_forgets_the_rejections_too(store: AnyStore) -> None:
    enrol(store, new_enrolment("a"))
    store.remember_rejection("camp", "rejected", "digest", "no_face", "no face was found")

    with store.writing("camp") as tx:
        tx.erase_subject("s-a")

    with store.reading() as tx:
        assert tx.earlier_request("camp", "rejected", None, START) is None


def test_an_encounter_that_missed_others_while_inactive_stays_inactive(store: AnyStore) -> None:
    enrol(store, new_enrolment("a"))
    _set_status(store, EncounterStatus.INACTIVE)
    enrol(store, new_enrolment("b"))

    with pytest.raises(EncounterOutdated):
        _set_status(store, EncounterStatus.ACTIVE)
    assert store.encounter("camp", "e-a").status is EncounterStatus.INACTIVE


def test_an_inactive_template_is_still_the_subjects_own(store: AnyStore) -> None:
    reference_id = enrol(store, new_enrolment("a")).samples[0].reference_id
    _set_status(store, EncounterStatus.INACTIVE)

    with store.reading() as tx:
        assert tx.subject_references("camp", "s-a") == []
        assert [each.reference_id for each in tx.subject_references("camp", "s-a", inactive=True)] == [reference_id]
