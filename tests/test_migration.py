"""A gallery changes its model pack: nobody is missed before, while, or after, whichever pack rules."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.audit_chain import AuditEvent
from service.domain import (
    CaseDecision,
    CaseKind,
    CaseVerdict,
    EncounterStatus,
    FacePolicy,
    Migration,
    MigrationStage,
    OutcomeKind,
    Template,
    TemplateFacts,
)
from service.errors import (
    InvalidRequest,
    MigrationNotFound,
    MigrationNotReady,
    MigrationUnderway,
    NoFace,
    NoReference,
    PackNotLoaded,
    PeopleWouldBeMissed,
    SubjectNotFound,
    SweepUnderway,
)
from service.index_care import IndexCare
from service.store.sql_store import SqlStore
from service.template_making import progress_of
from tests import sweeping
from tests.migrating import (
    LEASE,
    NEW_BLIND,
    NEW_PACK,
    OLD_BLIND,
    OTHER_FACE,
    UNSEEN,
    make_all,
    making_of,
    migrations_of,
    two_packs,
    work,
    world_of,
)
from tests.store.building import KINDS, open_store
from tests.sweeping import sweeps_of
from tests.synthetic import PACK_ID, calibration, sample_of
from tests.world import GALLERY, InterruptedStore, World


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    for store in open_store(request.param, tmp_path, lambda: LEASE.until.replace(second=0)):
        if isinstance(store, SqlStore):
            with store._write_transaction() as connection:
                connection.exec_driver_sql("DELETE FROM galleries")
        else:
            store._galleries = {}
        yield world_of(store)


def candidates(world: World, person: int, capture: int = 9) -> list[str | None]:
    return [each.subject_id for each in world.identify(person, capture).decision.candidates]


def state_of(world: World) -> tuple[str, int, int, int]:
    gallery = world.gallery()
    return gallery.pack_id, gallery.template_count, gallery.standby_template_count, gallery.paired_count


def assert_in_step(world: World) -> None:
    for pack_id in world.gallery().pack_ids:
        assert world.matcher.state(GALLERY, pack_id).in_step
    assert IndexCare(world.matcher, world.metrics).verify(GALLERY).is_same


def test_templates_are_made_and_nothing_changes_for_anybody(world: World) -> None:
    for person in range(12):
        world.enrol(person, subject_id=f"S{person}")
    before = [world.identify(person).decision for person in range(13)]

    migrations = make_all(world)

    report = migrations.report(GALLERY)
    assert (report.migration.stage, report.migration.done, report.missing_in_new) == (MigrationStage.READY, 12, 0)
    assert state_of(world) == (PACK_ID, 12, 12, 12)
    assert [world.identify(person).decision for person in range(13)] == before
    assert_in_step(world)


def test_after_the_cut_over_answers_are_those_of_a_fresh_enrolment_into_the_new_pack(world: World) -> None:
    for person in range(12):
        world.enrol(person, subject_id=f"S{person}")
    fresh = World(packs=two_packs())
    fresh_store = fresh.store
    fresh_store._galleries[GALLERY].gallery = replace(fresh.gallery(), pack_id=NEW_PACK)  # type: ignore[attr-defined]  # of the fake
    for person in range(12):
        fresh.enrol(person, subject_id=f"S{person}")

    make_all(world).cut_over(GALLERY)

    assert state_of(world) == (NEW_PACK, 12, 12, 12)
    for person in range(13):
        here, there = (each.identify(person, OLD_BLIND).decision for each in (world, fresh))
        assert (here.outcome, here.thresholds, here.warnings) == (there.outcome, there.thresholds, there.warnings)
        assert [(c.subject_id, c.score) for c in here.candidates] == [(c.subject_id, c.score) for c in there.candidates]
        assert (here.outcome is OutcomeKind.UNIQUE) == (person == 12)
    assert_in_step(world)


def test_the_way_back_gives_the_answers_of_before_and_loses_nobody(world: World) -> None:
    for person in range(6):
        world.enrol(person, subject_id=f"S{person}")
    migrations = make_all(world)
    before = [world.identify(person).decision.candidates for person in range(6)]
    migrations.cut_over(GALLERY)
    world.enrol(50, subject_id="came later")

    migrations.back(GALLERY)

    assert state_of(world)[0] == PACK_ID
    assert [world.identify(person).decision.candidates for person in range(6)] == before
    assert candidates(world, 50) == ["came later"]
    migrations.cut_over(GALLERY)
    assert candidates(world, 50, OLD_BLIND) == ["came later"]
    assert_in_step(world)


def test_two_who_are_enrolled_meanwhile_cannot_miss_each_other_whichever_pack_rules(world: World) -> None:
    migrations = make_all(world)
    world.enrol(1, 0, subject_id="first")
    second = world.enrol(1, OLD_BLIND, subject_id="second")
    assert (second.outcome, second.candidates, second.case_ids) == (OutcomeKind.UNIQUE, (), ())
    (case,) = world.store.cases(GALLERY, None, 10).items
    assert case.candidate is not None
    assert (case.kind, case.subject_id, case.candidate.subject_id) == (CaseKind.MIGRATION, "second", "first")
    assert (case.candidate.pack_id, case.job_id) == (NEW_PACK, migrations.report(GALLERY).migration.job_id)
    assert migrations.report(GALLERY).migration.cases_opened == 1

    migrations.cut_over(GALLERY)
    third = world.enrol(1, NEW_BLIND, subject_id="third")
    assert third.outcome is OutcomeKind.UNIQUE
    found = [case.candidate for case in world.store.cases(GALLERY, None, 10).items if case.subject_id == "third"]
    assert [(one.subject_id, one.pack_id) for one in found if one] == [("first", PACK_ID)]
    assert world.store.enrolment(GALLERY, third.enrolment_id) == third


def test_a_pair_that_both_packs_find_is_answered_and_opens_one_case(world: World) -> None:
    world.enrol(1, subject_id="first")
    make_all(world)
    again = world.enrol(1, 1, subject_id="second")
    assert [each.subject_id for each in again.candidates] == ["first"]
    assert [case.kind for case in world.store.cases(GALLERY, None, 10).items] == [CaseKind.DUPLICATE]


def test_whoever_lacks_a_template_of_the_new_pack_is_listed_and_stays_searched(world: World) -> None:
    for person in (1, UNSEEN, OTHER_FACE):
        world.enrol(person, subject_id=f"S{person}")
    migrations = make_all(world)

    report = migrations.report(GALLERY)
    missing = migrations.missing(GALLERY, None, None, 10).items
    assert (report.missing_in_new, report.missing_in_old) == (2, 0)
    assert [(each.subject_id, each.has_sample) for each in missing] == [(f"S{OTHER_FACE}", True), (f"S{UNSEEN}", True)]
    for number in (0, 1, 3):
        with pytest.raises(PeopleWouldBeMissed, match=r"^2 people have no template of better"):
            migrations.cut_over(GALLERY, number)
    assert state_of(world)[0] == PACK_ID

    migrations.cut_over(GALLERY, 2)

    assert state_of(world) == (NEW_PACK, 1, 3, 1)
    found = world.identify(1)
    assert [(each.subject_id, each.pack_id) for each in found.decision.candidates] == [("S1", None)]
    assert (found.searched.gallery_size, found.searched.complete) == (3, True)
    assert "2 templates are of the pack synthetic alone" in found.decision.warnings[-1]
    # the new pack sees somebody else's face in this sample, or none: a probe of it is refused as such
    assert migrations.missing(GALLERY, PACK_ID, None, 10).items == ()
    with pytest.raises(PeopleWouldBeMissed, match="2 people have templates of synthetic alone"):
        migrations.finish(GALLERY)


def unsampled_world(world: World) -> World:
    """Person 1 was enrolled before samples were kept."""
    world.store.update_gallery(GALLERY, lambda each: replace(each, keep_samples=False))
    world.enrol(1, subject_id="S1")
    world.store.update_gallery(GALLERY, lambda each: replace(each, keep_samples=True))
    world.enrol(2, subject_id="S2")
    return world


def test_without_a_kept_sample_the_answer_is_the_union_of_both_packs(world: World) -> None:
    migrations = make_all(unsampled_world(world))
    assert [each.has_sample for each in migrations.missing(GALLERY, None, None, 10).items] == [False]
    migrations.cut_over(GALLERY, 1)

    found = world.identify(1).decision
    assert [(each.subject_id, each.pack_id) for each in found.candidates] == [("S1", PACK_ID)]
    enrolled = world.enrol(1, 1, subject_id="again")
    assert enrolled.outcome is not OutcomeKind.UNIQUE
    assert [(each.subject_id, each.pack_id, each.rank) for each in enrolled.candidates] == [("S1", PACK_ID, 1)]
    assert world.store.enrolment(GALLERY, enrolled.enrolment_id).candidates == enrolled.candidates
    assert enrolled.searched is not None
    assert (enrolled.searched.gallery_size, enrolled.searched.complete) == (2, True)
    assert [case.kind for case in world.store.cases(GALLERY, None, 10).items] == [CaseKind.DUPLICATE]
    assert candidates(world, 2) == ["S2"]


def test_where_the_standby_pack_sees_no_face_the_answer_is_incomplete_and_never_unique() -> None:
    world = unsampled_world(world_of())
    migrations = make_all(world)
    migrations.cut_over(GALLERY, 1)
    world.packs._packs[PACK_ID] = replace(world.packs.of(PACK_ID), embedder=BlindEmbedder())

    enrolled = world.enrol(7, subject_id="S7")

    assert (enrolled.outcome, enrolled.candidates) == (OutcomeKind.REVIEW, ())
    assert enrolled.searched is not None
    assert not enrolled.searched.complete
    assert "NOT compared" in enrolled.warnings[-1]
    assert [case.kind for case in world.store.cases(GALLERY, None, 10).items] == [CaseKind.DUPLICATE]
    found = world.identify(8)
    assert not found.searched.complete
    assert found.decision.outcome is OutcomeKind.REVIEW


class BlindEmbedder:
    """The old pack, after something made it find no face any more."""

    pack_id, model_id, dimension = PACK_ID, "synthetic-1", 128

    def extract(self, data: bytes, policy: FacePolicy) -> Template:
        raise NoFace("no face was found")


def test_whoever_is_captured_again_can_be_left_to_the_new_pack(world: World) -> None:
    migrations = make_all(unsampled_world(world))
    migrations.cut_over(GALLERY, 1)
    again = world.enrol(1, 1, subject_id="S1")
    assert again.continuity is not None
    assert again.continuity.passed  # compared with the old pack's template
    assert migrations.report(GALLERY).missing_in_new == 0

    migrations.finish(GALLERY)
    work(world)

    assert migrations.report(GALLERY).migration.stage is MigrationStage.FINISHED
    assert state_of(world) == (NEW_PACK, 2, 0, 0)
    packs = {each.pack_id for one in ("S1", "S2") for each in templates_of(world, one)}
    assert packs == {NEW_PACK}
    assert candidates(world, 1) == ["S1"]
    assert_in_step(world)
    assert list(world.matcher._slots) == [(GALLERY, NEW_PACK)]


def templates_of(world: World, subject_id: str) -> list[TemplateFacts]:
    subject = world.store.subject(GALLERY, subject_id)
    return [each for one in subject.encounter_ids for each in world.store.encounter(GALLERY, one).templates]


def test_nobody_takes_over_a_registration_that_only_the_old_pack_knows(world: World) -> None:
    migrations = make_all(unsampled_world(world))
    migrations.cut_over(GALLERY, 1)

    stranger = world.enrol(77, subject_id="S1")

    assert stranger.continuity is not None
    assert not stranger.continuity.passed
    assert CaseKind.CONTINUITY in [case.kind for case in world.store.cases(GALLERY, None, 10).items]
    verified = world.verification.verify_subject(GALLERY, sample_of(1, 5), "S1")
    assert verified.matched  # by the old pack: the new one knows the stranger alone
    assert not world.verification.verify_subject(GALLERY, sample_of(77, 5), "S1").matched


def test_erasure_leaves_nothing_in_either_pack_and_index(world: World) -> None:
    for person in range(3):
        world.enrol(person, subject_id=f"S{person}")
    migrations = make_all(world)
    assert world.erasure.erase_subject(GALLERY, "S0").templates == 2
    assert state_of(world) == (PACK_ID, 2, 2, 2)
    migrations.cut_over(GALLERY)
    world.erasure.erase_subject(GALLERY, "S1")
    assert state_of(world) == (NEW_PACK, 1, 1, 1)
    assert_in_step(world)
    migrations.back(GALLERY)
    assert [candidates(world, person) for person in range(3)] == [[], [], ["S2"]]


def test_who_is_erased_while_a_block_is_embedded_gets_no_new_template(world: World) -> None:
    for person in range(3):
        world.enrol(person, subject_id=f"S{person}", encounter_id=f"E{person}")
    world.erasure.set_encounter_status(GALLERY, "E2", EncounterStatus.INACTIVE)
    migrations, making = migrations_of(world), making_of(world)
    migration = making.take(migrations.begin(GALLERY, NEW_PACK), LEASE)
    assert migration is not None
    made = making._make

    def erase_between(*arguments: object) -> object:
        templates = made(*arguments)  # type: ignore[arg-type]  # passed on as they came
        world.erasure.erase_subject(GALLERY, "S0")
        return templates

    making._make = erase_between  # type: ignore[method-assign, assignment]  # for this test
    moved = making.advance(migration, LEASE)
    assert moved is not None
    assert state_of(world) == (PACK_ID, 1, 1, 1)
    with pytest.raises(SubjectNotFound):
        world.store.subject(GALLERY, "S0")
    world.erasure.set_encounter_status(GALLERY, "E2", EncounterStatus.ACTIVE)
    assert state_of(world) == (PACK_ID, 2, 2, 2)
    migrations.cut_over(GALLERY)
    assert candidates(world, 2) == ["S2"]
    assert_in_step(world)


def test_an_inactive_encounter_stays_inactive_in_both_packs(world: World) -> None:
    world.enrol(1, subject_id="S1", encounter_id="E1")
    migrations = make_all(world)
    world.erasure.set_encounter_status(GALLERY, "E1", EncounterStatus.INACTIVE)
    migrations.cut_over(GALLERY)
    assert candidates(world, 1) == []
    world.erasure.set_encounter_status(GALLERY, "E1", EncounterStatus.ACTIVE)
    assert candidates(world, 1) == ["S1"]
    world.erasure.set_encounter_status(GALLERY, "E1", EncounterStatus.WITHDRAWN)
    assert state_of(world) == (NEW_PACK, 0, 0, 0)
    assert_in_step(world)


def test_a_cancelled_migration_leaves_nothing(world: World) -> None:
    for person in range(7):
        world.enrol(person, subject_id=f"S{person}")
    migrations = make_all(world)
    migrations.cancel(GALLERY)
    with pytest.raises(MigrationUnderway):
        migrations.begin(GALLERY, NEW_PACK)
    work(world)
    assert migrations.report(GALLERY).migration.stage is MigrationStage.CANCELLED
    assert {each.pack_id for each in templates_of(world, "S3")} == {PACK_ID}
    assert candidates(world, 3) == ["S3"]
    again = make_all(world)
    again.cut_over(GALLERY)
    assert candidates(world, 3, OLD_BLIND) == ["S3"]
    assert_in_step(world)


def test_who_was_decided_to_be_one_person_is_a_mated_pair_and_no_other(world: World) -> None:
    for person in range(12):
        world.enrol(person, subject_id=f"S{person}")
    again = world.enrol(3, 1, subject_id="S3-again")
    migrations = make_all(world)
    before = migrations.comparison(GALLERY)
    world.store.decide_case(GALLERY, again.case_ids[0], CaseDecision(CaseVerdict.SAME_PERSON, "analyst-7"))
    after = migrations.comparison(GALLERY)

    assert (before.subjects, before.mated_pairs, before.non_mated_subjects) == (0, 0, 13)
    assert (after.subjects, after.mated_pairs, after.non_mated_subjects) == (1, 1, 12)


def test_a_doubtful_template_does_not_stand_in_for_a_proven_one(world: World) -> None:
    world.store.update_gallery(GALLERY, lambda each: replace(each, keep_samples=False))
    world.enrol(1, subject_id="S")
    migrations = make_all(world)
    stranger = world.enrol(2, subject_id="S")  # in both packs, and it may show anyone
    assert stranger.continuity is not None
    assert not stranger.continuity.passed
    assert migrations.report(GALLERY).missing_in_new == 1
    with pytest.raises(PeopleWouldBeMissed):
        migrations.cut_over(GALLERY)
    migrations.cut_over(GALLERY, 1)
    with pytest.raises(PeopleWouldBeMissed):
        migrations.finish(GALLERY)
    assert candidates(world, 1) == ["S"]
    # their own proven template is of the other pack: the stranger's does not hide it
    again = world.enrol(1, 3, subject_id="S").continuity
    assert again is not None
    assert again.passed


def test_an_empty_gallery_changes_its_model_and_enrols(world: World) -> None:
    migrations = make_all(world)
    migrations.cut_over(GALLERY)
    assert world.enrol(1, subject_id="S").outcome is OutcomeKind.UNIQUE
    migrations.back(GALLERY)
    assert candidates(world, 1) == ["S"]
    assert_in_step(world)


def test_steps_that_do_not_follow_are_refused(world: World) -> None:
    world.enrol(1)
    migrations = migrations_of(world)
    for step in (migrations.report, migrations.comparison, migrations.cut_over, migrations.back, migrations.finish):
        with pytest.raises(MigrationNotFound):
            step(GALLERY)
    with pytest.raises(PackNotLoaded):
        migrations.begin(GALLERY, "unknown")
    with pytest.raises(InvalidRequest):
        migrations.begin(GALLERY, PACK_ID)
    migrations.begin(GALLERY, NEW_PACK)
    with pytest.raises(MigrationUnderway):
        migrations.begin(GALLERY, NEW_PACK)
    for early in (migrations.cut_over, migrations.back, migrations.finish):
        with pytest.raises(MigrationNotReady):
            early(GALLERY)
    with pytest.raises(MigrationNotReady):
        migrations.missing(GALLERY, None, None, 10)
    assert migrations.report(GALLERY).missing_in_new is None
    work(world)
    migrations.cut_over(GALLERY)
    for late in (migrations.cut_over, migrations.cancel):
        with pytest.raises(MigrationNotReady):
            late(GALLERY)
    migrations.finish(GALLERY)
    work(world)
    for ended in (migrations.cut_over, migrations.back, migrations.finish, migrations.cancel, migrations.comparison):
        with pytest.raises(MigrationNotReady):
            ended(GALLERY)


def test_no_pack_is_changed_under_a_sweep_and_a_sweep_says_whom_it_leaves_out(world: World) -> None:
    migrations = make_all(unsampled_world(world))
    sweeps = sweeps_of(world)
    sweep = sweeps.start(GALLERY, 10)
    assert (sweep.total, sweep.left_out) == (2, 0)
    with pytest.raises(SweepUnderway):
        migrations.cut_over(GALLERY, 1)
    sweeps.fail(sweep, "cancelled by the test")
    migrations.cut_over(GALLERY, 1)
    assert sweeps.plan(GALLERY, 10).left_out == 1
    sweep = sweeps.start(GALLERY, 10)
    assert (sweep.total, sweep.left_out) == (1, 1)
    assert sweeps.sweep(GALLERY, sweep.job_id).left_out == 1
    assert sweeps.sweeps(GALLERY, None, 10).items[-1] == sweep


def test_a_sweep_of_the_new_pack_finds_what_the_old_one_missed(world: World) -> None:
    world.enrol(1, subject_id="first")
    world.enrol(1, OLD_BLIND, subject_id="second")
    make_all(world).cut_over(GALLERY)
    sweeps = sweeps_of(world)
    sweep = sweeps.start(GALLERY, 10)
    sweeping.runner_of(sweeps, world).work()
    assert sweeps.sweep(GALLERY, sweep.job_id).cases_opened == 1


def interrupted() -> tuple[World, InterruptedStore]:
    store = InterruptedStore()
    world = world_of(store)
    world.enrol(1, 0, subject_id="first")
    return world, store


def test_an_enrolment_that_a_cut_over_overtakes_is_answered_by_the_new_pack() -> None:
    world, store = interrupted()
    migrations = make_all(world)
    world.enrol(9)  # what the service remembers of the gallery is of now
    store.before_writing = lambda: migrations.cut_over(GALLERY)
    second = world.enrol(1, OLD_BLIND, subject_id="second")
    assert [each.subject_id for each in second.candidates] == ["first"]
    assert state_of(world) == (NEW_PACK, 3, 3, 3)


def test_an_enrolment_that_the_beginning_overtakes_brings_templates_of_both() -> None:
    world, store = interrupted()
    migrations = migrations_of(world)
    store.before_writing = lambda: migrations.begin(GALLERY, NEW_PACK)
    world.enrol(2, subject_id="second")
    assert state_of(world) == (PACK_ID, 2, 1, 1)


def test_an_enrolment_that_the_end_overtakes_brings_templates_of_the_ruling_pack_alone() -> None:
    world, store = interrupted()
    migrations = make_all(world)
    migrations.cut_over(GALLERY)
    world.enrol(9)
    store.before_writing = lambda: migrations.finish(GALLERY)
    second = world.enrol(1, OLD_BLIND, subject_id="second")
    assert {each.pack_id for each in templates_of(world, "second")} == {NEW_PACK}
    assert [each.subject_id for each in second.candidates] == ["first"]


def test_the_newcomers_of_both_packs_are_compared() -> None:
    """Somebody is enrolled between the search and the lock: found by the standby pack too."""
    world, store = interrupted()
    make_all(world)
    world.enrol(9)
    store.before_writing = lambda: world.enrol(5, OLD_BLIND, subject_id="earlier")
    world.enrol(5, 0, subject_id="later")
    (case,) = world.store.cases(GALLERY, None, 10).items
    assert case.candidate is not None
    assert (case.kind, case.subject_id, case.candidate.subject_id) == (CaseKind.MIGRATION, "later", "earlier")


def test_another_process_follows_each_step(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/record.sqlite", lambda: LEASE.until.replace(second=0))
    store.migrate()
    here = world_of(store)
    there = World.beside(store, two_packs())
    here.enrol(1, subject_id="S1")
    assert candidates(there, 1) == ["S1"]
    migrations = make_all(here)
    assert candidates(there, 1) == ["S1"]
    migrations.cut_over(GALLERY)
    assert candidates(there, 1, OLD_BLIND) == ["S1"]
    there.enrol(2, subject_id="S2")
    migrations.finish(GALLERY)
    work(here)
    there.matcher.forget_other_packs()
    assert list(there.matcher._slots) == [(GALLERY, NEW_PACK)]
    assert candidates(there, 1) == ["S1"]
    assert state_of(there) == (NEW_PACK, 2, 0, 0)
    store.close()


def test_a_pack_that_is_not_loaded_keeps_a_process_from_enrolling_half(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/record.sqlite")
    store.migrate()
    here = world_of(store)
    there = World.beside(store)  # with the old pack alone
    migrations_of(here).begin(GALLERY, NEW_PACK)
    with pytest.raises(PackNotLoaded):
        there.enrol(1)
    assert state_of(here) == (PACK_ID, 0, 0, 0)
    store.close()


def test_progress_is_told(world: World) -> None:
    for person in range(12):
        world.enrol(person)
    migrations, making = migrations_of(world), making_of(world)
    migration = making.take(migrations.begin(GALLERY, NEW_PACK), LEASE)
    assert migration is not None
    moved = making.advance(migration, LEASE)
    assert moved is not None
    assert (moved.done, moved.total, progress_of(moved)) == (5, 12, 5 / 12)
    told = world.metrics.migration_progress.labels(gallery=GALLERY)._value.get()
    assert told == 5 / 12
    assert world.metrics.migration_templates.labels(result="made")._value.get() == 5
    assert making.advance(migration, LEASE) is None  # the same block again


def test_no_reference_of_either_pack_verifies_nobody(world: World) -> None:
    make_all(world)
    world.answer(biometric_exception="bandage", subject_id="S1")
    with pytest.raises(NoReference):
        world.verification.verify_subject(GALLERY, sample_of(1), "S1")


def test_whom_the_standby_pack_does_not_see_is_enrolled_by_the_ruling_one_and_counted(world: World) -> None:
    migrations = make_all(world)
    for person in (OTHER_FACE, UNSEEN):
        assert world.enrol(person, subject_id=f"S{person}").outcome is OutcomeKind.UNIQUE
    assert state_of(world) == (PACK_ID, 2, 0, 0)
    assert world.metrics.standby_rejections._value.get() == 2
    assert migrations.report(GALLERY).missing_in_new == 2


def test_a_search_that_a_cut_over_overtakes_is_answered_by_the_new_pack_alone() -> None:
    world = world_of()
    world.enrol(1, subject_id="S1")
    world.enrol(2, subject_id="S2")
    migrations = make_all(world)
    search = world.matcher.search
    overtaken: list[Migration] = []

    def overtake(*arguments: object, **named: object) -> object:
        found = search(*arguments, **named)  # type: ignore[arg-type]  # passed on
        if not overtaken:
            overtaken.append(migrations.cut_over(GALLERY))
        return found

    world.matcher.search = overtake  # type: ignore[method-assign, assignment]  # for this test
    found = world.identify(1, OLD_BLIND)
    assert overtaken
    assert [each.subject_id for each in found.decision.candidates] == ["S1"]
    assert found.probe.pack_id == NEW_PACK


def test_a_search_that_a_consented_cut_over_overtakes_asks_the_old_pack_too() -> None:
    world = unsampled_world(world_of())
    migrations = make_all(world)
    migrations.cut_over(GALLERY, 1)
    world.enrol(9)
    migrations.back(GALLERY)
    search = world.matcher.search
    overtaken: list[Migration] = []

    def overtake(*arguments: object, **named: object) -> object:
        found = search(*arguments, **named)  # type: ignore[arg-type]  # passed on
        if not overtaken:
            overtaken.append(migrations.cut_over(GALLERY, 1))
        return found

    world.matcher.search = overtake  # type: ignore[method-assign, assignment]  # for this test
    enrolled = world.enrol(1, 1, subject_id="again")
    assert overtaken
    assert [(each.subject_id, each.pack_id) for each in enrolled.candidates] == [("S1", PACK_ID)]


def test_a_calibration_of_the_old_pack_judges_nothing_of_the_new_one_and_comes_back_with_the_way_back() -> None:
    world = world_of()
    world.enrol(1, subject_id="S1")
    store = world.store
    strict = replace(calibration(), scores=tuple(0.1 + 0.9 * each for each in calibration().scores), method="gallery")
    store.add_calibration(GALLERY, strict)
    store.update_gallery(GALLERY, lambda each: replace(each, calibration_id=strict.calibration_id))
    before = world.identify(1).decision.thresholds
    migrations = make_all(world)
    migrations.cut_over(GALLERY)
    ruling = world.identify(1, OLD_BLIND).decision.thresholds
    assert world.gallery().calibration_id is None
    assert world.gallery().standby_calibration_id == strict.calibration_id
    assert ruling.review != before.review
    migrations.back(GALLERY)
    assert world.identify(1).decision.thresholds.review == before.review
    # one of the other pack, however it was chosen, is not used
    migrations.cut_over(GALLERY)
    store.update_gallery(GALLERY, lambda each: replace(each, calibration_id=strict.calibration_id))
    assert world.identify(1, OLD_BLIND).decision.thresholds == ruling


def test_the_thresholds_of_the_new_pack_go_into_the_audit_trail_with_the_cut_over(world: World) -> None:
    world.enrol(1)
    make_all(world).cut_over(GALLERY)
    reasons = [
        each.details["reason"] for each in world.store.audit(GALLERY, None, 10, AuditEvent.THRESHOLDS_CHANGED).items
    ]
    assert reasons == ["size", "model"]


def test_whoever_is_inactive_is_not_dropped_with_the_old_pack_unnoticed(world: World) -> None:
    migrations = make_all(unsampled_world(world))
    encounter_id = world.store.subject(GALLERY, "S1").encounter_ids[0]
    world.erasure.set_encounter_status(GALLERY, encounter_id, EncounterStatus.INACTIVE)
    with pytest.raises(PeopleWouldBeMissed, match=r"^1 people"):
        migrations.cut_over(GALLERY)
    migrations.cut_over(GALLERY, 1)
    with pytest.raises(PeopleWouldBeMissed, match="1 people have templates of synthetic alone"):
        migrations.finish(GALLERY)
    world.erasure.set_encounter_status(GALLERY, encounter_id, EncounterStatus.WITHDRAWN)
    migrations.finish(GALLERY)
