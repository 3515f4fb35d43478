"""Enrolment as its callers see it."""

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from service.domain import CaseKind, EncounterFacts, EncounterStatus, OutcomeKind
from service.enrolment_request import EnrolmentRequest
from service.errors import (
    EncounterExists,
    EncounterOutdated,
    GalleryNotFound,
    IdempotencyKeyReused,
    InvalidRequest,
    NoFace,
    NoReference,
)
from tests.fakes import FakeStore
from tests.synthetic import sample_of
from tests.world import GALLERY, DeafMatcher, InterruptedStore, World


@pytest.fixture
def world() -> World:
    return World()


def test_a_new_person_is_unique_and_the_answer_says_what_was_searched(world: World) -> None:
    world.enrol(1)
    answer = world.enrol(2)
    assert answer.outcome is OutcomeKind.UNIQUE
    assert (answer.candidates, answer.case_ids) == ((), ())
    assert answer.searched is not None
    assert (answer.searched.gallery_size, answer.searched.high_water_mark, answer.searched.complete) == (1, 1, True)


def test_another_photo_of_an_enrolled_person_is_a_duplicate(world: World) -> None:
    first = world.enrol(1, 0, subject_id="first")
    world.enrol(2)
    again = world.enrol(1, 1, subject_id="again")
    assert again.outcome is OutcomeKind.DUPLICATE
    candidate = again.candidates[0]
    assert (candidate.rank, candidate.subject_id, candidate.encounter_id) == (1, "first", first.encounter_id)
    assert candidate.score > 0.8
    assert 0 < candidate.false_match.fmr < candidate.false_match.fmr_upper < 1e-6
    assert candidate.false_match.extrapolated
    assert [world.store.case(GALLERY, case_id).kind for case_id in again.case_ids] == [CaseKind.DUPLICATE]


def test_a_candidate_is_a_subject_by_its_best_reference(world: World) -> None:
    for capture in (0, 1, 2):
        world.enrol(1, capture, subject_id="first")
    again = world.enrol(1, 7)
    assert [candidate.subject_id for candidate in again.candidates] == ["first"]


def test_the_thresholds_grow_with_the_templates_compared(world: World) -> None:
    thresholds = [world.enrol(person).thresholds for person in range(30)]
    assert [each.comparisons for each in thresholds if each] == list(range(30))
    assert all(one and other and one.review <= other.review for one, other in pairwise(thresholds))
    assert thresholds[0]
    assert thresholds[29]
    assert thresholds[0].review < thresholds[29].review


def test_a_newcomer_that_the_index_has_not_seen_is_compared() -> None:
    world = World(matcher=DeafMatcher)
    world.enrol(1, subject_id="first")
    world.enrol(2, subject_id="second")
    again = world.enrol(2, 1)
    assert len(world.indexes[0]) == 0
    assert [candidate.subject_id for candidate in again.candidates] == ["second"]
    assert again.searched is not None
    assert (again.searched.gallery_size, again.searched.high_water_mark) == (2, 2)


def test_when_too_many_newcomers_came_the_index_catches_up_and_nobody_is_missed() -> None:
    store = InterruptedStore()
    world, elsewhere = World(store), World.beside(store)
    world.enrol(1, subject_id="first")

    def rush() -> None:
        for person in range(2, 1103):
            elsewhere.enrol(person, subject_id=f"s{person}")

    store.before_writing = rush
    again = world.enrol(700, 1)
    assert [candidate.subject_id for candidate in again.candidates] == ["s700"]
    assert again.searched is not None
    assert again.searched.gallery_size == 1102


def test_a_person_erased_between_search_and_commit_is_no_candidate() -> None:
    store = InterruptedStore()
    world, elsewhere = World(store), World.beside(store)
    world.enrol(1, subject_id="first")
    store.before_writing = lambda: elsewhere.erasure.erase_subject(GALLERY, "first")
    assert world.enrol(1, 1).outcome is OutcomeKind.UNIQUE


