"""Several samples, a quality gate, filters, children, drift: each by one pack at a time while a model changes."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from service.domain import (
    Band,
    CaseKind,
    EncounterFacts,
    EncounterStatus,
    FacePolicy,
    OutcomeKind,
    QualityGate,
    Template,
)
from service.errors import QualityTooLow
from service.packs import Packs
from service.store.sql_store import SqlStore
from tests.migrating import (
    LEASE,
    NEW_MODEL,
    NEW_PACK,
    OLD_BLIND,
    UNSEEN,
    make_all,
    migrations_of,
    two_packs,
    work,
    world_of,
)
from tests.store.building import KINDS, open_store
from tests.synthetic import PACK_ID, PersonEmbedder, _unit, sample_of
from tests.together import SPREAD, found_only_together, probes_of
from tests.world import GALLERY, World

OTHERS = range(1, 60)


def stores(kind: str, folder: Path, packs: Packs | None = None) -> Iterator[World]:
    for store in open_store(kind, folder, lambda: LEASE.until.replace(second=0)):
        if isinstance(store, SqlStore):
            with store._write_transaction() as connection:
                connection.exec_driver_sql("DELETE FROM galleries")
        else:
            store._galleries = {}
        yield World(store, keep_samples=True, packs=packs or two_packs())


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    yield from stores(request.param, tmp_path)


def without_samples(world: World, *samples: bytes, subject_id: str) -> None:
    world.store.update_gallery(GALLERY, lambda each: replace(each, keep_samples=False))
    for sample in samples:
        world.answer(sample, subject_id=subject_id)
    world.store.update_gallery(GALLERY, lambda each: replace(each, keep_samples=True))


def several(world: World) -> int:
    return world.gallery().several_count


def test_who_has_several_samples_is_counted_alike_whichever_pack_rules(world: World) -> None:
    world.answer(sample_of(1), sample_of(1, 1), subject_id="S1")
    without_samples(world, sample_of(2), subject_id="S2")
    world.enrol(2, 1, subject_id="S2")
    world.enrol(3, subject_id="S3")
    assert several(world) == 2
    migrations = make_all(world)
    assert several(world) == 2
    world.answer(sample_of(4), sample_of(4, 1), subject_id="S4")
    world.answer(sample_of(UNSEEN), sample_of(UNSEEN, 1), subject_id="unseen")
    assert several(world) == 4
    migrations.cut_over(GALLERY, 1)
    assert several(world) == 4
    migrations.back(GALLERY)
    assert several(world) == 4
    migrations.cut_over(GALLERY, 1)
    world.erasure.erase_subject(GALLERY, "unseen")
    assert several(world) == 3

    migrations.finish(GALLERY)

    assert several(world) == 2  # S2 has one template of the pack that is left
    work(world)
    assert several(world) == 2
    world.erasure.erase_subject(GALLERY, "S1")
    world.enrol(2, 2, subject_id="S2")
    assert several(world) == 2


def test_templates_of_two_packs_are_never_fused(world: World) -> None:
    for person in range(6):
        world.answer(sample_of(person), sample_of(person, 1), subject_id=f"S{person}")
    fresh = World(packs=two_packs())
    fresh.store._galleries[GALLERY].gallery = replace(fresh.gallery(), pack_id=NEW_PACK)  # type: ignore[attr-defined]  # of the fake
    for person in range(6):
        fresh.answer(sample_of(person), sample_of(person, 1), subject_id=f"S{person}")
    before = [world.identify(person).decision for person in range(7)]
    migrations = make_all(world)
    assert [world.identify(person).decision for person in range(7)] == before
    migrations.cut_over(GALLERY)
    for person in range(7):
        here, there = (each.identify(person, OLD_BLIND).decision for each in (world, fresh))
        assert here.thresholds == there.thresholds
        shown = [[(c.subject_id, c.score, c.pair_score) for c in each.candidates] for each in (here, there)]
        assert shown[0] == shown[1]
        assert len(shown[0]) == (person < 6)
    together = world.answer(sample_of(3, 5), sample_of(3, 6)).enrolment
    assert [(each.subject_id, each.pack_id) for each in together.candidates] == [("S3", None)]
    migrations.back(GALLERY)
    assert [each.subject_id for each in world.identify(4).decision.candidates] == ["S4"]


def loose_old_pack() -> Packs:
    packs = two_packs()
    packs._packs[PACK_ID] = replace(packs.of(PACK_ID), embedder=PersonEmbedder(SPREAD))
    return packs


@pytest.mark.parametrize("kind", KINDS[:2])
def test_whom_only_the_old_pack_knows_is_found_by_several_templates_together(kind: str, tmp_path: Path) -> None:
    for world in stores(kind, tmp_path, loose_old_pack()):
        for person in OTHERS:
            world.enrol(person)
        first, second, probe = found_only_together(len(OTHERS))
        without_samples(world, first, second, subject_id="S")
        make_all(world).cut_over(GALLERY, 1)

        found = world.identification.identify(GALLERY, probe).decision
        answer = world.answer(probe).enrolment

        for candidate in (*found.candidates, *answer.candidates):
            assert (candidate.subject_id, candidate.pack_id) == ("S", PACK_ID)
            assert candidate.pair_score is not None
            assert candidate.pair_score < found.thresholds.review < candidate.score
        assert len(found.candidates) == len(answer.candidates) == 1
        assert answer.outcome is OutcomeKind.REVIEW
        assert world.store.enrolment(GALLERY, answer.enrolment_id) == answer
        # each template once, and the subject once more: by whichever pack it has several of
        assert found.thresholds.comparisons == len(OTHERS) + 2 + 1 + 1
        report = world.galleries.report(GALLERY)
        assert report.thresholds.comparisons == (len(OTHERS) + 1) + 2 + 1 + 1


class LooseNewEmbedder(PersonEmbedder):
    """The new pack, to which captures of one person are hardly alike."""

    pack_id = NEW_PACK
    model_id = NEW_MODEL

    def extract(self, data: bytes, policy: FacePolicy) -> Template:
        return replace(super().extract(data, policy), pack_id=NEW_PACK)


class EstrangedEmbedder(PersonEmbedder):
    """The old pack, that takes one photograph for a stranger's."""

    def __init__(self, strange: bytes) -> None:
        super().__init__()
        self._strange = strange

    def extract(self, data: bytes, policy: FacePolicy) -> Template:
        template = super().extract(data, policy)
        if data != self._strange:
            return template
        return replace(template, embedding=_unit(np.random.default_rng(8).normal(size=self.dimension)))


