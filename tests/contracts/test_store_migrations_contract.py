"""What every store promises about a change of the model pack: `service.ports.Migrating`."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from service.domain import (
    EncounterStatus,
    Lease,
    MigratedTemplate,
    Migration,
    MigrationStage,
    MigrationStep,
    NewTemplate,
    StoredSample,
    Template,
)
from service.errors import GalleryNotFound, MigrationNotFound, MigrationUnderway, SweepNotFound
from service.store.sql_store import SqlStore
from tests.store.building import (
    BOX,
    KINDS,
    QUALITY,
    START,
    AnyStore,
    Clock,
    candidate_of,
    embedding_of,
    enrol,
    new_enrolment,
    new_gallery,
    new_template,
    open_store,
)

OLD, NEW, NEW_MODEL = "opencv-zoo", "buffalo_s", "buffalo_s@1"
MINE, OTHERS = (Lease(owner, START + timedelta(minutes=1)) for owner in ("me", "somebody else"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[AnyStore]:
    yield from open_store(request.param, tmp_path, clock)


def kept(name: str, position: int = 0) -> NewTemplate:
    return new_template(name, position, sample=f"image of {name}".encode())


def of_new(name: str) -> Template:
    return Template(NEW, embedding_of(f"new {name}"), QUALITY, BOX)


def begin(store: AnyStore, *, is_leased: bool = True) -> Migration:
    with store.migrating("camp") as tx:
        migration = tx.begin_migration(NEW, NEW_MODEL, "opencv-zoo@1")
        return (tx.lease_migration(migration.job_id, MINE) or migration) if is_leased else migration


def step(migration: Migration, *made: tuple[int, str], cursor: int = 10**6, is_last: bool = True) -> MigrationStep:
    templates = tuple(MigratedTemplate(number, of_new(name), NEW_MODEL) for number, name in made)
    return MigrationStep(migration.cursor, cursor, len(made), templates, 0.5, is_last)


def advance(store: AnyStore, migration: Migration, *made: tuple[int, str]) -> Migration:
    with store.migrating("camp") as tx:
        moved = tx.advance_migration(migration.job_id, MINE, step(migration, *made))
    assert moved is not None
    return moved


def counts(store: AnyStore) -> tuple[int, int, int]:
    (gallery,) = [each for each in store.galleries() if each.gallery_id == "camp"]
    return gallery.template_count, gallery.standby_template_count, gallery.paired_count


def reference_of(store: AnyStore, name: str) -> int:
    return store.encounter("camp", f"e-{name}").templates[0].reference_id


def test_a_migration_begins_with_all_there_is_and_is_remembered(store: AnyStore) -> None:
    with pytest.raises(MigrationNotFound):
        store.migration("camp")
    with pytest.raises(GalleryNotFound):
        store.migration("nowhere")
    enrol(store, new_enrolment("a"))
    before = store.galleries()[0]

    begun = begin(store, is_leased=False)

    assert (begun.from_pack_id, begun.to_pack_id, begun.stage) == (OLD, NEW, MigrationStage.MAKING)
    assert (begun.done, begun.total, begun.last_reference_id) == (0, 1, reference_of(store, "a"))
    assert store.migration("camp") == begun
    assert store.unfinished_migrations() == [begun]
    gallery = store.galleries()[0]
    assert (gallery.pack_ids, gallery.standby_model_id) == ((OLD, NEW), NEW_MODEL)
    assert gallery.last_seq == before.last_seq + 1
    with store.migrating("camp") as tx, pytest.raises(MigrationUnderway):
        tx.begin_migration(NEW, NEW_MODEL, "opencv-zoo@1")


def timelines(store: AnyStore) -> tuple[str, str]:
    return store.galleries()[0].timeline_id, store.galleries()[0].standby_timeline_id


def test_a_pack_has_a_timeline_of_its_own_from_each_time_it_begins_to_stand_by(store: AnyStore) -> None:
    ruling = timelines(store)[0]
    assert timelines(store) == (ruling, "")
    begun = set()
    for _ in range(2):
        migration = begin(store)
        standby = timelines(store)[1]
        assert timelines(store) == (ruling, standby)
        begun.add(standby)
        advance(store, migration)
        with store.migrating("camp") as tx:
            tx.swap_packs(migration.job_id, MigrationStage.CUT_OVER, None)
        assert timelines(store) == (standby, ruling)
        with store.migrating("camp") as tx:
            tx.swap_packs(migration.job_id, MigrationStage.READY, None)
        assert timelines(store) == (ruling, standby)
        with store.migrating("camp") as tx:
            tx.give_up_standby(migration.job_id)
        assert timelines(store) == (ruling, "")
        with store.migrating("camp") as tx:
            tx.lease_migration(migration.job_id, MINE)
            tx.drop_templates(migration.job_id, MINE, 10)
    assert len(begun) == 2
    assert {"", ruling}.isdisjoint(begun)


def test_a_restore_renews_the_timelines_of_both_packs(store: AnyStore) -> None:
    begin(store)
    before = timelines(store)
    store.renew_timelines()
    assert len({"", *before, *timelines(store)}) == 5


def test_a_migration_is_no_sweep(store: AnyStore) -> None:
    job_id = begin(store).job_id
    assert store.sweeps("camp", None, 10).items == ()
    assert store.unfinished_sweeps() == []
    with pytest.raises(SweepNotFound):
        store.sweep("camp", job_id)
    with store.sweeping("camp") as tx:
        sweep = tx.begin_sweep(10, 0.4)
    with store.migrating("camp") as tx, pytest.raises(MigrationNotFound):
        tx.give_up_standby(sweep.job_id)
    assert [each.job_id for each in store.unfinished_migrations()] == [job_id]


def test_one_process_at_a_time_works_on_it(store: AnyStore, clock: Clock) -> None:
    migration = begin(store)
    with store.migrating("camp") as tx:
        assert tx.lease_migration(migration.job_id, OTHERS) is None
        assert tx.advance_migration(migration.job_id, OTHERS, step(migration)) is None
        tx.release_migration(migration.job_id, "somebody else")
        assert tx.lease_migration(migration.job_id, OTHERS) is None
    clock.pass_by(minutes=2)
    with store.migrating("camp") as tx:
        assert tx.lease_migration(migration.job_id, OTHERS) is not None
        assert tx.advance_migration(migration.job_id, MINE, step(migration)) is None
        tx.release_migration(migration.job_id, "somebody else")
        assert tx.lease_migration(migration.job_id, MINE) is not None
        assert tx.advance_migration(migration.job_id, MINE, replace(step(migration), after=17)) is None
    assert store.migration("camp").stage is MigrationStage.MAKING


def test_a_step_writes_templates_beside_the_old_ones_as_one_change(store: AnyStore) -> None:
    doubtful = replace(kept("b"), verifies=False)
    for name, template in (("a", kept("a")), ("b", doubtful)):
        enrol(store, new_enrolment(name, templates=[template]))
    migration = begin(store)
    old = {name: reference_of(store, name) for name in "ab"}
    before = store.galleries()[0].last_seq

    moved = advance(store, migration, (old["a"], "a"), (old["b"], "b"))

    assert (moved.stage, moved.done, moved.cursor, moved.worked_s) == (MigrationStage.READY, 2, 10**6, 0.5)
    assert counts(store) == (2, 2, 2)
    facts = [each for name in "ab" for each in store.encounter("camp", f"e-{name}").templates]
    assert [(each.pack_id, each.verifies) for each in facts] == [(OLD, True), (NEW, True), (OLD, False), (NEW, False)]
    with store.reading() as tx:
        (change,) = tx.changes_after("camp", before, 10, NEW)
        assert [number for number, _ in change.added] == [facts[1].reference_id, facts[3].reference_id]
        np.testing.assert_array_equal(change.added[0][1], embedding_of("new a"))
        (none,) = tx.changes_after("camp", before, 10, OLD)
        assert (none.seq, none.added, none.removed) == (change.seq, (), ())
        assert [each.reference_id for each in tx.references_after("camp", 0, 10**6, 10, NEW)] == [
            facts[1].reference_id,
            facts[3].reference_id,
        ]
        assert tx.probes_after("camp", 0, 10**6, 10, OLD).reference_ids == (old["a"], old["b"])
        assert [each.reference_id for each in tx.subject_references("camp", "s-a", pack_id=NEW)] == [
            facts[1].reference_id
        ]
    assert store.unfinished_migrations() == []


def test_a_step_leaves_out_whoever_is_gone_or_has_a_new_template(store: AnyStore) -> None:
    for name in "abc":
        enrol(store, new_enrolment(name))
    migration = begin(store)
    old = {name: reference_of(store, name) for name in "abc"}
    with store.writing("camp") as tx:
        tx.erase_subject("s-a")
    with store.writing("camp") as tx:
        tx.set_encounter_status("e-b", EncounterStatus.INACTIVE)

    with store.migrating("camp") as tx:
        made = [(old[name], name) for name in "abcc"]
        first = tx.advance_migration(migration.job_id, MINE, step(migration, *made, cursor=5, is_last=False))
    assert first is not None
    assert counts(store) == (1, 1, 1)
    advance(store, first, (old["c"], "c"))
    assert counts(store) == (1, 1, 1)
    assert len(store.encounter("camp", "e-c").templates) == 2
    with store.reading() as tx:  # that of the inactive encounter is there, and not searched
        assert [each.encounter_id for each in tx.references_after("camp", 0, 10**6, 10, NEW)] == ["e-c"]
    assert [each.pack_id for each in store.encounter("camp", "e-b").templates] == [OLD, NEW]
    with store.writing("camp") as tx:
        tx.set_encounter_status("e-b", EncounterStatus.ACTIVE)
    assert counts(store) == (2, 2, 2)


def test_samples_come_in_the_order_of_their_references_until_they_have_both(store: AnyStore) -> None:
    enrol(store, new_enrolment("a", templates=[kept("a"), kept("a2", 1)]))
    enrol(store, new_enrolment("b"))
    first, second = (each.reference_id for each in store.encounter("camp", "e-a").templates)
    third = reference_of(store, "b")
    migration = begin(store)
    everything = "camp", (OLD, NEW), 0, 10**6
    with store.reading() as tx:
        found = tx.samples_after(*everything, 10)
        assert found == [
            StoredSample(first, b"image of a", BOX),
            StoredSample(second, b"image of a2", BOX),
            StoredSample(third, None, BOX),
        ]
        assert tx.samples_after(*everything, 2) == found[:2]
        assert tx.samples_after("camp", (OLD, NEW), first, second, 10) == found[1:2]
        assert tx.without_counterpart("camp", [first, second, third, 999], NEW) == {first, second, third}
    advance(store, migration, (second, "a2"))
    with store.reading() as tx:
        assert tx.samples_after(*everything, 10) == [found[0], found[2]]
        assert tx.without_counterpart("camp", [first, second, third], NEW) == {first, third}
        (pair,) = tx.paired_templates("camp", (OLD, NEW), 0, 10)
        assert (pair.subject_id, pair.encounter_id) == ("s-a", "e-a")
        np.testing.assert_array_equal(pair.first, embedding_of("a2"))
        np.testing.assert_array_equal(pair.second, embedding_of("new a2"))
        assert tx.paired_templates("camp", (OLD, NEW), second, 10) == []
        assert tx.repeated_templates("camp", (OLD, NEW), 10) == []


def test_people_with_several_encounters_are_the_mated_pairs(store: AnyStore) -> None:
    for name, subject in (("a1", "s-a"), ("a2", "s-a"), ("b1", "s-b"), ("b2", "s-b"), ("c1", "s-c")):
        enrol(store, new_enrolment(name, subject))
    migration = begin(store)
    names = ("a1", "a2", "b1", "b2", "c1")
    advance(store, migration, *((reference_of(store, name), name) for name in names))
    with store.reading() as tx:
        all_of = [each.encounter_id for each in tx.repeated_templates("camp", (OLD, NEW), 10)]
        assert all_of == ["e-a1", "e-a2", "e-b1", "e-b2"]
        assert len(tx.repeated_templates("camp", (OLD, NEW), 1)) == 2
        of_two = tx.paired_templates_of("camp", (OLD, NEW), ["s-b", "s-c", "s-nobody"])
        assert sorted(each.encounter_id for each in of_two) == ["e-b1", "e-b2", "e-c1"]
    with store.writing("camp") as tx:
        tx.set_encounter_status("e-a1", EncounterStatus.INACTIVE)
    with store.reading() as tx:
        assert [each.encounter_id for each in tx.repeated_templates("camp", (OLD, NEW), 10)] == ["e-a2", "e-b1", "e-b2"]


def test_whoever_lacks_a_pack_is_listed_in_the_order_of_their_ids(store: AnyStore) -> None:
    for name, subject, template in (
        ("a", "s-a", kept("a")),
        ("b", "s-b", new_template("b")),
        ("c1", "s-c", new_template("c1")),
        ("c2", "s-c", kept("c2")),
        ("d", "s-d", kept("d")),
    ):
        enrol(store, new_enrolment(name, subject, templates=[template]))
    migration = begin(store)
    advance(store, migration, (reference_of(store, "d"), "d"))
    found = store.missing_subjects("camp", NEW, None, 10)
    assert [(each.subject_id, each.has_sample) for each in found.items] == [
        ("s-a", True),
        ("s-b", False),
        ("s-c", True),
    ]
    page = store.missing_subjects("camp", NEW, None, 2)
    assert page.next_after == "s-b"
    assert [each.subject_id for each in store.missing_subjects("camp", NEW, page.next_after, 2).items] == ["s-c"]
    assert store.missing_count("camp", NEW) == 3
    assert store.missing_count("camp", OLD) == 0
    # who is not searched now may become so again; whose only new template is not searched now is not found by it
    for encounter_id in ("e-b", "e-d"):
        with store.writing("camp") as tx:
            tx.set_encounter_status(encounter_id, EncounterStatus.INACTIVE)
    with store.migrating("camp") as tx:
        assert tx.missing_count("camp", NEW) == 3
    enrol(store, new_enrolment("d2", "s-d"))
    with store.migrating("camp") as tx:
        assert tx.missing_count("camp", NEW) == 4
    with store.writing("camp") as tx:
        tx.set_encounter_status("e-d2", EncounterStatus.INACTIVE)
    assert store.missing_count("camp", NEW) == 3


def test_an_enrolment_brings_templates_of_both_packs_and_cases_of_the_standby_one(store: AnyStore) -> None:
    earlier = enrol(store, new_enrolment("a"))
    job_id = begin(store).job_id
    standby = NewTemplate(0, of_new("b"), NEW_MODEL, verifies=True, sample=None)
    found = replace(candidate_of(earlier), pack_id=NEW)
    new = replace(new_enrolment("b"), standby_templates=(standby,), standby_candidates=(found,))

    stored = enrol(store, new)

    assert counts(store) == (2, 1, 1)
    assert (stored.case_ids, store.enrolment("camp", "n-b")) == ((), stored)
    (case,) = store.cases("camp", None, 10).items
    assert (case.kind.value, case.subject_id, case.job_id, case.candidate) == ("MIGRATION", "s-b", job_id, found)
    assert store.cases("camp", None, 10, job_id=job_id).items == (case,)
    assert store.migration("camp").cases_opened == 1
    assert [each.pack_id for each in store.encounter("camp", "e-b").templates] == [OLD, NEW]
    with store.writing("camp") as tx:
        assert tx.erase_subject("s-b").templates == 2
    assert counts(store) == (1, 0, 0)
    assert store.cases("camp", None, 10).items == ()


def test_the_swap_is_one_change_and_can_be_taken_back(store: AnyStore) -> None:
    for name in "ab":
        enrol(store, new_enrolment(name))
    migration = advance(store, begin(store), (reference_of_first(store), "a"))
    before = store.galleries()[0]
    with store.migrating("camp") as tx:
        assert tx.current_migration() == migration
        assert tx.swap_packs(migration.job_id, MigrationStage.CUT_OVER, None).stage is MigrationStage.CUT_OVER
    after = store.galleries()[0]
    assert after == replace(before.swapped(), last_seq=before.last_seq + 1)
    assert (after.pack_id, after.model_id, after.template_count, after.standby_only_count) == (NEW, NEW_MODEL, 1, 1)
    with store.migrating("camp") as tx:
        tx.swap_packs(migration.job_id, MigrationStage.READY, None)
    assert store.galleries()[0] == replace(before, last_seq=before.last_seq + 2)


def reference_of_first(store: AnyStore) -> int:
    return reference_of(store, "a")


def test_what_was_given_up_is_deleted_in_parts(store: AnyStore) -> None:
    for name in "abc":
        enrol(store, new_enrolment(name))
    job_id = advance(store, begin(store), *((reference_of(store, name), name) for name in "abc")).job_id
    with store.migrating("camp") as tx:
        tx.swap_packs(job_id, MigrationStage.CUT_OVER, None)
    with store.migrating("camp") as tx:
        given_up = tx.give_up_standby(job_id)
    assert (given_up.stage, given_up.done, given_up.total) == (MigrationStage.DROPPING, 0, 3)
    assert (store.galleries()[0].pack_ids, counts(store)) == ((NEW,), (3, 0, 0))
    stages = []
    for _ in range(2):
        with store.migrating("camp") as tx:
            assert tx.lease_migration(job_id, MINE) is not None
            assert tx.drop_templates(job_id, OTHERS, 2) is None
            moved = tx.drop_templates(job_id, MINE, 2)
        assert moved is not None
        stages.append((moved.stage, moved.done))
    assert stages == [(MigrationStage.DROPPING, 2), (MigrationStage.FINISHED, 3)]
    assert [each.pack_id for name in "abc" for each in store.encounter("camp", f"e-{name}").templates] == [NEW] * 3
    with store.writing("camp") as tx:
        tx.erase_subject("s-a")
    assert counts(store) == (2, 0, 0)
    with store.migrating("camp") as tx:
        assert tx.lease_migration(job_id, MINE) is None
        assert tx.begin_migration(OLD, "opencv-zoo@2", NEW_MODEL).from_pack_id == NEW


def test_why_it_gets_no_further_is_noted_until_it_does(store: AnyStore) -> None:
    migration = begin(store)
    with store.migrating("camp") as tx:
        assert tx.note_migration_error(migration.job_id, "pack_not_loaded").error_code == "pack_not_loaded"
    assert advance(store, migration).error_code is None


def test_another_gallery_is_not_touched(store: AnyStore) -> None:
    store.create_gallery(new_gallery("abroad"))
    enrol(store, new_enrolment("x"), "abroad")
    enrol(store, new_enrolment("a"))
    number = store.encounter("abroad", "e-x").templates[0].reference_id
    job_id = advance(store, begin(store), (reference_of(store, "a"), "a"), (number, "x")).job_id
    assert len(store.encounter("abroad", "e-x").templates) == 1
    assert [each.pack_ids for each in store.galleries()] == [(OLD,), (OLD, NEW)]
    with store.migrating("abroad") as tx, pytest.raises(MigrationNotFound):
        tx.swap_packs(job_id, MigrationStage.CUT_OVER, None)
    with pytest.raises(MigrationNotFound):
        store.migration("abroad")


def test_nothing_of_a_failed_transaction_stays(store: AnyStore) -> None:
    def fail() -> None:
        with store.migrating("camp") as tx:
            tx.begin_migration(NEW, NEW_MODEL, "opencv-zoo@1")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        fail()
    assert store.galleries()[0].pack_ids == (OLD,)
    assert isinstance(store, SqlStore) or store.unfinished_migrations() == []
