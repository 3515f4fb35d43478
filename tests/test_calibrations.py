"""Calibrations of galleries: made, brought, chosen, taken back; and thresholds that follow the gallery's size."""

from dataclasses import replace

import numpy as np
import pytest

from service.audit_chain import AuditEntry, AuditEvent
from service.domain import CaseDecision, CaseVerdict, OutcomeKind
from service.errors import CalibrationNotFound, CalibrationUnfit
from service.galleries import GalleryChange
from service.packs import Packs
from tests.migrating import NEW_PACK, make_all, world_of
from tests.synthetic import PACK_ID, calibration, packs
from tests.world import GALLERY, InterruptedStore, World

STRICT = replace(calibration(), log10_fmr=calibration().log10_fmr_upper, people=1499)


@pytest.fixture
def world() -> World:
    return World()


def trail(world: World) -> list[AuditEntry]:
    return list(world.store.audit(GALLERY, None, 200, AuditEvent.THRESHOLDS_CHANGED).items)


def used(world: World) -> str:
    return next(each.calibration.calibration_id for each in world.calibrations.calibrations(GALLERY) if each.is_used)


def test_every_answer_names_its_calibration(world: World) -> None:
    own = calibration().calibration_id
    enrolled = world.enrol(1).thresholds
    found = world.identify(1).decision.thresholds
    assert enrolled is not None
    assert enrolled.calibration_id == found.calibration_id == used(world) == own


def test_a_calibration_that_was_brought_is_used_when_it_is_chosen(world: World) -> None:
    world.enrol(1)
    before = world.identify(2).decision.thresholds

    report = world.calibrations.add(GALLERY, STRICT)
    assert not report.is_used
    assert world.identify(2).decision.thresholds == before

    world.calibrations.use(GALLERY, STRICT.calibration_id)
    after = world.identify(2).decision.thresholds
    assert after.calibration_id == STRICT.calibration_id
    assert after.review > before.review
    later = world.enrol(2).thresholds
    assert later is not None
    assert later.calibration_id == STRICT.calibration_id


def test_a_change_is_taken_back_by_choosing_the_one_before(world: World) -> None:
    first = world.enrol(1).thresholds
    world.calibrations.add(GALLERY, STRICT)
    world.calibrations.use(GALLERY, STRICT.calibration_id)
    world.calibrations.use(GALLERY, calibration().calibration_id)
    assert used(world) == calibration().calibration_id
    assert world.gallery().calibration_id is None
    assert first is not None
    assert world.identify(3).decision.thresholds.review == first.review
    assert [entry.details["reason"] for entry in trail(world)] == ["size", "calibration", "calibration"]


def test_another_process_judges_by_the_chosen_calibration(world: World) -> None:
    other = World.beside(world.store)
    world.calibrations.add(GALLERY, STRICT)
    world.calibrations.use(GALLERY, STRICT.calibration_id)
    thresholds = other.enrol(1).thresholds
    assert thresholds is not None
    assert thresholds.calibration_id == STRICT.calibration_id


def test_an_enrolment_that_waited_is_judged_by_the_calibration_of_its_commit(world: World) -> None:
    world.enrol(1)
    world.calibrations.add(GALLERY, STRICT)
    extract = world.packs.of(PACK_ID).embedder.extract

    def slow(*arguments: object) -> object:
        world.calibrations.use(GALLERY, STRICT.calibration_id)
        return extract(*arguments)  # type: ignore[arg-type]  # passed on as they came

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(world.packs.of(PACK_ID).embedder), "extract", lambda _, *rest: slow(*rest))
        thresholds = world.enrol(2).thresholds
    assert thresholds is not None
    assert thresholds.calibration_id == STRICT.calibration_id


def test_a_calibration_of_another_model_is_refused(world: World) -> None:
    with pytest.raises(CalibrationUnfit, match="synthetic-2"):
        world.calibrations.add(GALLERY, replace(calibration(), model_id="synthetic-2"))
    with pytest.raises(CalibrationNotFound):
        world.calibrations.use(GALLERY, "synthetic-0")
    assert len(world.calibrations.calibrations(GALLERY)) == 1


def test_a_calibration_chosen_while_the_packs_change_places_is_refused() -> None:
    store = InterruptedStore()
    world = world_of(store)
    world.enrol(1)
    migrations = make_all(world)
    world.calibrations.add(GALLERY, STRICT)
    store.before_writing = lambda: migrations.cut_over(GALLERY)

    with pytest.raises(CalibrationUnfit, match=r"holds those of better-1 \(better\)"):
        world.calibrations.use(GALLERY, STRICT.calibration_id)

    assert (world.gallery().pack_id, world.gallery().calibration_id) == (NEW_PACK, None)
    assert world.gallery().standby_calibration_id is None


def test_calibrations_of_another_pack_are_listed_without_thresholds() -> None:
    world = world_of()
    world.enrol(1)
    world.calibrations.add(GALLERY, STRICT)
    world.calibrations.use(GALLERY, STRICT.calibration_id)
    make_all(world).cut_over(GALLERY)

    own, foreign = world.calibrations.calibrations(GALLERY)

    assert own.is_used
    assert own.thresholds is not None
    assert own.thresholds.calibration_id == own.calibration.calibration_id
    assert (foreign.calibration, foreign.is_used, foreign.thresholds) == (STRICT, False, None)
    assert "of another model pack (synthetic)" in foreign.warnings[0]


