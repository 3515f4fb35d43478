"""What every store keeps of several samples of a subject: who has several, all of theirs, and the best pair."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.domain import EncounterStatus
from service.store.sql_store import SqlStore
from tests.importing import block_of, source_of
from tests.store.building import (
    KINDS,
    SQL_KINDS,
    AnyStore,
    Clock,
    candidate_of,
    embedding_of,
    enrol,
    new_enrolment,
    new_template,
    open_store,
)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyStore]:
    yield from open_store(request.param, tmp_path, Clock())


def several(store: AnyStore) -> int:
    with store.reading() as tx:
        return tx.gallery("camp").several_count


def test_a_gallery_counts_its_subjects_with_several_templates(store: AnyStore) -> None:
    enrol(store, new_enrolment("a"))
    enrol(store, new_enrolment("b", templates=[new_template("b-0", 0), new_template("b-1", 1)]))
    assert several(store) == 1
    enrol(store, new_enrolment("c", "s-a"))
    assert several(store) == 2
    enrol(store, new_enrolment("d", "s-a"))
    enrol(store, new_enrolment("e", "s-b", templates=[], biometric_exception="injury"))
    assert several(store) == 2


def test_a_subject_that_loses_templates_is_counted_no_more(store: AnyStore) -> None:
    for name in ("a", "b", "c"):
        enrol(store, new_enrolment(name, "s"))
    enrol(store, new_enrolment("d", templates=[new_template("d-0", 0), new_template("d-1", 1)]))
    counts = []
    for encounter_id, status in (
        ("e-a", EncounterStatus.INACTIVE),
        ("e-b", EncounterStatus.INACTIVE),
        ("e-b", EncounterStatus.ACTIVE),
        ("e-a", EncounterStatus.WITHDRAWN),
        ("e-b", EncounterStatus.WITHDRAWN),
        ("e-b", EncounterStatus.WITHDRAWN),
    ):
        with store.writing("camp") as tx:
            tx.set_encounter_status(encounter_id, status)
        counts.append(several(store))
    assert counts == [2, 1, 2, 2, 1, 1]
    with store.writing("camp") as tx:
        tx.erase_subject("s-d")
    assert several(store) == 0
    with store.writing("camp") as tx:
        tx.erase_subject("s")
    assert several(store) == 0


def test_the_references_of_several_subjects_are_those_that_are_searched(store: AnyStore) -> None:
    for name, subject_id in (("a", "s-1"), ("b", "s-2"), ("c", "s-1"), ("d", "s-3"), ("e", "s-2")):
        enrol(store, new_enrolment(name, subject_id))
    with store.writing("camp") as tx:
        tx.set_encounter_status("e-e", EncounterStatus.INACTIVE)
    with store.reading() as tx:
        found = tx.references_of("camp", ["s-2", "s-1", "nobody"])
        assert [each.encounter_id for each in found] == ["e-a", "e-b", "e-c"]
        assert found[0].embedding.tolist() == embedding_of("a").tolist()
        assert tx.references_of("camp", []) == []
        assert tx.references_of("elsewhere", ["s-1"]) == []


def test_the_best_pair_beside_a_fused_score_is_kept(store: AnyStore) -> None:
    candidate = replace(candidate_of(enrol(store, new_enrolment("a"))), pair_score=0.4567)
    answered = enrol(store, new_enrolment("b", candidates=[candidate]))
    assert store.enrolment("camp", answered.enrolment_id).candidates == (candidate,)


@pytest.mark.parametrize("store", SQL_KINDS, indirect=True)
def test_imported_templates_are_counted_alike(store: AnyStore) -> None:
    assert isinstance(store, SqlStore)
    enrol(store, new_enrolment("a"))
    enrol(store, new_enrolment("b", templates=[new_template("b-0", 0), new_template("b-1", 1)]))
    names = [("x", "s-a"), ("y", "s-b"), ("z", "s-z"), ("zz", "s-z"), ("w", "s-w")]
    block = block_of(*(name for name, _ in names))
    named = tuple(replace(each, subject_id=subject) for each, (_, subject) in zip(block.names, names, strict=True))
    store.import_block("camp", source_of(), replace(block, names=named))
    assert several(store) == 3
