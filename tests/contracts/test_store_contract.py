"""What every store keeps: transactions, the change log, erasure, repeated requests."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from service.domain import (
    AttackFinding,
    CaseKind,
    CaseStatus,
    EncounterFacts,
    Gallery,
    NewEnrolment,
    PresentationAttack,
    SampleFinding,
)
from service.errors import (
    CalibrationUnfit,
    EncounterExists,
    EnrolmentNotFound,
    GalleryExists,
    GalleryNotFound,
    SubjectNotFound,
)
from service.ports import Store
from tests.store.building import (
    BOX,
    FACTS,
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


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[AnyStore]:
    yield from open_store(request.param, tmp_path, clock)


def test_a_store_fulfils_the_port(store: AnyStore) -> None:
    port: Store = store

    assert port.galleries() == port.galleries()


def test_a_renewed_timeline_has_another_id(store: AnyStore) -> None:
    before = [gallery.timeline_id for gallery in store.galleries()]

    store.renew_timelines()

    after = [gallery.timeline_id for gallery in store.galleries()]
    assert len(before) == len(after) > 0
    assert set(before).isdisjoint(after)
    with store.reading() as reading:
        assert reading.gallery("camp").timeline_id in after
    with store.writing("camp") as writing:
        assert writing.gallery("camp").timeline_id in after


def test_a_gallery_comes_back_as_it_was_created(store: AnyStore) -> None:
    created = store.create_gallery(new_gallery("abroad", review_fpir=0.05))

    with store.reading() as tx:
        assert tx.gallery("abroad") == created
    wanted = [new_gallery("abroad", review_fpir=0.05), new_gallery("camp")]
    assert [replace(gallery, timeline_id="") for gallery in store.galleries()] == wanted
    assert created.created_at.tzinfo == UTC


def test_a_gallery_name_is_taken_once(store: AnyStore) -> None:
    with pytest.raises(GalleryExists):
        store.create_gallery(new_gallery("camp"))


def test_updating_a_gallery_changes_its_settings_and_not_its_counters(store: AnyStore) -> None:
    enrol(store, new_enrolment("a"))

    wanted = replace(new_gallery("camp", review_fpir=0.2), keep_samples=False, pack_id="other")
    updated = store.update_gallery("camp", lambda _: wanted)

    assert (updated.review_fpir, updated.keep_samples) == (0.2, False)
    assert (updated.pack_id, updated.last_seq, updated.template_count) == ("opencv-zoo", 1, 1)
    assert store.galleries() == [updated]


def test_two_updates_at_once_lose_nothing(store: AnyStore) -> None:
    other = Thread(target=lambda: store.update_gallery("camp", lambda each: replace(each, review_fpir=0.2)))

    def overtaken(gallery: Gallery) -> Gallery:
        other.start()
        other.join(timeout=0.2)  # it waits for the lock
        return replace(gallery, keep_samples=False)

    store.update_gallery("camp", overtaken)
    other.join()

    (gallery,) = store.galleries()
    assert (gallery.review_fpir, gallery.keep_samples) == (0.2, False)


def test_an_update_that_is_refused_changes_nothing(store: AnyStore) -> None:
    def refuse(gallery: Gallery) -> Gallery:
        raise CalibrationUnfit(f"{gallery.gallery_id} holds other templates")

    with pytest.raises(CalibrationUnfit, match="camp holds"):
        store.update_gallery("camp", refuse)

    assert store.update_gallery("camp", lambda each: each).review_fpir == 0.01


def test_an_unknown_gallery_is_not_found(store: AnyStore) -> None:
    with pytest.raises(GalleryNotFound), store.writing("nowhere"):
        pass
    with pytest.raises(GalleryNotFound), store.reading() as tx:
        tx.gallery("nowhere")
    with pytest.raises(GalleryNotFound):
        store.update_gallery("nowhere", lambda each: each)
    with pytest.raises(GalleryNotFound):
        store.remember_rejection("nowhere", "key", "digest", "no_face", "no face")


SUSPECTED = PresentationAttack(None, AttackFinding.ATTACK, 0.25, 0.8)


def _full_enrolment(store: AnyStore) -> NewEnrolment:
    earlier = [enrol(store, new_enrolment(f"earlier-{number}")) for number in range(2)]
    return new_enrolment(
        "full",
        templates=[new_template("full-2", 2, b"image"), new_template("full-0", 0)],
        candidates=[candidate_of(earlier[1], rank=2), candidate_of(earlier[0], rank=1)],
        cases=[CaseKind.DUPLICATE, CaseKind.CONTINUITY],
        facts=FACTS,
        rejected=[SampleFinding(1, None, "quality_too_low", QUALITY, BOX, SUSPECTED)],
    )


def test_an_enrolment_is_read_as_it_was_answered(store: AnyStore) -> None:
    answered = enrol(store, _full_enrolment(store))

    assert store.enrolment("camp", "n-full") == answered
    assert [each.position for each in answered.samples] == [0, 1, 2]
    assert [each.rank for each in answered.candidates] == [1, 2]
    assert len(answered.case_ids) == 2
    assert (answered.seq, answered.created_at) == (3, START)


def test_an_enrolment_that_compared_nothing_is_read_as_it_was_answered(store: AnyStore) -> None:
    bare = replace(
        new_enrolment("bare", templates=[], biometric_exception="injury"),
        thresholds=None, searched=None, continuity=None, warnings=(),
    )  # fmt: skip
    answered = enrol(store, bare)

    assert store.enrolment("camp", "n-bare") == answered
    assert (answered.thresholds, answered.searched, answered.continuity) == (None, None, None)
    assert answered.biometric_exception == "injury"


def test_an_encounter_keeps_its_facts_and_the_facts_of_its_templates(store: AnyStore) -> None:
    answered = enrol(store, _full_enrolment(store))

    encounter = store.encounter("camp", "e-full")

    assert encounter.facts == FACTS
    assert encounter.has_samples
    assert [each.position for each in encounter.templates] == [0, 2]
    assert {each.reference_id for each in encounter.templates} == {answered.samples[0].reference_id,
                                                                   answered.samples[2].reference_id}  # fmt: skip
    assert encounter.templates[0].quality == QUALITY
    assert encounter.templates[0].box == BOX


def test_moments_of_another_zone_come_back_as_the_same_moment_in_utc(store: AnyStore) -> None:
    local = datetime(2026, 1, 5, 1, 30, tzinfo=timezone(timedelta(hours=3)))
    enrol(store, new_enrolment("a", facts=EncounterFacts(captured_at=local)))

    captured_at = store.encounter("camp", "e-a").facts.captured_at

    assert captured_at == local
    assert captured_at is not None
    assert captured_at.utcoffset() == timedelta(0)


def test_every_enrolment_takes_the_next_number_and_its_templates_enter_the_change_log(store: AnyStore) -> None:
    first, second = (enrol(store, new_enrolment(name)) for name in "ab")
    enrol(store, new_enrolment("c", templates=[], biometric_exception="injury"))

    with store.reading() as tx:
        changes = tx.changes_after("camp", 0, 10)
        later = tx.changes_after("camp", 1, 1)
        gallery = tx.gallery("camp")
    assert [each.seq for each in changes] == [1, 2, 3]
    assert [[number for number, _ in each.added] for each in changes] == [
        [first.samples[0].reference_id],
        [second.samples[0].reference_id],
        [],
    ]
    np.testing.assert_array_equal(changes[0].added[0][1], embedding_of("a"))
    assert changes[0].added[0][1].dtype == np.float32
    assert [each.seq for each in later] == [2]
    assert (gallery.last_seq, gallery.template_count) == (3, 2)


def test_galleries_count_their_changes_apart(store: AnyStore) -> None:
    store.create_gallery(new_gallery("abroad"))
    enrol(store, new_enrolment("a"))

    assert enrol(store, new_enrolment("b"), "abroad").seq == 1
    with store.reading() as tx:
        assert len(tx.changes_after("abroad", 0, 10)) == 1
        assert tx.subject_references("abroad", "s-a") == []


def test_a_transaction_that_fails_leaves_nothing_and_no_gap(store: AnyStore) -> None:
    with pytest.raises(ZeroDivisionError), store.writing("camp") as tx:  # noqa: PT012
        tx.insert_enrolment(new_enrolment("lost", key="key"))
        raise ZeroDivisionError

    assert enrol(store, new_enrolment("kept", key="key")).seq == 1
    with pytest.raises(SubjectNotFound):
        store.subject("camp", "s-lost")


def test_a_transaction_without_a_change_uses_no_number(store: AnyStore) -> None:
    with store.writing("camp") as tx:
        assert tx.seq == 1

    assert enrol(store, new_enrolment("a")).seq == 1


def test_a_transaction_makes_one_change(store: AnyStore) -> None:
    with pytest.raises(RuntimeError, match="one change"), store.writing("camp") as tx:  # noqa: PT012
        tx.insert_enrolment(new_enrolment("a"))
        tx.insert_enrolment(replace(new_enrolment("b"), templates=()))


def test_a_writer_reads_the_gallery_as_it_was_when_it_took_the_lock(store: AnyStore) -> None:
    enrol(store, new_enrolment("a"))

    with store.writing("camp") as tx:
        assert tx.gallery("camp").last_seq == 1
        assert tx.seq == 2


def test_an_encounter_is_enrolled_once(store: AnyStore) -> None:
    enrol(store, new_enrolment("a"))

    with pytest.raises(EncounterExists):
        enrol(store, replace(new_enrolment("a"), enrolment_id="n-other", subject_id="s-other"))
    with pytest.raises(SubjectNotFound):
        store.subject("camp", "s-other")


def test_references_are_found_by_number_and_by_subject(store: AnyStore) -> None:
    first = enrol(store, new_enrolment("a1", "s-a", templates=[replace(new_template("a1"), verifies=False)]))
    second = enrol(store, new_enrolment("a2", "s-a"))
    ids = [first.samples[0].reference_id or 0, second.samples[0].reference_id or 0]

    with store.reading() as tx:
        found = tx.references("camp", [*ids, 10**9, *range(10**6, 10**6 + 70_000)])
        of_subject = tx.subject_references("camp", "s-a")
    assert sorted(found) == ids
    assert [each.reference_id for each in of_subject] == ids
    assert [each.verifies for each in of_subject] == [False, True]
    assert (found[ids[1]].subject_id, found[ids[1]].encounter_id) == ("s-a", "e-a2")
    np.testing.assert_array_equal(found[ids[1]].embedding, embedding_of("a2"))


def test_thousands_of_changes_are_read_at_once(store: AnyStore) -> None:
    many = [new_template(f"many-{number}", number) for number in range(2000)]
    enrol(store, new_enrolment("many", templates=many))

    with store.reading() as tx:
        assert len(tx.changes_after("camp", 0, 10)[0].added) == 2000


def test_erasing_a_subject_takes_its_templates_out_of_the_log_and_the_counts(store: AnyStore) -> None:
    first = enrol(store, new_enrolment("a1", "s-a", templates=[new_template("a1", 0, b"image")]))
    second = enrol(store, new_enrolment("a2", "s-a"))
    enrol(store, new_enrolment("b"))

    with store.writing("camp") as tx:
        erasure = tx.erase_subject("s-a")

    assert (erasure.encounters, erasure.templates, erasure.samples, erasure.seq) == (2, 2, 1, 4)
    with store.reading() as tx:
        changes = tx.changes_after("camp", 0, 10)
        assert tx.gallery("camp").template_count == 1
    assert [len(each.added) for each in changes] == [0, 0, 1, 0]
    assert changes[3].removed == (first.samples[0].reference_id, second.samples[0].reference_id)
    with pytest.raises(SubjectNotFound):
        store.subject("camp", "s-a")
    with pytest.raises(EnrolmentNotFound):
        store.enrolment("camp", "n-a1")


def test_an_erased_subject_leaves_scores_without_names_in_the_findings_of_others(store: AnyStore) -> None:
    erased = enrol(store, new_enrolment("erased"))
    kept = enrol(store, new_enrolment("kept"))
    both = [candidate_of(erased, 1), candidate_of(kept, 2)]
    partly = enrol(store, new_enrolment("partly", candidates=both, cases=[CaseKind.DUPLICATE]))
    kinds = [CaseKind.DUPLICATE, CaseKind.CONTINUITY]
    wholly = enrol(store, new_enrolment("wholly", candidates=both[:1], cases=kinds))

    with store.writing("camp") as tx:
        tx.erase_subject("s-erased")

    first, second = store.enrolment("camp", "n-partly").candidates
    assert (first.subject_id, first.encounter_id, first.reference_id) == (None, None, None)
    assert first.score == both[0].score
    assert second == both[1]
    assert store.case("camp", partly.case_ids[0]).status is CaseStatus.OPEN
    assert store.case("camp", wholly.case_ids[0]).status is CaseStatus.VOID
    assert store.case("camp", wholly.case_ids[1]).status is CaseStatus.OPEN


def test_a_case_opened_for_an_erased_subject_goes_with_it(store: AnyStore) -> None:
    kept = enrol(store, new_enrolment("kept"))
    enrol(store, new_enrolment("erased", candidates=[candidate_of(kept)], cases=[CaseKind.DUPLICATE]))

    with store.writing("camp") as tx:
        tx.erase_subject("s-erased")

    assert store.cases("camp", None, 10).items == ()


def test_an_unknown_subject_cannot_be_erased(store: AnyStore) -> None:
    with pytest.raises(SubjectNotFound), store.writing("camp") as tx:
        tx.erase_subject("s-nobody")

    assert enrol(store, new_enrolment("a")).seq == 1


def test_the_number_of_an_erased_reference_is_never_used_again(store: AnyStore) -> None:
    erased = enrol(store, new_enrolment("a"))
    with store.writing("camp") as tx:
        tx.erase_subject("s-a")

    again = enrol(store, new_enrolment("a"))

    assert (again.samples[0].reference_id or 0) > (erased.samples[0].reference_id or 0)
