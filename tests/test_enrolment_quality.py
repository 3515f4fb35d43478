"""The quality gate of a gallery, as the callers of an enrolment see it."""

from dataclasses import replace

import pytest

from service.domain import OutcomeKind, QualityGate
from service.enrolment_request import EnrolmentRequest
from service.errors import InvalidRequest, NoFace, QualityTooLow
from service.galleries import GalleryChange
from service.packs import Pack, Packs
from tests.synthetic import BLURRED, PACK_ID, sample_of
from tests.world import GALLERY, InterruptedStore, World

OFF, STANDARD, STRICT = QualityGate


@pytest.fixture
def world() -> World:
    return World()


def set_gate(world: World, gate: QualityGate) -> None:
    world.galleries.update(GALLERY, GalleryChange(quality_gate=gate))


def test_a_gallery_refuses_nothing_unless_it_is_asked_to(world: World) -> None:
    assert world.gallery().quality_gate is OFF
    assert world.answer(sample_of(1, 0, "blurred")).enrolment.outcome is OutcomeKind.UNIQUE


@pytest.mark.parametrize(("gate", "quality"), [(STANDARD, "blurred"), (STRICT, "blurred"), (STRICT, "faint")])
def test_a_gate_refuses_a_poor_sample_and_records_nobody(world: World, gate: QualityGate, quality: str) -> None:
    set_gate(world, gate)
    with pytest.raises(QualityTooLow):
        world.answer(sample_of(1, 0, quality), subject_id="s")
    assert world.galleries.report(GALLERY).counts.subjects == 0
    assert world.metrics.registry.get_sample_value("biodedup_rejections_total", {"code": "quality_too_low"}) == 1
    assert world.metrics.registry.get_sample_value("biodedup_enrolments_total", {"outcome": "REJECTED"}) == 1


def test_standard_lets_through_for_whom_nothing_can_be_done(world: World) -> None:
    set_gate(world, STANDARD)
    assert world.answer(sample_of(1, 0, "faint")).enrolment.outcome is OutcomeKind.UNIQUE


def test_a_good_sample_beside_a_poor_one_is_enough_and_the_poor_one_is_told(world: World) -> None:
    set_gate(world, STANDARD)
    samples = (sample_of(1, 0, "blurred"), b"a hat", sample_of(1, 1))
    enrolment = world.answer(*samples).enrolment
    codes = [finding.rejection_code for finding in enrolment.samples]
    assert codes == ["quality_too_low", "no_face", None]
    assert enrolment.samples[0].quality == BLURRED
    assert enrolment.samples[0].reference_id is None
    assert world.gallery().template_count == 1
    assert world.metrics.registry.get_sample_value("biodedup_rejections_total", {"code": "quality_too_low"}) == 1
    again = world.answer(sample_of(1, 2)).enrolment
    assert [candidate.reference_id for candidate in again.candidates] == [enrolment.samples[2].reference_id]


def test_where_all_are_refused_the_first_says_why(world: World) -> None:
    set_gate(world, STANDARD)
    with pytest.raises(NoFace):
        world.answer(b"a hat", sample_of(1, 0, "blurred"))
    with pytest.raises(QualityTooLow):
        world.answer(sample_of(1, 0, "blurred"), b"a hat")


def test_a_gate_set_while_a_sample_is_searched_counts_already() -> None:
    store = InterruptedStore()
    world = World(store)
    store.before_writing = lambda: store.update_gallery(GALLERY, lambda each: replace(each, quality_gate=STANDARD))
    with pytest.raises(QualityTooLow):
        world.answer(sample_of(1, 0, "blurred"))
    assert world.gallery().template_count == 0


def test_a_gate_lifted_while_a_sample_is_searched_counts_already() -> None:
    store = InterruptedStore()
    world = World(store)
    world.enrol(1, 1)
    set_gate(world, STANDARD)
    store.before_writing = lambda: store.update_gallery(GALLERY, lambda each: replace(each, quality_gate=OFF))
    enrolment = world.answer(sample_of(2), sample_of(1, 0, "blurred")).enrolment
    assert [finding.rejection_code for finding in enrolment.samples] == [None, None]
    assert enrolment.outcome is OutcomeKind.DUPLICATE


def test_the_gate_of_now_counts_for_a_gallery_that_an_enrolment_has_seen(world: World) -> None:
    world.enrol(1)
    set_gate(world, STANDARD)
    with pytest.raises(QualityTooLow):
        world.answer(sample_of(2, 0, "blurred"))


def test_a_gate_that_was_lifted_refuses_nobody_more(world: World) -> None:
    set_gate(world, STANDARD)
    world.enrol(1)
    set_gate(world, OFF)
    assert world.answer(sample_of(2, 0, "blurred")).enrolment.outcome is OutcomeKind.UNIQUE


def test_the_gate_can_be_waived_for_who_can_give_no_better_photograph(world: World) -> None:
    set_gate(world, STRICT)
    enrolment = world.answer(sample_of(1, 0, "blurred"), waive_quality_gate=True).enrolment
    assert enrolment.outcome is OutcomeKind.UNIQUE
    assert any("waived" in warning for warning in enrolment.warnings)
    good = world.answer(sample_of(2), waive_quality_gate=True).enrolment
    assert not any("waived" in warning for warning in good.warnings)


def test_a_waiver_is_part_of_what_a_repeat_must_repeat() -> None:
    request = EnrolmentRequest(GALLERY, (b"sample",), subject_id="s")
    waived = replace(request, waive_quality_gate=True)
    assert request.digest() != waived.digest()
    # as it was before there was a waiver: requests of then are known again
    assert request.digest() == "ef62c0d6df14e3ff46e56135607ddeb93fc322592983441bb4542c03e04ca836"


def test_a_refusal_is_remembered_under_its_key(world: World) -> None:
    set_gate(world, STANDARD)
    with pytest.raises(QualityTooLow) as first:
        world.answer(sample_of(1, 0, "blurred"), idempotency_key="k")
    set_gate(world, OFF)
    with pytest.raises(QualityTooLow) as again:
        world.answer(sample_of(1, 0, "blurred"), idempotency_key="k")
    assert again.value.message == first.value.message


def test_searches_refuse_nobody(world: World) -> None:
    enrolled = world.enrol(1)
    set_gate(world, STRICT)
    found = world.identification.identify(GALLERY, sample_of(1, 1, "blurred"))
    assert [candidate.subject_id for candidate in found.decision.candidates] == [enrolled.subject_id]
    assert world.verification.verify_subject(GALLERY, sample_of(1, 1, "blurred"), enrolled.subject_id).matched


def test_a_gate_needs_a_pack_that_judges_quality(world: World) -> None:
    set_gate(world, STANDARD)
    pack = world.packs.of(PACK_ID)
    world.galleries._packs = Packs({PACK_ID: Pack(pack.embedder, pack.rule, judges_quality=False)})
    with pytest.raises(InvalidRequest, match=r"quality\.json"):
        set_gate(world, STRICT)
    with pytest.raises(InvalidRequest, match=r"quality\.json"):
        world.galleries.create("north", GalleryChange(quality_gate=STANDARD))
    assert any("no sample is refused" in warning for warning in world.galleries.report(GALLERY).warnings)
    set_gate(world, OFF)
    assert world.galleries.report(GALLERY).gallery.quality_gate is OFF
