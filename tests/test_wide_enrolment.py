"""An enrolment that searches further galleries: all are compared, counted together, and named in the answer."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError

from service.decision import DecisionRule
from service.domain import (
    CaseDecision,
    CaseStatus,
    CaseVerdict,
    EncounterFacts,
    EncounterStatus,
    Enrolment,
    Gallery,
    OutcomeKind,
)
from service.enrolment_request import EnrolmentRequest
from service.errors import (
    EncounterOutdated,
    GalleriesNotComparable,
    GalleryNotFound,
    IdempotencyKeyReused,
    IndexUnavailable,
    InvalidRequest,
)
from service.matching import IndexSearch, Matcher
from service.packs import Pack
from service.store.sql_store import SqlStore
from service.store.tables import galleries
from service.sweep import SweepService
from tests.migrating import LEASE, NEW_PACK, OldEmbedder, make_all, migrations_of, work, world_of
from tests.postgres import fresh_database
from tests.store.building import KINDS
from tests.synthetic import PACK_ID, calibration, sample_of
from tests.world import GALLERY, START, DeafMatcher, InterruptedStore, World

ABROAD, FURTHER = "abroad", "further"


def new_gallery(gallery_id: str, **settings: object) -> Gallery:
    gallery = Gallery(gallery_id, PACK_ID, 0.01, 0.001, 0.001, keep_samples=False, created_at=START)
    return replace(gallery, **settings)  # type: ignore[arg-type]  # by name


def with_others(world: World, **settings: object) -> World:
    for name in (ABROAD, FURTHER):
        world.store.create_gallery(new_gallery(name, **settings))
    return world


@pytest.fixture
def world() -> World:
    return with_others(World())


@pytest.fixture(params=KINDS)
def any_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """On every kind of record."""
    if request.param == "fake":
        yield with_others(World())
        return
    store = SqlStore(fresh_database() if request.param == "postgresql" else f"sqlite:///{tmp_path}/record.sqlite")
    store.migrate()
    yield with_others(World(store))
    store.close()


def test_who_has_no_usable_face_is_told_which_galleries_were_not_searched(world: World) -> None:
    request = EnrolmentRequest(GALLERY, (), also_search=(FURTHER, ABROAD), biometric_exception="injury")
    found = world.enrolment.enrol(request).enrolment
    assert (found.outcome, found.searched) == (OutcomeKind.NOT_COMPARED, None)
    assert found.warnings == (
        f"No face was compared: this person was not checked for duplicates, neither here nor in {FURTHER}, {ABROAD}.",
    )


def enrol(world: World, person: int, capture: int = 0, *also: str, into: str = GALLERY, **fields: object) -> Enrolment:
    request = EnrolmentRequest(into, (sample_of(person, capture),), also_search=also, **fields)  # type: ignore[arg-type]
    return world.enrolment.enrol(request).enrolment


def test_a_person_of_another_gallery_is_a_candidate_that_says_where(any_world: World) -> None:
    world = any_world
    enrol(world, 1, into=ABROAD, subject_id="a-1")

    found = enrol(world, 1, 1, ABROAD)

    assert found.outcome is OutcomeKind.DUPLICATE
    assert [(each.rank, each.gallery_id, each.subject_id) for each in found.candidates] == [(1, ABROAD, "a-1")]
    assert len(found.case_ids) == 1
    assert world.store.case(GALLERY, found.case_ids[0]).status is CaseStatus.OPEN
    assert world.store.enrolment(GALLERY, found.enrolment_id) == found
    assert world.store.gallery_counts(ABROAD).open_cases == 0


def test_who_is_not_named_is_not_searched(world: World) -> None:
    enrol(world, 1, into=ABROAD)

    assert enrol(world, 1, 1, FURTHER).outcome is OutcomeKind.UNIQUE
    assert enrol(world, 1, 2).outcome is OutcomeKind.DUPLICATE  # that one alone


def test_candidates_of_all_galleries_are_ranked_together(any_world: World) -> None:
    world = any_world
    for place in (GALLERY, ABROAD, FURTHER):
        enrol(world, 1, len(place), into=place, subject_id=place)

    found = enrol(world, 1, 9, FURTHER, ABROAD)

    assert {each.gallery_id or GALLERY for each in found.candidates} == {GALLERY, ABROAD, FURTHER}
    assert {each.subject_id for each in found.candidates} == {GALLERY, ABROAD, FURTHER}
    assert [each.rank for each in found.candidates] == [1, 2, 3]
    scores = [each.score for each in found.candidates]
    assert scores == sorted(scores, reverse=True)
    assert world.store.enrolment(GALLERY, found.enrolment_id).candidates == found.candidates


def test_the_answer_says_of_each_gallery_what_was_searched(any_world: World) -> None:
    world = any_world
    for person in range(3):
        enrol(world, person, into=ABROAD)
    enrol(world, 10)

    searched = enrol(world, 20, 0, ABROAD, FURTHER).searched

    assert searched is not None
    assert (searched.gallery_size, searched.high_water_mark, searched.complete) == (4, 1, True)
    assert [(each.gallery_id, each.gallery_size, each.high_water_mark) for each in searched.galleries] == [
        (GALLERY, 1, 1),
        (ABROAD, 3, 3),
        (FURTHER, 0, 0),
    ]
    plain = enrol(world, 30).searched
    assert plain is not None
    assert plain.galleries == ()


def test_the_thresholds_follow_from_all_comparisons_and_the_rates_of_the_enrolling_gallery(world: World) -> None:
    world.store.update_gallery(ABROAD, lambda gallery: replace(gallery, review_fpir=0.5, duplicate_fpir=0.4))
    for person in range(40):
        enrol(world, person, into=ABROAD)
    for person in range(100, 110):
        enrol(world, person)

    thresholds = enrol(world, 200, 0, ABROAD).thresholds

    assert thresholds is not None
    assert (thresholds.comparisons, thresholds.review_fpir, thresholds.duplicate_fpir) == (50, 0.01, 0.001)
    alone = enrol(world, 201).thresholds
    assert alone is not None
    assert thresholds.review > alone.review
    gallery = replace(world.gallery(), template_count=50)
    assert thresholds.review == world.packs.rule(gallery).thresholds(gallery, 50).review
    assert calibration().calibration_id == thresholds.calibration_id


def test_a_newcomer_of_another_gallery_is_seen_though_its_index_is_deaf() -> None:
    world = with_others(World(matcher=DeafMatcher))
    enrol(world, 5, 0, ABROAD)  # its index is filled before anybody is there
    enrol(world, 1, into=ABROAD, subject_id="a-1")

    assert [each.subject_id for each in enrol(world, 1, 1, ABROAD).candidates] == ["a-1"]


def test_who_comes_between_search_and_lock_is_seen() -> None:
    store = InterruptedStore()
    world = with_others(World(store))
    store.before_writing = lambda: enrol(world, 1, into=ABROAD, subject_id="a-1")

    assert [each.subject_id for each in enrol(world, 1, 1, ABROAD).candidates] == ["a-1"]


def test_a_restore_between_search_and_lock_is_searched_again() -> None:
    store = InterruptedStore()
    world = with_others(World(store))
    enrol(world, 1, into=ABROAD, subject_id="a-1")
    store.before_writing = store.renew_timelines

    assert [each.subject_id for each in enrol(world, 1, 1, ABROAD).candidates] == ["a-1"]


def test_the_same_subject_id_in_another_gallery_is_another_person(world: World) -> None:
    enrol(world, 1, into=ABROAD, subject_id="s")

    found = enrol(world, 1, 1, ABROAD, subject_id="s")

    assert [(each.gallery_id, each.subject_id) for each in found.candidates] == [(ABROAD, "s")]
    assert found.continuity is None


def test_the_own_earlier_encounters_are_no_candidates(world: World) -> None:
    enrol(world, 1, subject_id="s")

    assert enrol(world, 1, 1, ABROAD, subject_id="s").outcome is OutcomeKind.UNIQUE


def test_a_person_who_may_have_been_a_child_at_home_is_no_duplicate_abroad(world: World) -> None:
    enrol(world, 1, into=ABROAD, facts=EncounterFacts(birth_year=1980))
    enrol(world, 1, subject_id="s", facts=EncounterFacts(birth_year=2020))

    found = enrol(world, 1, 1, ABROAD, subject_id="s", facts=EncounterFacts(birth_year=1980))

    assert found.outcome is OutcomeKind.REVIEW
    assert any("REVIEW, although" in each for each in found.warnings)


def test_the_filter_of_the_enrolling_gallery_limits_the_search_in_the_other_too() -> None:
    world = World()
    with_others(world)
    world.store.update_gallery(GALLERY, lambda gallery: replace(gallery, filter_by_sex=True))
    for person in range(60):
        enrol(world, person, into=ABROAD, facts=EncounterFacts(sex="male"))
    for person in range(100, 104):
        enrol(world, person, facts=EncounterFacts(sex="female"))

    found = enrol(world, 200, 0, ABROAD, facts=EncounterFacts(sex="female"))

    assert found.searched is not None
    assert found.searched.filter is not None
    assert (found.searched.filter.left_out, found.searched.filter.comparisons) == (60, 4)


@pytest.mark.parametrize(
    "also", [(GALLERY,), (ABROAD, ABROAD), tuple(f"g{number}" for number in range(9))], ids=["own", "twice", "many"]
)
def test_what_cannot_be_named_is_refused(world: World, also: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest, match="also_search"):
        enrol(world, 1, 0, *also)


def test_an_unknown_gallery_is_not_found_and_nobody_is_enrolled(world: World) -> None:
    with pytest.raises(GalleryNotFound):
        enrol(world, 1, 0, "nowhere")
    assert world.gallery().last_seq == 0


class BrokenAbroad(Matcher):
    """A matcher that cannot search one gallery."""

    def search(self, gallery: Gallery, *arguments: Any, **named: Any) -> IndexSearch:
        if gallery.gallery_id == ABROAD:
            raise IndexUnavailable("its index is broken")
        return super().search(gallery, *arguments, **named)


def test_a_gallery_that_cannot_be_searched_lets_nobody_be_enrolled() -> None:
    world = with_others(World(matcher=BrokenAbroad))

    with pytest.raises(IndexUnavailable):
        enrol(world, 1, 0, FURTHER, ABROAD)
    assert world.gallery().last_seq == 0
    assert enrol(world, 1, 0, FURTHER).outcome is OutcomeKind.UNIQUE


def test_galleries_of_other_packs_are_not_comparable(world: World) -> None:
    world.store.create_gallery(new_gallery("odd", pack_id="another"))

    with pytest.raises(GalleriesNotComparable, match="another in odd"):
        enrol(world, 1, 0, "odd")


def test_a_repeat_with_other_galleries_is_another_request(world: World) -> None:
    first = enrol(world, 1, 0, ABROAD, FURTHER, idempotency_key="k")

    assert enrol(world, 1, 0, FURTHER, ABROAD, idempotency_key="k") == first
    with pytest.raises(IdempotencyKeyReused):
        enrol(world, 1, 0, ABROAD, idempotency_key="k")
    with pytest.raises(IdempotencyKeyReused):
        enrol(world, 1, 0, idempotency_key="k")


def test_an_erasure_elsewhere_takes_the_names_and_voids_the_case(any_world: World) -> None:
    world = any_world
    for number, place in enumerate((ABROAD, FURTHER)):
        enrol(world, 1, number, into=place, subject_id=f"s-{place}")
    enrol(world, 1, 5, into=FURTHER, subject_id=f"s-{ABROAD}")  # a namesake in the other gallery
    found = enrol(world, 1, 9, ABROAD, FURTHER)
    case_id = found.case_ids[0]

    world.erasure.erase_subject(ABROAD, f"s-{ABROAD}")
    kept = world.store.enrolment(GALLERY, found.enrolment_id).candidates
    assert {(each.gallery_id, each.subject_id) for each in kept} == {
        (ABROAD, None),
        (FURTHER, f"s-{FURTHER}"),
        (FURTHER, f"s-{ABROAD}"),
    }
    assert world.store.case(GALLERY, case_id).status is CaseStatus.OPEN
    for subject in (f"s-{FURTHER}", f"s-{ABROAD}"):
        world.erasure.erase_subject(FURTHER, subject)

    assert world.store.case(GALLERY, case_id).status is CaseStatus.VOID
    gone = world.store.enrolment(GALLERY, found.enrolment_id).candidates
    assert {(each.subject_id, each.encounter_id, each.reference_id) for each in gone} == {(None, None, None)}
    world.erasure.erase_subject(GALLERY, found.subject_id)


def test_an_encounter_that_others_were_not_compared_with_stays_inactive(any_world: World) -> None:
    world = any_world
    hidden = enrol(world, 1, into=ABROAD)
    set_status(world, hidden, EncounterStatus.INACTIVE)
    assert enrol(world, 1, 1, ABROAD).outcome is OutcomeKind.UNIQUE

    with pytest.raises(EncounterOutdated):
        set_status(world, hidden, EncounterStatus.ACTIVE)
    seen = enrol(world, 2, into=ABROAD)
    set_status(world, seen, EncounterStatus.INACTIVE)
    set_status(world, seen, EncounterStatus.ACTIVE)  # nobody came meanwhile


def set_status(world: World, enrolled: Enrolment, status: EncounterStatus) -> None:
    with world.store.writing(enrolled.gallery_id) as writing:
        writing.set_encounter_status(enrolled.encounter_id, status)


def abroad_on_the_new_pack(world: World) -> None:
    """Abroad changed its model and has one person whom only the old pack knows: no sample was kept."""
    enrol(world, 7, into=ABROAD, subject_id="a-7")
    migrations = migrations_of(world)
    migrations.begin(ABROAD, NEW_PACK)
    work(world)
    migrations.cut_over(ABROAD, 1)


def test_people_whom_no_pack_of_the_own_gallery_knows_leave_the_answer_incomplete() -> None:
    world = with_others(world_of())
    abroad_on_the_new_pack(world)
    world.store.create_gallery(new_gallery("new", pack_id=NEW_PACK))

    found = enrol(world, 2, 0, ABROAD, into="new")

    assert found.outcome is OutcomeKind.REVIEW
    assert found.searched is not None
    assert [each.complete for each in found.searched.galleries] == [True, False]
    assert not found.searched.complete
    assert len(found.case_ids) == 1
    assert any(each.startswith(f"In {ABROAD}: 1 templates") for each in found.warnings)
    assert world.store.enrolment("new", found.enrolment_id) == found


def test_where_both_galleries_have_the_same_two_packs_both_are_searched() -> None:
    world = with_others(world_of())
    abroad_on_the_new_pack(world)
    make_all(world).cut_over(GALLERY, 0)

    found = enrol(world, 7, 1, ABROAD)

    assert [(each.gallery_id, each.subject_id, each.pack_id) for each in found.candidates] == [(ABROAD, "a-7", PACK_ID)]
    assert found.searched is not None
    assert found.searched.complete
    stranger = enrol(world, 8, 0, ABROAD)
    assert stranger.outcome is OutcomeKind.UNIQUE


class ThirdEmbedder(OldEmbedder):
    """Another pack that happens to make what the old one makes: only its name tells them apart."""

    pack_id = "third"


def test_the_standby_packs_of_two_galleries_may_differ() -> None:
    world = with_others(world_of())
    third = replace(calibration(), pack_id="third")
    world.packs._packs["third"] = Pack(ThirdEmbedder(), DecisionRule(third, fnir_warning=0.1), judges_quality=True)
    abroad_on_the_new_pack(world)
    world.store.create_gallery(new_gallery("home", pack_id="third", keep_samples=True))
    migrations = migrations_of(world)
    migrations.begin("home", NEW_PACK)
    work(world)
    migrations.cut_over("home", 0)

    found = enrol(world, 7, 1, ABROAD, into="home")

    assert found.searched is not None
    assert [each.complete for each in found.searched.galleries] == [True, False]
    assert found.outcome is OutcomeKind.REVIEW


def test_a_withdrawal_elsewhere_takes_the_reference(any_world: World) -> None:
    world = any_world
    there = enrol(world, 1, into=ABROAD, subject_id="a-1")
    found = enrol(world, 1, 1, ABROAD)

    set_status(world, there, EncounterStatus.WITHDRAWN)

    (kept,) = world.store.enrolment(GALLERY, found.enrolment_id).candidates
    assert (kept.subject_id, kept.encounter_id, kept.reference_id) == ("a-1", there.encounter_id, None)


def test_a_gallery_that_cuts_over_meanwhile_is_no_longer_comparable() -> None:
    store = InterruptedStore()
    world = with_others(world_of(store))
    store.before_writing = lambda: abroad_on_the_new_pack(world)

    with pytest.raises(GalleriesNotComparable):
        enrol(world, 1, 0, ABROAD)
    assert world.gallery().last_seq == 0


def test_a_sweep_across_opens_no_second_case_for_a_pair(any_world: World) -> None:
    world = any_world
    enrol(world, 1, into=ABROAD, subject_id="a-1")
    found = enrol(world, 1, 1, ABROAD)
    sweeps = SweepService(world.store, world.matcher, world.packs, world.metrics)

    for here, there in ((GALLERY, ABROAD), (ABROAD, GALLERY)):
        sweep = sweeps.start(here, 1, there)
        assert sweeps.take(sweep, LEASE) is not None
        swept = sweeps.advance(sweep, LEASE)
        assert swept is not None
        assert (swept.found_pairs, swept.cases_opened) == (1, 0)
    assert [case.case_id for case in world.store.cases(GALLERY, None, 9).items] == list(found.case_ids)


def test_a_pair_across_galleries_says_nothing_of_the_people_of_one(any_world: World) -> None:
    world = any_world
    enrol(world, 1, into=ABROAD)
    found = enrol(world, 1, 1, ABROAD)
    world.store.decide_case(GALLERY, found.case_ids[0], CaseDecision(CaseVerdict.SAME_PERSON, "a-7"))

    assert world.store.same_people(GALLERY) == []
    assert world.store.same_people(ABROAD) == []


@pytest.mark.postgres  # SQLite has one writer at a time
@pytest.mark.parametrize("second", [FURTHER, GALLERY], ids=["the-other-candidate", "the-enrolled-person"])
def test_erasures_of_two_galleries_that_meet_at_one_case_come_one_after_the_other(second: str) -> None:
    store = SqlStore(fresh_database())
    world = with_others(World(store))
    for number, place in enumerate((ABROAD, FURTHER)):
        enrol(world, 1, number, into=place, subject_id=f"s-{place}")
    found = enrol(world, 1, 9, ABROAD, FURTHER, subject_id=f"s-{GALLERY}")

    with ThreadPoolExecutor(1) as pool:
        with store.writing(ABROAD) as writing:
            writing.erase_subject(f"s-{ABROAD}")
            other = pool.submit(world.erasure.erase_subject, second, f"s-{second}")
            with pytest.raises(TimeoutError):
                other.result(0.5)  # it waits for what this one holds
        other.result(20)

    if second == FURTHER:
        assert store.case(GALLERY, found.case_ids[0]).status is CaseStatus.VOID
    else:
        assert store.enrolments(GALLERY, None, 9).items == ()
    store.close()


@pytest.mark.postgres  # SQLite has one writer at a time
def test_the_locks_are_taken_in_the_order_of_their_names() -> None:
    store = SqlStore(fresh_database())
    with_others(World(store))
    entered = threading.Event()

    def write() -> None:
        with store.writing(FURTHER, [ABROAD, GALLERY]):
            entered.set()

    waiting = threading.Thread(target=write)
    with store.writing(GALLERY):
        waiting.start()
        assert not entered.wait(0.5)
        # the first in the order is held, and none after the one it waits for
        assert [is_locked(store, each) for each in (ABROAD, GALLERY, FURTHER)] == [True, True, False]
    waiting.join(20)
    assert entered.is_set()
    store.close()


def test_the_heads_of_the_chains_are_taken_in_the_order_of_their_names(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/record.sqlite")
    store.migrate()
    world = with_others(World(store))
    world.enrol(1)
    heads: list[str] = []

    def look(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        if "FROM audit_chains" in statement:
            heads.append(values[0])

    event.listen(store._engine, "before_cursor_execute", look)
    world.enrol(1, also_search=(FURTHER, ABROAD))

    assert list(dict.fromkeys(heads)) == [ABROAD, GALLERY, FURTHER]
    store.close()


def is_locked(store: SqlStore, gallery_id: str) -> bool:
    wanted = select(galleries.c.gallery_id).where(galleries.c.gallery_id == gallery_id)
    with store._engine.connect() as connection:
        try:
            connection.execute(wanted.with_for_update(nowait=True, key_share=True))
        except OperationalError:
            return True
        return False
