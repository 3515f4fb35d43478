"""Galleries: made with defaults, tuned, described."""

import pytest

from service.audit_chain import AuditEvent
from service.domain import QualityGate
from service.errors import GalleryExists, GalleryNotFound, InvalidRequest, PackNotLoaded
from service.galleries import GalleryChange
from tests.synthetic import PACK_ID
from tests.world import GALLERY, InterruptedStore, World


@pytest.fixture
def world() -> World:
    return World()


def test_a_new_gallery_gets_the_defaults(world: World) -> None:
    gallery = world.galleries.create("north", GalleryChange()).gallery
    assert (gallery.pack_id, gallery.review_fpir, gallery.duplicate_fpir) == (PACK_ID, 0.01, 0.001)
    assert (gallery.verification_fmr, gallery.keep_samples) == (0.001, False)


def test_a_gallery_has_its_own_thresholds(world: World) -> None:
    world.galleries.create("strict", GalleryChange(review_fpir=0.001, duplicate_fpir=0.0001))
    strict, usual = world.galleries.report("strict").thresholds, world.galleries.report(GALLERY).thresholds
    assert strict.review > usual.review
    assert strict.review_fpir == 0.001


def test_galleries_do_not_see_each_other(world: World) -> None:
    world.galleries.create("north", GalleryChange())
    world.enrol(1)
    assert world.galleries.report("north").counts.subjects == 0
    assert world.galleries.report(GALLERY).counts.subjects == 1


def test_changed_rates_move_the_next_answer_and_leave_the_earlier_ones(world: World) -> None:
    first = world.enrol(1)
    report = world.galleries.update(GALLERY, GalleryChange(review_fpir=0.1, keep_samples=True))
    assert report.gallery.review_fpir == 0.1
    assert report.gallery.keep_samples
    assert report.gallery.duplicate_fpir == 0.001
    assert world.store.enrolment(GALLERY, first.enrolment_id) == first
    second = world.enrol(2)
    assert first.thresholds
    assert second.thresholds
    assert second.thresholds.review < first.thresholds.review


def test_two_changes_at_once_are_both_kept() -> None:
    store = InterruptedStore()
    world = World(store)
    other = GalleryChange(keep_samples=True, review_fpir=0.2, quality_gate=QualityGate.STRICT)
    store.before_writing = lambda: world.galleries.update(GALLERY, other)

    gallery = world.galleries.update(GALLERY, GalleryChange(min_duplicate_age=10)).gallery

    settings = (gallery.keep_samples, gallery.review_fpir, gallery.quality_gate, gallery.min_duplicate_age)
    assert settings == (True, 0.2, QualityGate.STRICT, 10)
    (entry,) = world.store.audit(GALLERY, None, 10, AuditEvent.THRESHOLDS_CHANGED).items
    assert entry.details["review_fpir"] == 0.2


def test_a_rate_is_judged_beside_those_of_the_moment_it_is_written() -> None:
    store = InterruptedStore()
    world = World(store)
    store.before_writing = lambda: world.galleries.update(GALLERY, GalleryChange(review_fpir=0.002))

    with pytest.raises(InvalidRequest, match="must not be above"):
        world.galleries.update(GALLERY, GalleryChange(duplicate_fpir=0.005))

    assert world.gallery().duplicate_fpir == 0.001


def test_a_duplicate_needs_stronger_evidence_than_a_review(world: World) -> None:
    with pytest.raises(InvalidRequest):
        world.galleries.create("north", GalleryChange(review_fpir=0.001, duplicate_fpir=0.01))
    with pytest.raises(GalleryNotFound):
        world.galleries.report("north")


def test_the_pack_of_a_gallery_stays(world: World) -> None:
    with pytest.raises(InvalidRequest):
        world.galleries.update(GALLERY, GalleryChange(pack_id="other"))


def test_mistakes_have_their_own_errors(world: World) -> None:
    with pytest.raises(GalleryExists):
        world.galleries.create(GALLERY, GalleryChange())
    with pytest.raises(PackNotLoaded):
        world.galleries.create("north", GalleryChange(pack_id="other"))
    with pytest.raises(GalleryNotFound):
        world.galleries.update("nowhere", GalleryChange())


def test_a_report_counts_what_the_gallery_holds(world: World) -> None:
    world.enrol(1, subject_id="s")
    world.enrol(1, 1, subject_id="t")
    world.answer(biometric_exception="injury")
    counts = world.galleries.report(GALLERY).counts
    assert (counts.subjects, counts.encounters, counts.templates) == (3, 3, 2)
    assert (counts.biometric_exceptions, counts.open_cases) == (1, 1)
    assert {kind.value: number for kind, number in counts.outcomes} == {
        "UNIQUE": 1,
        "DUPLICATE": 1,
        "NOT_COMPARED": 1,
    }
    assert [report.gallery.gallery_id for report in world.galleries.reports()] == [GALLERY]