def test_a_gallery_that_shrinks_meanwhile_is_searched_again_from_the_lower_threshold() -> None:
    store = InterruptedStore()
    world, elsewhere = World(store), World.beside(store)
    for person in range(40):
        world.enrol(person, subject_id=f"s{person}")

    def shrink() -> None:
        for person in range(1, 40):
            elsewhere.erasure.erase_subject(GALLERY, f"s{person}")

    store.before_writing = shrink
    again = world.enrol(0, 1)
    assert [candidate.subject_id for candidate in again.candidates] == ["s0"]


def test_a_further_encounter_of_the_same_subject_is_no_duplicate(world: World) -> None:
    world.enrol(1, 0, subject_id="s")
    further = world.enrol(1, 1, subject_id="s")
    assert further.outcome is OutcomeKind.UNIQUE
    assert further.continuity is not None
    assert further.continuity.passed
    assert world.store.subject(GALLERY, "s").encounter_ids[1] == further.encounter_id


def test_an_encounter_that_does_not_look_like_its_subject_opens_a_continuity_case(world: World) -> None:
    world.enrol(1, subject_id="s")
    stranger = world.enrol(2, subject_id="s")
    assert stranger.outcome is OutcomeKind.REVIEW
    assert stranger.continuity is not None
    assert not stranger.continuity.passed
    assert [world.store.case(GALLERY, case_id).kind for case_id in stranger.case_ids] == [CaseKind.CONTINUITY]


def test_a_template_that_failed_the_continuity_check_is_searched_but_never_verifies(world: World) -> None:
    world.enrol(1, subject_id="s")
    world.enrol(2, subject_id="s")
    assert [candidate.subject_id for candidate in world.enrol(2, 1).candidates] == ["s"]
    assert not world.verification.verify_subject(GALLERY, sample_of(2, 5), "s").matched


@pytest.mark.parametrize("way_out", [EncounterStatus.INACTIVE, EncounterStatus.WITHDRAWN])
def test_nobody_becomes_a_subject_by_coming_again(world: World, way_out: EncounterStatus) -> None:
    first = world.enrol(1, subject_id="s")
    world.enrol(2, subject_id="s")
    world.erasure.set_encounter_status(GALLERY, first.encounter_id, way_out)
    again = world.enrol(2, 1, subject_id="s")
    assert again.continuity is not None
    assert not again.continuity.passed
    assert again.outcome is OutcomeKind.REVIEW
    with pytest.raises(NoReference):
        world.verification.verify_subject(GALLERY, sample_of(2, 2), "s")


def test_an_inactive_encounter_still_proves_who_the_subject_is(world: World) -> None:
    first = world.enrol(1, subject_id="s")
    world.erasure.set_encounter_status(GALLERY, first.encounter_id, EncounterStatus.INACTIVE)
    stranger = world.enrol(2, subject_id="s")
    assert stranger.continuity is not None
    assert not stranger.continuity.passed


def test_an_encounter_that_missed_others_while_inactive_does_not_come_back(world: World) -> None:
    first = world.enrol(1, subject_id="first")
    world.erasure.set_encounter_status(GALLERY, first.encounter_id, EncounterStatus.INACTIVE)
    assert world.enrol(1, 1, subject_id="second").outcome is OutcomeKind.UNIQUE
    with pytest.raises(EncounterOutdated):
        world.erasure.set_encounter_status(GALLERY, first.encounter_id, EncounterStatus.ACTIVE)


def test_the_sample_policy_is_that_of_the_moment_of_the_record() -> None:
    store = InterruptedStore()
    world = World(store, keep_samples=True)
    store.before_writing = lambda: store.update_gallery(GALLERY, lambda each: replace(each, keep_samples=False))
    answer = world.enrol(1)
    assert not store.encounter(GALLERY, answer.encounter_id).has_samples


