"""Verification: against a subject, or between two samples."""

import pytest

from service.domain import EncounterStatus
from service.errors import GalleryNotFound, NoFace, NoReference, SubjectNotFound
from tests.synthetic import sample_of
from tests.world import GALLERY, World


@pytest.fixture
def world() -> World:
    world = World()
    world.enrol(1, subject_id="s")
    return world


def test_the_same_person_matches_and_the_answer_says_how_surely(world: World) -> None:
    answer = world.verification.verify_subject(GALLERY, sample_of(1, 1), "s")
    assert answer.matched
    assert answer.score >= answer.threshold
    assert answer.verification_fmr == 0.001
    assert answer.false_match.fmr < 0.001
    assert answer.reference_id is not None
    assert answer.population == "synthetic people"


def test_another_person_does_not_match(world: World) -> None:
    answer = world.verification.verify_subject(GALLERY, sample_of(2), "s")
    assert not answer.matched
    assert answer.score < answer.threshold


def test_the_best_of_several_references_counts(world: World) -> None:
    world.enrol(1, 1, subject_id="s")
    alone = World()
    alone.enrol(1, subject_id="s")
    probe = sample_of(1, 1)
    assert world.verification.verify_subject(GALLERY, probe, "s").score == pytest.approx(1.0)
    assert alone.verification.verify_subject(GALLERY, probe, "s").score < 0.99


def test_a_stricter_rate_asks_for_a_higher_score(world: World) -> None:
    strict = world.verification.verify_subject(GALLERY, sample_of(1, 1), "s", verification_fmr=1e-6)
    usual = world.verification.verify_subject(GALLERY, sample_of(1, 1), "s")
    assert strict.threshold > usual.threshold
    assert (strict.verification_fmr, strict.expected_fnmr) >= (1e-6, usual.expected_fnmr)


def test_two_samples_can_be_compared_without_any_subject(world: World) -> None:
    same = world.verification.verify_samples(GALLERY, sample_of(7), sample_of(7, 1))
    other = world.verification.verify_samples(GALLERY, sample_of(7), sample_of(8))
    assert (same.matched, other.matched, same.reference_id) == (True, False, None)


def test_who_is_not_enrolled_cannot_be_verified(world: World) -> None:
    with pytest.raises(SubjectNotFound):
        world.verification.verify_subject(GALLERY, sample_of(1), "nobody")
    with pytest.raises(GalleryNotFound):
        world.verification.verify_subject("elsewhere", sample_of(1), "s")


def test_a_subject_without_a_searched_template_has_no_reference(world: World) -> None:
    [encounter_id] = world.store.subject(GALLERY, "s").encounter_ids
    world.erasure.set_encounter_status(GALLERY, encounter_id, EncounterStatus.INACTIVE)
    with pytest.raises(NoReference):
        world.verification.verify_subject(GALLERY, sample_of(1), "s")


def test_a_sample_without_a_face_is_rejected_and_counted(world: World) -> None:
    with pytest.raises(NoFace):
        world.verification.verify_subject(GALLERY, b"a landscape", "s")
    assert world.metrics.registry.get_sample_value("biodedup_rejections_total", {"code": "no_face"}) == 1


def test_verification_changes_nothing(world: World) -> None:
    before = world.gallery()
    world.verification.verify_subject(GALLERY, sample_of(1, 1), "s")
    assert world.gallery() == before
