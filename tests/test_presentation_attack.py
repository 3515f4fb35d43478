"""A suspected presentation attack is told to a human, and decides nothing."""

from dataclasses import replace

import pytest

from service.api.sample_schemas import PresentationAttackOut, SampleOut
from service.domain import (
    NO_ATTACK_MODEL,
    AttackFinding,
    FacePolicy,
    NotAssessed,
    PresentationAttack,
    SampleFinding,
    Template,
)
from tests.synthetic import PersonEmbedder, sample_of
from tests.world import GALLERY, World

ATTACK = PresentationAttack(None, AttackFinding.ATTACK, 0.1, 0.8)
BONA_FIDE = PresentationAttack(None, AttackFinding.BONA_FIDE, 0.9, 0.8)


class Suspicious(PersonEmbedder):
    """Takes every even capture for a print."""

    def extract(self, data: bytes, policy: FacePolicy) -> Template:
        attack = BONA_FIDE if int(data.split()[2]) % 2 else ATTACK
        return replace(super().extract(data, policy), presentation_attack=attack)


@pytest.fixture
def world() -> World:
    return World(embedder=Suspicious())


def test_an_enrolment_of_a_suspected_sample_warns_and_decides_as_ever(world: World) -> None:
    suspected, plain = world.enrol(1, capture=2), World().enrol(1, capture=2)
    assert suspected.warnings == ("Sample 0 may show a print, a screen or a mask: a human must look.",)
    assert suspected.samples[0].presentation_attack == ATTACK
    assert (suspected.outcome, suspected.case_ids) == (plain.outcome, plain.case_ids)


def test_only_the_suspected_samples_are_named(world: World) -> None:
    found = world.answer(sample_of(1, 1), sample_of(1, 2), sample_of(1, 3), sample_of(1, 4)).enrolment
    assert found.warnings[-1].startswith("Sample 1, 3 may")
    assert [each.presentation_attack.is_attack for each in found.samples] == [False, True, False, True]


def test_a_bona_fide_sample_warns_of_nothing(world: World) -> None:
    found = world.enrol(1, capture=1)
    assert found.warnings == ()
    assert found.samples[0].presentation_attack == BONA_FIDE


def test_an_identification_of_a_suspected_sample_warns(world: World) -> None:
    world.enrol(1, capture=1)
    suspected, plain = world.identify(1, capture=2), world.identify(1, capture=3)
    assert suspected.decision.warnings == ("Sample 0 may show a print, a screen or a mask: a human must look.",)
    assert plain.decision.warnings == ()
    assert [each.subject_id for each in suspected.decision.candidates] == [
        each.subject_id for each in plain.decision.candidates
    ]


def test_a_verification_tells_of_both_samples(world: World) -> None:
    found = world.verification.verify_samples(GALLERY, sample_of(1, 2), sample_of(1, 3))
    assert found.probe.presentation_attack == ATTACK
    assert found.reference is not None
    assert found.reference.presentation_attack == BONA_FIDE
    assert found.matched


def test_a_sample_without_a_face_says_why_nothing_was_assessed() -> None:
    found = World().answer(sample_of(1), b"nobody").enrolment
    assert found.samples[0].presentation_attack == NO_ATTACK_MODEL
    assert found.samples[1].presentation_attack == PresentationAttack(NotAssessed.NO_FACE)


def test_the_answer_never_leaves_it_out() -> None:
    silent = SampleOut.of(SampleFinding(0, 1, None, None, None)).presentation_attack
    assert (silent.status, silent.reason) == ("not_assessed", NotAssessed.NO_MODEL)
    told = PresentationAttackOut.of(ATTACK)
    assert told.model_dump() == {
        "status": "assessed", "reason": None, "finding": "attack", "score": 0.1, "threshold": 0.8,
    }  # fmt: skip
