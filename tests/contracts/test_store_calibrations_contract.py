"""What every store keeps of the calibrations of a gallery and of its audit trail."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.audit_chain import AuditEvent
from service.decision import DecisionRule
from service.domain import Gallery, ThresholdChange
from service.errors import CalibrationNotFound, GalleryNotFound
from tests.store.building import KINDS, AnyStore, Clock, enrol, new_enrolment, new_gallery, open_store
from tests.synthetic import calibration

OTHER = replace(calibration(), people=1499)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[AnyStore]:
    yield from open_store(request.param, tmp_path, clock)


def change(key: str = "key", size: int = 10) -> ThresholdChange:
    thresholds = DecisionRule(calibration(), 0.1).thresholds(new_gallery(), size)
    return ThresholdChange(key, thresholds, "size")


def changed_to(key: str, size: int = 10) -> Callable[[Gallery], ThresholdChange]:
    return lambda _: change(key, size)


def test_calibrations_come_back_in_the_order_they_came(store: AnyStore, clock: Clock) -> None:
    store.create_gallery(new_gallery("abroad"))
    store.add_calibration("camp", calibration())
    clock.pass_by(hours=1)
    store.add_calibration("camp", OTHER)

    assert [each.calibration for each in store.calibrations("camp")] == [calibration(), OTHER]
    assert store.calibrations("camp")[1].created_at == clock.now
    assert store.calibration("camp", OTHER.calibration_id) == OTHER
    assert store.calibrations("abroad") == []


def test_a_calibration_that_is_there_stays_as_it_came(store: AnyStore, clock: Clock) -> None:
    store.add_calibration("camp", OTHER)
    came = clock.now
    clock.pass_by(hours=1)
    store.add_calibration("camp", OTHER)

    assert [each.created_at for each in store.calibrations("camp")] == [came]
    assert [entry.event for entry in store.audit("camp", None, 10).items] == ["gallery.created", "calibration.added"]


def test_a_gallery_remembers_its_calibration_and_gives_it_up(store: AnyStore) -> None:
    store.add_calibration("camp", OTHER)
    store.update_gallery("camp", lambda each: replace(each, calibration_id=OTHER.calibration_id), changed_to("first"))
    assert store.galleries()[0].calibration_id == OTHER.calibration_id
    assert store.galleries()[0].thresholds_key == "first"

    store.update_gallery("camp", lambda each: replace(each, calibration_id=None), changed_to("second"))

    with store.reading() as reading:
        assert reading.gallery("camp").calibration_id is None
    with store.writing("camp") as writing:
        assert writing.gallery("camp").thresholds_key == "second"


def test_changes_of_thresholds_are_written_with_what_made_them(store: AnyStore, clock: Clock) -> None:
    store.update_gallery("camp", lambda each: replace(each, review_fpir=0.2), changed_to("rates", 20))
    enrol(store, replace(new_enrolment("a"), threshold_change=change("grown", 50)))
    enrol(store, new_enrolment("b"))

    first, second = store.audit("camp", None, 10, AuditEvent.THRESHOLDS_CHANGED).items
    assert (first.event, first.details["reason"], first.created_at) == ("thresholds.changed", "size", clock.now)
    assert [entry.details["stated_comparisons"] for entry in (first, second)] == [20, 51]
    assert second.details["review"] == change("grown", 50).thresholds.review
    assert second.details["calibration_id"] == calibration().calibration_id
    assert store.galleries()[0].thresholds_key == "grown"


def test_an_enrolment_that_fails_leaves_no_entry(store: AnyStore) -> None:
    def fail() -> None:
        with store.writing("camp") as writing:
            writing.insert_enrolment(replace(new_enrolment("a"), threshold_change=change()))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert [each.event for each in store.audit("camp", None, 10).items] == ["gallery.created"]
    assert store.galleries()[0].thresholds_key is None


def test_the_trail_comes_in_pages(store: AnyStore) -> None:
    for number in range(4):  # one more: that the gallery was made
        store.update_gallery("camp", lambda each: each, changed_to(str(number)))

    first = store.audit("camp", None, 2)
    second = store.audit("camp", first.next_after, 2)
    last = store.audit("camp", second.next_after, 2)
    numbers = [entry.seq for page in (first, second, last) for entry in page.items]
    assert len(numbers) == 5
    assert numbers == sorted(numbers)
    assert last.next_after is None


def test_what_is_not_there_is_told(store: AnyStore) -> None:
    with pytest.raises(CalibrationNotFound):
        store.calibration("camp", "none")
    for call in (
        lambda: store.calibrations("nowhere"),
        lambda: store.add_calibration("nowhere", OTHER),
        lambda: store.update_gallery("nowhere", lambda each: each),
        lambda: store.audit("nowhere", None, 10),
    ):
        with pytest.raises(GalleryNotFound):
            call()


def test_the_highest_reference_is_known(store: AnyStore) -> None:
    with store.reading() as reading:
        assert reading.last_reference_id() == 0
    enrol(store, new_enrolment("a"))
    latest = enrol(store, new_enrolment("b"))
    with store.reading() as reading:
        assert reading.last_reference_id() == latest.samples[0].reference_id