def test_a_rejected_request_is_forgotten_with_any_erasure(world: World) -> None:
    world.enrol(1, subject_id="s")
    with pytest.raises(NoFace):
        world.answer(b"a landscape", idempotency_key="k", subject_id="s")
    world.erasure.erase_subject(GALLERY, "s")
    assert not world.answer(sample_of(1), idempotency_key="k", subject_id="s").is_replay


def test_several_samples_of_one_person_are_one_encounter(world: World) -> None:
    answer = world.answer(sample_of(1, 0), sample_of(1, 1), subject_id="s").enrolment
    assert answer.outcome is OutcomeKind.UNIQUE
    assert [finding.reference_id is not None for finding in answer.samples] == [True, True]
    assert world.gallery().template_count == 2


def test_samples_of_two_people_in_one_encounter_open_a_continuity_case(world: World) -> None:
    answer = world.answer(sample_of(1), sample_of(2), subject_id="s").enrolment
    assert answer.outcome is OutcomeKind.REVIEW
    assert answer.continuity is not None
    assert not world.verification.verify_subject(GALLERY, sample_of(2, 1), "s").matched


def test_one_usable_sample_is_enough_and_the_answer_says_why_the_other_was_not(world: World) -> None:
    answer = world.answer(b"a landscape", sample_of(1)).enrolment
    assert [finding.rejection_code for finding in answer.samples] == ["no_face", None]
    assert answer.outcome is OutcomeKind.UNIQUE


def test_without_a_usable_sample_nothing_is_enrolled(world: World) -> None:
    with pytest.raises(NoFace):
        world.answer(b"a landscape", b"a house")
    assert world.gallery().last_seq == 0


def test_a_person_without_a_usable_face_is_recorded_and_never_unique(world: World) -> None:
    answer = world.answer(biometric_exception="injury", subject_id="s").enrolment
    assert answer.outcome is OutcomeKind.NOT_COMPARED
    assert answer.warnings
    assert world.store.gallery_counts(GALLERY).biometric_exceptions == 1
    assert world.matcher.state(GALLERY).in_step


@pytest.mark.parametrize("samples", [(), (sample_of(1),)])
def test_samples_and_an_exception_exclude_each_other(world: World, samples: tuple[bytes, ...]) -> None:
    with pytest.raises(InvalidRequest):
        world.answer(*samples, biometric_exception="injury" if samples else None)


def test_an_unknown_gallery_is_an_error(world: World) -> None:
    with pytest.raises(GalleryNotFound):
        world.enrolment.enrol(EnrolmentRequest("elsewhere", (sample_of(1),)))


def test_a_repeat_under_the_same_key_gets_the_first_answer(world: World) -> None:
    first = world.answer(sample_of(1), idempotency_key="k", facts=EncounterFacts(site="north"))
    again = world.answer(sample_of(1), idempotency_key="k", facts=EncounterFacts(site="north"))
    assert (again.enrolment, again.is_replay) == (first.enrolment, True)
    assert world.gallery().template_count == 1


@pytest.mark.parametrize(
    "other",
    [
        {"facts": EncounterFacts(site="south")},
        {"subject_id": "someone"},
        {"facts": EncounterFacts(labels=(("a", "b"),))},
    ],
)
def test_a_key_with_other_content_is_refused(world: World, other: dict[str, object]) -> None:
    world.answer(sample_of(1), idempotency_key="k")
    with pytest.raises(IdempotencyKeyReused):
        world.answer(sample_of(1), idempotency_key="k", **other)
    with pytest.raises(IdempotencyKeyReused):
        world.answer(sample_of(1, 1), idempotency_key="k")


def test_the_order_of_labels_is_not_content() -> None:
    labels = (("a", "1"), ("b", "2"))
    one = EnrolmentRequest(GALLERY, (sample_of(1),), facts=EncounterFacts(labels=labels))
    assert one.digest() == replace(one, facts=EncounterFacts(labels=labels[::-1])).digest()


