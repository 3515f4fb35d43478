"""What every store keeps: listings, single records, counts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.domain import CaseKind, EncounterStatus, GalleryCounts, OutcomeKind, Page
from service.errors import (
    BiodedupError,
    CaseNotFound,
    EncounterNotFound,
    EnrolmentNotFound,
    GalleryNotFound,
    InvalidRequest,
    SubjectNotFound,
)
from tests.store.building import KINDS, AnyStore, Clock, candidate_of, enrol, new_enrolment, new_gallery, open_store

LISTINGS: dict[str, Callable[[AnyStore, str, str | None, int], Page[Any]]] = {
    "subjects": lambda store, gallery_id, after, limit: store.subjects(gallery_id, after, limit),
    "encounters": lambda store, gallery_id, after, limit: store.encounters(gallery_id, None, after, limit),
    "enrolments": lambda store, gallery_id, after, limit: store.enrolments(gallery_id, after, limit),
    "cases": lambda store, gallery_id, after, limit: store.cases(gallery_id, after, limit),
}
SINGLES: dict[type[BiodedupError], Callable[[AnyStore, str], object]] = {
    SubjectNotFound: lambda store, gallery_id: store.subject(gallery_id, "none"),
    EncounterNotFound: lambda store, gallery_id: store.encounter(gallery_id, "none"),
    EnrolmentNotFound: lambda store, gallery_id: store.enrolment(gallery_id, "none"),
    CaseNotFound: lambda store, gallery_id: store.case(gallery_id, 10**30),
}


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyStore]:
    yield from open_store(request.param, tmp_path, Clock())


def _fill(store: AnyStore) -> None:
    """Five enrolments with a case each, in no order of their ids, and one in another gallery."""
    store.create_gallery(new_gallery("abroad"))
    first = enrol(store, new_enrolment("m"))
    for name in ("Z", "é", "b", "a"):
        enrol(store, new_enrolment(name, candidates=[candidate_of(first)], cases=[CaseKind.DUPLICATE]))
    enrol(store, new_enrolment("m", cases=[CaseKind.CONTINUITY]), "abroad")


def _walk(store: AnyStore, listing: str, limit: int) -> list[list[object]]:
    pages, after = [], None
    while True:
        page = LISTINGS[listing](store, "camp", after, limit)
        pages.append(list(page.items))
        after = page.next_after
        if after is None:
            return pages


@pytest.mark.parametrize(("listing", "count"), [("subjects", 5), ("encounters", 5), ("enrolments", 5), ("cases", 4)])
def test_pages_follow_one_another_without_loss_or_repeat(store: AnyStore, listing: str, count: int) -> None:
    _fill(store)

    whole = _walk(store, listing, 100)

    assert [len(page) for page in whole] == [count]
    for limit in (1, 2, 4, 5):
        pages = _walk(store, listing, limit)
        assert [item for page in pages for item in page] == whole[0]
        assert len(pages) == -(-count // limit)


def test_subjects_are_listed_by_code_point_and_the_rest_by_creation(store: AnyStore) -> None:
    _fill(store)

    assert [each.subject_id for each in store.subjects("camp", None, 9).items] == ["s-Z", "s-a", "s-b", "s-m", "s-é"]
    order = ["m", "Z", "é", "b", "a"]
    assert [each.encounter_id for each in store.encounters("camp", None, None, 9).items] == [f"e-{n}" for n in order]
    assert [each.enrolment_id for each in store.enrolments("camp", None, 9).items] == [f"n-{n}" for n in order]
    assert [each.encounter_id for each in store.cases("camp", None, 9).items] == [f"e-{n}" for n in order[1:]]


def test_a_listed_record_equals_the_single_one(store: AnyStore) -> None:
    _fill(store)

    for subject in store.subjects("camp", None, 9).items:
        assert store.subject("camp", subject.subject_id) == subject
    for encounter in store.encounters("camp", None, None, 9).items:
        assert store.encounter("camp", encounter.encounter_id) == encounter
    for enrolment in store.enrolments("camp", None, 9).items:
        assert store.enrolment("camp", enrolment.enrolment_id) == enrolment
        assert [store.case("camp", each).enrolment_id for each in enrolment.case_ids] == [
            enrolment.enrolment_id for _ in enrolment.case_ids
        ]


def test_the_encounters_of_a_subject_come_in_the_order_of_enrolment(store: AnyStore) -> None:
    for name in ("2", "1", "3"):
        enrol(store, new_enrolment(name, "s-a"))
    enrol(store, new_enrolment("other"))

    assert store.subject("camp", "s-a").encounter_ids == ("e-2", "e-1", "e-3")
    first = store.encounters("camp", "s-a", None, 2)
    second = store.encounters("camp", "s-a", first.next_after, 2)
    assert [each.encounter_id for each in (*first.items, *second.items)] == ["e-2", "e-1", "e-3"]
    assert second.next_after is None


@pytest.mark.parametrize("listing", ["encounters", "enrolments", "cases"])
@pytest.mark.parametrize("cursor", ["", "x", "-1", "1.5", "٣", "9" * 19, "9" * 60])
def test_a_cursor_that_no_listing_gave_is_refused(store: AnyStore, listing: str, cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        LISTINGS[listing](store, "camp", cursor, 10)


@pytest.mark.parametrize("listing", list(LISTINGS))
def test_an_empty_gallery_has_one_empty_page_and_an_unknown_one_has_none(store: AnyStore, listing: str) -> None:
    assert LISTINGS[listing](store, "camp", None, 10) == Page((), None)
    with pytest.raises(GalleryNotFound):
        LISTINGS[listing](store, "nowhere", None, 10)


@pytest.mark.parametrize("missing", list(SINGLES))
def test_what_is_not_there_is_not_found(store: AnyStore, missing: type[BiodedupError]) -> None:
    with pytest.raises(missing):
        SINGLES[missing](store, "camp")
    with pytest.raises(GalleryNotFound):
        SINGLES[missing](store, "nowhere")


def test_a_record_of_another_gallery_is_not_found(store: AnyStore) -> None:
    case_id = enrol(store, new_enrolment("a", cases=[CaseKind.CONTINUITY])).case_ids[0]
    store.create_gallery(new_gallery("abroad"))

    with pytest.raises(SubjectNotFound):
        store.subject("abroad", "s-a")
    with pytest.raises(CaseNotFound):
        store.case("abroad", case_id)


def test_counts_say_what_the_gallery_holds_now(store: AnyStore) -> None:
    _fill(store)
    enrol(store, new_enrolment("none", templates=[], biometric_exception="injury"))
    with store.writing("camp") as tx:
        tx.set_encounter_status("e-b", EncounterStatus.INACTIVE)
    with store.writing("camp") as tx:
        tx.erase_subject("s-a")

    assert store.gallery_counts("camp") == GalleryCounts(
        subjects=5,
        encounters=5,
        templates=3,
        biometric_exceptions=1,
        open_cases=3,
        outcomes=((OutcomeKind.REVIEW, 3), (OutcomeKind.UNIQUE, 2)),
    )
    assert (store.open_case_count("camp"), store.open_case_count("nowhere")) == (3, 0)
    with pytest.raises(GalleryNotFound):
        store.gallery_counts("nowhere")


def test_the_model_of_a_gallery_is_that_of_its_first_template(store: AnyStore) -> None:
    store.create_gallery(new_gallery("abroad"))
    enrol(store, new_enrolment("a"))
    enrol(store, new_enrolment("b"))

    models = {gallery.gallery_id: gallery.model_id for gallery in store.galleries()}
    [template] = store.encounter("camp", "e-a").templates
    assert models == {"abroad": None, "camp": template.model_id}
