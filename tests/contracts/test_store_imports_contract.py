"""What both databases keep of an import: the same as of enrolments, many at a time, and how far it is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, text

from service.domain import EncounterStatus, OutcomeKind, SampleFinding
from service.errors import EncounterExists, GalleryNotFound, PackMismatch
from service.import_request import ImportName, ImportState
from service.store.importing import IMPORT_WARNING
from service.store.sql_store import SqlStore
from service.store.tables import import_erasures
from tests.importing import block_of, source_of
from tests.store.building import SQL_KINDS, START, Clock, enrol, new_enrolment, new_gallery, open_store

SOURCE = source_of()


@pytest.fixture(params=SQL_KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    for store in open_store(request.param, tmp_path, Clock()):
        assert isinstance(store, SqlStore)
        yield store


def test_an_imported_template_leaves_what_an_enrolment_leaves(store: SqlStore) -> None:
    enrol(store, new_enrolment("before"))
    block = block_of("a", "b")

    state = store.import_block("camp", SOURCE, block)

    assert state == ImportState(done=2, added=2)
    first, second = (store.encounter("camp", f"e-{person}") for person in "ab")
    (template,) = second.templates
    assert (second.subject_id, second.status, second.created_at) == ("s-b", EncounterStatus.ACTIVE, START)
    assert (template.model_id, template.pack_id, template.verifies) == ("opencv-zoo@1", "opencv-zoo", True)
    assert (template.quality, template.box) == (None, None)
    assert first.templates[0].reference_id < template.reference_id
    finding = store.enrolments("camp", "2", 10).items[0]
    assert (finding.encounter_id, finding.outcome, finding.seq) == ("e-b", OutcomeKind.NOT_COMPARED, 3)
    assert (finding.thresholds, finding.searched, finding.case_ids) == (None, None, ())
    assert finding.samples == (SampleFinding(0, template.reference_id, None, None, None),)
    assert finding.warnings == (IMPORT_WARNING,)
    with store.reading() as reading:
        gallery = reading.gallery("camp")
        (reference,) = reading.subject_references("camp", "s-b")
    assert (gallery.last_seq, gallery.template_count, gallery.model_id) == (3, 3, "opencv-zoo@1")
    np.testing.assert_array_equal(reference.embedding, block.embeddings[1])


def test_each_imported_template_is_a_change_of_its_own(store: SqlStore) -> None:
    store.import_block("camp", SOURCE, block_of("a", "b", "c"))
    with store.reading() as reading:
        changes = reading.changes_after("camp", 0, 10)
    assert [change.seq for change in changes] == [1, 2, 3]
    assert [len(change.added) for change in changes] == [1, 1, 1]
    assert all(change.removed == () for change in changes)


def test_the_first_import_settles_the_model_of_the_gallery(store: SqlStore) -> None:
    store.import_block("camp", SOURCE, block_of("a"))
    with pytest.raises(PackMismatch):
        store.import_block("camp", source_of(source_id="other", model_id="opencv-zoo@2"), block_of("b"))
    with store.reading() as reading:
        assert reading.gallery("camp").model_id == "opencv-zoo@1"
        assert reading.gallery("camp").template_count == 1


def test_a_gallery_of_another_pack_takes_nothing(store: SqlStore) -> None:
    with pytest.raises(PackMismatch):
        store.import_block("camp", replace(SOURCE, pack_id="buffalo_s"), block_of("a"))


def test_how_far_an_import_is_belongs_to_its_gallery_and_source(store: SqlStore) -> None:
    store.create_gallery(new_gallery("abroad"))
    store.import_block("camp", SOURCE, block_of("a", "b"))
    assert store.import_state("camp", SOURCE.source_id) == ImportState(2, 2)
    assert store.import_state("abroad", SOURCE.source_id) == ImportState(0, 0)
    assert store.import_state("camp", "another") == ImportState(0, 0)
    with pytest.raises(GalleryNotFound):
        store.import_state("nowhere", SOURCE.source_id)
    with pytest.raises(GalleryNotFound):
        store.import_block("nowhere", SOURCE, block_of("a"))


def test_a_block_that_is_not_the_next_one_is_not_written(store: SqlStore) -> None:
    first = store.import_block("camp", SOURCE, block_of("a", "b"))
    assert store.import_block("camp", SOURCE, block_of("a", "b")) == first
    assert store.import_block("camp", SOURCE, block_of("d", start=3)) == first
    assert store.gallery_counts("camp").templates == 2
    assert store.import_block("camp", SOURCE, block_of("c", start=2)) == ImportState(3, 3)


def test_rows_that_another_source_brought_are_left_out(store: SqlStore) -> None:
    store.import_block("camp", SOURCE, block_of("a", "b"))
    longer = source_of(source_id="longer")
    assert store.import_block("camp", longer, block_of("a", "b", "c")) == ImportState(3, 1)
    assert store.import_block("camp", longer, block_of("c", start=3)) == ImportState(4, 1)
    counts = store.gallery_counts("camp")
    assert (counts.subjects, counts.templates) == (3, 3)
    with store.reading() as reading:
        assert reading.gallery("camp").last_seq == 3


def test_a_known_encounter_with_other_content_stops_its_whole_block(store: SqlStore) -> None:
    enrol(store, new_enrolment("b"))
    store.import_block("camp", SOURCE, block_of("x", "y"))
    with pytest.raises(EncounterExists, match="row 3"):
        store.import_block("camp", SOURCE, block_of("a", "b", start=2))
    assert store.import_state("camp", SOURCE.source_id) == ImportState(2, 2)
    assert store.gallery_counts("camp").encounters == 3


def test_several_rows_of_one_subject_are_several_encounters(store: SqlStore) -> None:
    block = block_of("a", "b")
    names = tuple(type(name)("one", name.encounter_id) for name in block.names)
    store.import_block("camp", SOURCE, type(block)(0, names, block.digests, block.embeddings))
    assert store.subject("camp", "one").encounter_ids == ("e-a", "e-b")
    assert store.gallery_counts("camp").subjects == 1


def test_a_subject_who_is_there_already_gets_a_further_encounter(store: SqlStore) -> None:
    enrol(store, new_enrolment("a"))
    block = block_of("new")
    names = (type(block.names[0])("s-a", "e-new"),)
    store.import_block("camp", SOURCE, type(block)(0, names, block.digests, block.embeddings))
    assert store.subject("camp", "s-a").encounter_ids == ("e-a", "e-new")


def test_references_of_imports_and_enrolments_have_numbers_of_their_own(store: SqlStore) -> None:
    ids = [enrol(store, new_enrolment("first")).samples[0].reference_id]
    store.import_block("camp", SOURCE, block_of("a", "b"))
    ids += [store.encounter("camp", f"e-{person}").templates[0].reference_id for person in "ab"]
    with store.writing("camp") as tx:
        tx.erase_subject("s-b")
    store.import_block("camp", SOURCE, block_of("c", start=2))
    ids.append(store.encounter("camp", "e-c").templates[0].reference_id)
    ids.append(enrol(store, new_enrolment("last")).samples[0].reference_id)
    assert ids == sorted(set(ids), key=lambda each: each or 0)


def test_an_imported_subject_is_erased_like_another(store: SqlStore) -> None:
    store.import_block("camp", SOURCE, block_of("a", "b"))
    reference_id = store.encounter("camp", "e-a").templates[0].reference_id
    with store.writing("camp") as tx:
        assert tx.erase_subject("s-a").templates == 1
    with store.reading() as reading:
        change = reading.changes_after("camp", 2, 10)[0]
        assert reading.gallery("camp").template_count == 1
    assert change.removed == (reference_id,)
    # the import does not bring back who was erased
    assert store.import_block("camp", SOURCE, block_of("a", "b")) == ImportState(2, 2)
    assert store.gallery_counts("camp").subjects == 1


def erase(store: SqlStore, *subject_ids: str) -> None:
    for subject_id in subject_ids:
        with store.writing("camp") as tx:
            tx.erase_subject(subject_id)


def digests_kept(store: SqlStore) -> list[str]:
    with store._engine.connect() as connection:
        return list(connection.execute(select(import_erasures.c.subject_digest)).scalars())


def test_who_is_erased_while_an_import_is_unfinished_is_left_out_by_it_until_its_end(store: SqlStore) -> None:
    source, other = source_of(4), source_of(2, source_id="other")
    store.import_block("camp", source, block_of("a", "b"))
    store.import_block("camp", other, block_of("z"))
    erase(store, "s-a", "s-b")
    kept = digests_kept(store)
    assert len(set(kept)) == 4  # of both imports, and of no two alike
    assert not any("s-a" in digest for digest in kept)

    again = replace(block_of("x", "c", start=2), names=(ImportName("s-a", "e-x"), ImportName("s-c", "e-c")))
    assert store.import_block("camp", source, again) == ImportState(4, 3)

    assert store.gallery_counts("camp").subjects == 2
    assert len(digests_kept(store)) == 2  # those of the other import
    # another import of the same person, begun since, is wanted
    assert store.import_block("camp", source_of(1, source_id="new"), block_of("a")) == ImportState(1, 1)
    assert store.subject("camp", "s-a").encounter_ids == ("e-a",)
    erase(store, "s-a")
    assert store.import_block("camp", other, block_of("a", start=1)) == ImportState(2, 1)
    assert digests_kept(store) == []


def test_an_erasure_while_no_import_is_unfinished_leaves_nothing(store: SqlStore) -> None:
    store.create_gallery(new_gallery("abroad"))
    store.import_block("abroad", source_of(2), block_of("a"))
    store.import_block("camp", source_of(2), block_of("a", "b"))
    erase(store, "s-a")
    assert digests_kept(store) == []


def test_an_import_that_began_with_other_rows_goes_on_with_none(store: SqlStore) -> None:
    changed = source_of(content_digest="other rows")
    store.check_import("camp", changed)
    store.import_block("camp", SOURCE, block_of("a"))
    store.check_import("camp", SOURCE)
    with pytest.raises(EncounterExists):
        store.check_import("camp", changed)
    with pytest.raises(EncounterExists):
        store.import_block("camp", changed, block_of("b", start=1))
    assert store.gallery_counts("camp").templates == 1


def test_an_imported_encounter_is_made_inactive_and_withdrawn_like_another(store: SqlStore) -> None:
    store.import_block("camp", SOURCE, block_of("a"))
    for status in (EncounterStatus.INACTIVE, EncounterStatus.ACTIVE, EncounterStatus.WITHDRAWN):
        with store.writing("camp") as tx:
            tx.set_encounter_status("e-a", status)
    assert store.encounter("camp", "e-a").templates == ()
    assert store.enrolments("camp", None, 10).items[0].samples[0].reference_id is None


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_the_pages_of_sqlite_hold_several_templates_of_512_dimensions(store: SqlStore) -> None:
    with store._engine.connect() as connection:
        assert connection.execute(text("PRAGMA page_size")).scalar() == 8192


@pytest.mark.parametrize("store", [pytest.param("postgresql", marks=pytest.mark.postgres)], indirect=True)
def test_postgresql_learns_that_its_tables_are_no_longer_empty(store: SqlStore) -> None:
    known = text("SELECT reltuples FROM pg_class WHERE relname = 'encounters'")
    sizes = []
    for start, people in ((0, "ab"), (2, "cd"), (4, "ef"), (6, "gh")):
        store.import_block("camp", SOURCE, block_of(*people, start=start))
        with store._engine.connect() as connection:
            sizes.append(connection.execute(known).scalar())
    assert sizes == [2, 4, 6, 6]  # not after every block, but whenever they doubled