@pytest.mark.parametrize("kind", KINDS[:2])
def test_what_the_standby_pack_finds_by_several_together_becomes_a_case(kind: str, tmp_path: Path) -> None:
    first, second, probe = found_only_together(len(OTHERS) + 2)
    packs = two_packs()
    packs._packs[PACK_ID] = replace(packs.of(PACK_ID), embedder=EstrangedEmbedder(probe))
    packs._packs[NEW_PACK] = replace(packs.of(NEW_PACK), embedder=LooseNewEmbedder(SPREAD))
    for world in stores(kind, tmp_path, packs):
        make_all(world)
        for person in OTHERS:
            world.enrol(person)
        for sample in (first, second):
            world.answer(sample, subject_id="S")

        answer = world.answer(probe, subject_id="probe").enrolment

        assert (answer.outcome, answer.candidates) == (OutcomeKind.UNIQUE, ())
        found = [case for case in world.store.cases(GALLERY, None, 100).items if case.subject_id == "probe"]
        assert [case.kind for case in found] == [CaseKind.MIGRATION]
        candidate = found[0].candidate
        assert candidate is not None
        assert (candidate.subject_id, candidate.pack_id) == ("S", NEW_PACK)
        assert candidate.pair_score is not None
        assert candidate.pair_score < candidate.score


def test_what_the_gate_refuses_gets_no_template_of_either_pack(world: World) -> None:
    make_all(world)
    world.store.update_gallery(GALLERY, lambda each: replace(each, quality_gate=QualityGate.STRICT))
    world.answer(sample_of(1), sample_of(1, 1, "blurred"), subject_id="S1")
    with pytest.raises(QualityTooLow):
        world.answer(sample_of(2, 0, "blurred"))
    gallery = world.gallery()
    assert (gallery.template_count, gallery.standby_template_count, gallery.paired_count) == (1, 1, 1)
    world.answer(sample_of(3, 0, "blurred"), waive_quality_gate=True)
    assert world.gallery().paired_count == 2


def test_nobody_is_refused_by_a_pack_that_rules_no_more() -> None:
    world = world_of()
    world.enrol(1)
    migrations = make_all(world)
    migrations.cut_over(GALLERY)
    world.enrol(2)  # what the service remembers of the gallery is of now
    migrations.back(GALLERY)
    assert world.enrol(UNSEEN).outcome is OutcomeKind.UNIQUE


def test_drift_is_measured_by_the_pack_that_rules() -> None:
    world = world_of()
    for person in range(30):
        world.enrol(person)
    migrations = make_all(world)
    world.accuracy.refresh(world.gallery())
    sample = world.matcher.samples.of(GALLERY)
    assert sample is not None
    assert (len(sample), sample.calibration.pack_id) == (30, PACK_ID)
    migrations.cut_over(GALLERY)
    world.enrol(40)  # compared with nobody: the sample is of the other pack still
    world.accuracy.refresh(world.gallery())
    sample = world.matcher.samples.of(GALLERY)
    assert sample is not None
    assert (len(sample), sample.calibration.pack_id, sample.embeddings.shape) == (31, NEW_PACK, (31, 256))
    assert world.metrics.impostor_probes.labels(gallery=GALLERY)._value.get() == 0
    migrations.back(GALLERY)
    migrations_of(world).cancel(GALLERY)
    work(world)
    assert world.matcher.samples.of(GALLERY) is None  # nothing of a pack that was given up stays in memory


