"""Identification: what the index finds, what came after it, and what it must not know."""

from service.domain import OutcomeKind
from tests.fakes import FakeStore
from tests.world import GALLERY, DeafMatcher, World


def test_identify_sees_who_was_enrolled_a_moment_ago() -> None:
    world = World(matcher=DeafMatcher)
    world.enrol(1, subject_id="first")
    world.identify(5)
    world.enrol(2, subject_id="second")
    found = world.identify(2)
    assert [c.subject_id for c in found.decision.candidates] == ["second"]
    assert (found.searched.gallery_size, found.searched.high_water_mark, found.searched.complete) == (2, 2, True)


def test_identify_changes_nothing() -> None:
    world = World()
    world.enrol(1)
    before = world.gallery()
    world.identify(1)
    world.identify(2)
    assert world.gallery() == before


class FailedOverStore(FakeStore):
    """A record that can be put back to an earlier state, as a failover to a replica that lagged does."""

    def snapshot(self) -> None:
        self._saved = {name: records.copy() for name, records in self._galleries.items()}

    def fail_over(self) -> None:
        self._galleries = self._saved


def test_an_index_that_knows_more_than_the_record_hides_nobody() -> None:
    store = FailedOverStore()
    world = World(store)
    world.enrol(1, subject_id="first")
    store.snapshot()
    world.enrol(2, subject_id="lost")
    store.fail_over()
    World.beside(store).enrol(3, subject_id="other")
    store.fail_over()
    assert world.enrol(2, 1, subject_id="anew").outcome is OutcomeKind.UNIQUE
    assert [c.subject_id for c in world.identify(2).decision.candidates] == ["anew"]
    assert world.matcher.state(GALLERY).in_step


def test_identify_notices_an_index_ahead_of_the_record() -> None:
    store = FailedOverStore()
    world = World(store)
    store.snapshot()
    world.enrol(1, subject_id="lost")
    store.fail_over()
    assert world.identify(1).searched.gallery_size == 0