def test_a_key_is_free_again_after_its_period(world: World) -> None:
    world.answer(sample_of(1), idempotency_key="k")
    world.clock.now += timedelta(hours=25)
    assert not world.answer(sample_of(2), idempotency_key="k").is_replay


def test_a_rejection_is_repeated_under_its_key(world: World) -> None:
    with pytest.raises(NoFace) as first:
        world.answer(b"a landscape", idempotency_key="k")
    with pytest.raises(NoFace) as again:
        world.answer(b"a landscape", idempotency_key="k")
    assert again.value.message == first.value.message
    with pytest.raises(IdempotencyKeyReused):
        world.answer(sample_of(1), idempotency_key="k")


def test_an_encounter_id_is_idempotent_for_ever(world: World) -> None:
    first = world.answer(sample_of(1), encounter_id="e")
    world.clock.now += timedelta(days=900)
    again = world.answer(sample_of(1), encounter_id="e")
    assert (again.enrolment, again.is_replay) == (first.enrolment, True)
    with pytest.raises(EncounterExists):
        world.answer(sample_of(2), encounter_id="e")


@pytest.mark.parametrize("identity", [{"idempotency_key": "k"}, {"encounter_id": "e"}])
def test_a_repeat_that_arrives_while_the_first_is_under_way_gets_its_answer(identity: dict[str, object]) -> None:
    store = InterruptedStore()
    world, elsewhere = World(store), World.beside(store)
    store.before_writing = lambda: elsewhere.answer(sample_of(1), **identity)
    late = world.answer(sample_of(1), **identity)
    assert late.is_replay
    assert world.gallery().template_count == 1


def test_the_key_of_an_erased_subject_is_forgotten(world: World) -> None:
    world.answer(sample_of(1), idempotency_key="k", subject_id="s")
    world.erasure.erase_subject(GALLERY, "s")
    assert not world.answer(sample_of(2), idempotency_key="k", subject_id="t").is_replay


@pytest.mark.parametrize("keep", [True, False])
def test_samples_are_kept_only_where_the_gallery_says_so(keep: bool) -> None:
    world = World(keep_samples=keep)
    answer = world.enrol(1)
    assert world.store.encounter(GALLERY, answer.encounter_id).has_samples is keep


def test_an_inactive_encounter_is_not_searched_until_it_is_active_again(world: World) -> None:
    first = world.enrol(1, subject_id="first")
    world.erasure.set_encounter_status(GALLERY, first.encounter_id, EncounterStatus.INACTIVE)
    assert world.identify(1).decision.outcome is OutcomeKind.UNIQUE
    world.erasure.set_encounter_status(GALLERY, first.encounter_id, EncounterStatus.ACTIVE)
    assert [candidate.subject_id for candidate in world.identify(1).decision.candidates] == ["first"]
    assert world.matcher.state(GALLERY).in_step


def test_rejections_and_outcomes_are_counted(world: World) -> None:
    world.enrol(1)
    with pytest.raises(NoFace):
        world.answer(b"a landscape")
    value = world.metrics.registry.get_sample_value
    assert value("biodedup_enrolments_total", {"outcome": "UNIQUE"}) == 1
    assert value("biodedup_enrolments_total", {"outcome": "REJECTED"}) == 1
    assert value("biodedup_rejections_total", {"code": "no_face"}) == 1


def test_the_expected_misses_are_stated_and_shout_when_they_are_many() -> None:
    world = World(FakeStore())
    answer = world.enrol(1)
    assert answer.thresholds is not None
    assert answer.thresholds.expected_fnir == 0
    assert answer.warnings == ()
    strict = World()
    strict.store.update_gallery(GALLERY, lambda each: replace(each, review_fpir=1e-6, duplicate_fpir=1e-6))
    answer = strict.enrol(1)
    assert answer.thresholds is not None
    assert answer.thresholds.expected_fnir > 0.1
    assert "miss" in answer.warnings[0]