def known_as(sex: str, year: int, captured: int = 2025) -> EncounterFacts:
    return EncounterFacts(sex=sex, birth_year=year, captured_at=datetime(captured, 1, 1, tzinfo=UTC))


def left_out(world: World) -> int:
    with world.store.reading() as reading:
        return reading.left_out(GALLERY, Band("female", None))


def test_samples_are_counted_once_by_what_is_known_of_them_whichever_pack_rules(world: World) -> None:
    world.answer(sample_of(1), sample_of(1, 1), subject_id="S1", facts=known_as("male", 1980))
    world.store.update_gallery(GALLERY, lambda each: replace(each, keep_samples=False))
    world.enrol(2, subject_id="S2", encounter_id="E2", facts=known_as("male", 1981))
    world.store.update_gallery(GALLERY, lambda each: replace(each, keep_samples=True))
    world.enrol(2, 1, subject_id="S2", facts=known_as("male", 1981))
    world.enrol(3, subject_id="S3", encounter_id="E3", facts=known_as("female", 1981))
    assert left_out(world) == 4
    migrations = make_all(world)
    world.enrol(4, subject_id="S4", encounter_id="E4", facts=known_as("male", 1990))
    assert left_out(world) == 5
    for status, count in ((EncounterStatus.INACTIVE, 4), (EncounterStatus.ACTIVE, 5)):
        world.erasure.set_encounter_status(GALLERY, "E4", status)
        assert left_out(world) == count
    migrations.cut_over(GALLERY)
    assert left_out(world) == 5
    world.erasure.erase_subject(GALLERY, "S1")
    assert left_out(world) == 3
    migrations.finish(GALLERY)
    assert left_out(world) == 2  # the sample of S2 that only the old pack knew is lost
    work(world)
    world.erasure.erase_subject(GALLERY, "S2")
    assert left_out(world) == 1
    world.erasure.erase_subject(GALLERY, "S4")
    assert left_out(world) == 0


def test_a_child_whom_only_the_old_pack_knows_is_no_duplicate(world: World) -> None:
    world.store.update_gallery(GALLERY, lambda each: replace(each, keep_samples=False))
    world.enrol(1, subject_id="child", facts=known_as("female", 2015))
    world.enrol(2, subject_id="grown-up", facts=known_as("female", 1980))
    world.store.update_gallery(GALLERY, lambda each: replace(each, keep_samples=True))
    make_all(world).cut_over(GALLERY, 2)
    child, grown_up = (world.enrol(person, 1, facts=known_as("female", 1980)) for person in (1, 2))
    assert [(each.subject_id, each.pack_id, each.age_at_capture) for each in child.candidates] == [
        ("child", PACK_ID, 10)
    ]
    assert (child.outcome, grown_up.outcome) == (OutcomeKind.REVIEW, OutcomeKind.DUPLICATE)


def test_a_filter_lowers_the_threshold_of_both_packs_for_all_who_are_searched() -> None:
    world = World(keep_samples=True, packs=loose_old_pack())
    for person in OTHERS:
        world.enrol(person, facts=known_as("male", 1980))
    world.store.update_gallery(GALLERY, lambda each: replace(each, keep_samples=False))
    world.enrol(70, subject_id="S", facts=known_as("female", 1980))
    world.store.update_gallery(GALLERY, lambda each: replace(each, keep_samples=True, filter_by_sex=True))
    make_all(world).cut_over(GALLERY, 1)
    calibration = world.packs.of(PACK_ID).rule.calibration
    low, high = calibration.threshold(0.01 / 2), calibration.threshold(0.01 / 60)
    reference = probes_of(sample_of(70))[0]
    capture = next(n for n in range(1, 500) if low < float(probes_of(sample_of(70, n))[0] @ reference) < high - 0.05)
    probe = sample_of(70, capture)

    inside = world.answer(probe, facts=known_as("female", 1980)).enrolment
    outside = world.answer(probe, facts=known_as("male", 1980)).enrolment

    assert inside.searched is not None
    assert inside.searched.filter is not None
    assert (inside.searched.gallery_size, inside.searched.filter.left_out) == (60, 59)
    assert [(each.subject_id, each.pack_id) for each in inside.candidates] == [("S", PACK_ID)]
    assert "S" not in [each.subject_id for each in outside.candidates]