def test_a_calibration_that_cannot_be_reported_is_not_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        raise ArithmeticError

    with monkeypatch.context() as patch:
        patch.setattr(type(STRICT), "expected_fnir", fail)
        with pytest.raises(ArithmeticError):
            world.calibrations.add(GALLERY, STRICT)

    assert len(world.calibrations.calibrations(GALLERY)) == 1


def test_the_calibration_of_a_new_version_of_the_pack_replaces_the_old_one(world: World) -> None:
    newer = packs(world.store)
    newer._packs[PACK_ID] = replace(newer.of(PACK_ID), rule=replace(newer.of(PACK_ID).rule, calibration=STRICT))
    assert newer.rule(world.gallery()).calibration == STRICT


def test_a_gallery_makes_a_calibration_of_its_own_people_without_labels(world: World) -> None:
    for person in range(120):
        world.enrol(person)
    for person in range(6):
        world.enrol(person, 1)  # as somebody else: nobody says that it is the same person

    report = world.calibrations.make(GALLERY)

    made = report.calibration
    assert (made.method, made.people, made.model_id) == ("gallery", 126, "synthetic-1")
    assert made.population == "126 people of the gallery camp on 2026-03-01"
    assert made.found_mates == pytest.approx(6, abs=1.5)
    assert made.mated_population == "synthetic people"  # nobody came twice by name
    assert not report.is_used
    # two in a hundred thousand random directions of 128 dimensions score 0.36
    assert made.threshold(2e-5) == pytest.approx(0.36, abs=0.06)
    world.calibrations.use(GALLERY, made.calibration_id)
    assert world.enrol(3, 2).outcome is not OutcomeKind.UNIQUE
    assert world.enrol(500).outcome is OutcomeKind.UNIQUE


def test_several_encounters_of_a_subject_are_one_person_and_tell_of_misses(world: World) -> None:
    for person in range(100):
        for capture in range(2 if person < 60 else 1):
            world.enrol(person, capture, subject_id=f"s{person}")
    made = world.calibrations.make(GALLERY).calibration
    assert (made.people, made.mated_people) == (100, 60)
    assert made.mated_population == made.population
    assert made.found_mates < 1
    assert made.expected_fnir(0.5) == 0


def test_who_was_decided_to_be_enrolled_twice_counts_once(world: World) -> None:
    for person in range(119):
        world.enrol(person)
    again = world.enrol(0, 1)
    before = world.calibrations.make(GALLERY).calibration
    world.store.decide_case(GALLERY, again.case_ids[0], CaseDecision(CaseVerdict.SAME_PERSON, "analyst-7"))

    assert (before.people, world.calibrations.make(GALLERY).calibration.people) == (120, 119)


def test_a_large_gallery_is_drawn_from_all_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.calibrations.MOST_TEMPLATES", 160)
    for person in range(240):
        world.enrol(person)
    made = world.calibrations.make(GALLERY).calibration
    assert 100 <= made.people <= 160
    assert world.calibrations.make(GALLERY).calibration == made


def test_a_large_gallery_that_is_erased_before_it_is_drawn_makes_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.calibrations.MOST_TEMPLATES", 2)
    for person in range(3):
        world.enrol(person, subject_id=f"S{person}")
    as_read_before = world.gallery()
    for person in range(3):
        world.erasure.erase_subject(GALLERY, f"S{person}")
    with pytest.raises(CalibrationUnfit, match="no template"):
        world.calibrations._drawn(as_read_before, np.random.default_rng(0))


def test_few_people_make_no_calibration(world: World) -> None:
    with pytest.raises(CalibrationUnfit, match="no template"):
        world.calibrations.make(GALLERY)
    world.enrol(1)
    with pytest.raises(CalibrationUnfit, match="100 people or more, not 1"):
        world.calibrations.make(GALLERY)


def test_thresholds_rise_at_stated_sizes_and_each_rise_is_in_the_trail(world: World) -> None:
    enrolled = [world.enrol(person) for person in range(14)]
    sizes = [each.thresholds.stated_comparisons for each in enrolled if each.thresholds]
    assert sizes == [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 12, 13]
    entries = trail(world)
    assert [entry.details["stated_comparisons"] for entry in entries] == list(dict.fromkeys(sizes))
    assert {entry.details["reason"] for entry in entries} == {"size"}
    reviews = [entry.details["review"] for entry in entries]
    assert reviews == sorted(set(reviews))


def test_an_erasure_lowers_the_thresholds_and_the_next_enrolment_writes_it(world: World) -> None:
    for person in range(12):
        world.enrol(person, subject_id=f"s{person}")
    for person in range(6):
        world.erasure.erase_subject(GALLERY, f"s{person}")
    before = len(trail(world))
    world.enrol(50)
    assert [entry.details["stated_comparisons"] for entry in trail(world)[before:]] == [6]


def test_other_rates_are_in_the_trail_with_the_thresholds_they_make(world: World) -> None:
    world.enrol(1)
    world.galleries.update(GALLERY, GalleryChange(review_fpir=0.1))
    world.galleries.update(GALLERY, GalleryChange(review_fpir=0.1))
    entry = trail(world)[-1]
    assert [each.details["reason"] for each in trail(world)] == ["size", "rates"]
    assert (entry.details["review_fpir"], entry.details["review"]) == (
        0.1,
        world.galleries.report(GALLERY).thresholds.review,
    )


def test_packs_without_a_record_know_only_their_own_calibration(world: World) -> None:
    assert isinstance(packs(), Packs)
    assert packs().rule(world.gallery()).calibration == calibration()
