"""The random part of a gallery that enrolments are compared with: fair, without the subject, and without who left."""

from pathlib import Path

import numpy as np
import pytest

from service.domain import Embeddings, EncounterStatus, Reference
from service.impostor_sample import LEVELS, SAMPLE_SIZE, ImpostorSample, draw
from service.store.sql_store import SqlStore
from tests.synthetic import calibration
from tests.world import GALLERY, World


def rows(count: int, dimension: int = 32) -> Embeddings:
    found = np.random.default_rng(1).normal(size=(count, dimension))
    unit: Embeddings = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return unit


def references(count: int, *, subjects: int | None = None) -> list[Reference]:
    each = subjects or count
    return [Reference(n + 1, f"S{n % each}", f"E{n}", row, verifies=True) for n, row in enumerate(rows(count))]


def sample(found: list[Reference]) -> ImpostorSample:
    return ImpostorSample.of(World().gallery(), calibration(), found, drawn_at=0.0)


def subjects_of(world: World) -> set[str]:
    found = world.matcher.samples.of(GALLERY)
    assert found is not None
    return set(found.rows)


def test_scores_are_counted_at_the_levels_of_the_calibration() -> None:
    found, probe = references(200), rows(201)[200]
    scores = np.stack([each.embedding for each in found]) @ probe
    comparisons, counts = sample(found).exceedances(probe, "somebody else")
    assert comparisons == 200
    assert counts == tuple(int((scores >= calibration().threshold(level)).sum()) for level in LEVELS)
    assert counts[0] > counts[1] > 0


def test_the_claim_is_what_the_calibration_says_of_the_thresholds() -> None:
    assert sample(references(3)).claimed == pytest.approx(LEVELS, rel=1e-3)


def test_the_subject_is_not_compared_with_itself() -> None:
    found = sample(references(10))
    probe = found.embeddings[4]
    assert found.exceedances(probe, "S4") == (9, found.without(frozenset({5})).exceedances(probe, "S4")[1])
    assert found.exceedances(probe, "newcomer")[1][-1] == found.exceedances(probe, "S4")[1][-1] + 1


def test_a_subject_counts_once_however_many_references_it_has() -> None:
    found = sample(references(10, subjects=4))
    assert sorted(found.rows) == ["S0", "S1", "S2", "S3"]
    assert sorted(found.reference_ids) == [1, 2, 3, 4]


def test_who_is_taken_out_is_gone_and_the_others_keep_their_scores() -> None:
    found = sample(references(6))
    left = found.without(frozenset({2, 5, 99}))
    assert left.reference_ids == (1, 3, 4, 6)
    for subject_id, row in left.rows.items():
        assert np.array_equal(left.embeddings[row], found.embeddings[found.rows[subject_id]])
    assert len(found) == 6
    assert found.without(frozenset({99})) is found


def test_an_empty_sample_compares_nothing() -> None:
    assert sample([]).exceedances(rows(1)[0], "S") == (0, (0, 0, 0, 0))
    everyone = sample(references(2))
    assert everyone.without(frozenset({1, 2})).exceedances(rows(1)[0], "S") == (0, (0, 0, 0, 0))


def test_a_small_gallery_is_drawn_whole_but_for_those_that_prove_nothing() -> None:
    world = World()
    for person in range(5):
        world.enrol(person, subject_id=f"S{person}")
    world.enrol(9, subject_id="S0")  # somebody else under this name: fails the continuity check
    with world.store.reading() as reading:
        drawn = draw(reading, world.gallery(), np.random.default_rng(0))
    assert sorted(each.subject_id for each in drawn) == [f"S{person}" for person in range(5)]


@pytest.mark.parametrize("few_changes", [0, 2000], ids=["by id", "by change"])
def test_every_reference_is_as_likely_as_any_other(few_changes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.impostor_sample.SAMPLE_SIZE", 5)
    monkeypatch.setattr("service.impostor_sample._FEW_CHANGES", few_changes)
    monkeypatch.setattr("service.impostor_sample._IDS_PER_READ", 6)
    world, rng = World(), np.random.default_rng(3)
    for person in range(20):
        world.enrol(person, subject_id=f"S{person:02}")
    times = dict.fromkeys((f"S{person:02}" for person in range(20)), 0)
    with world.store.reading() as reading:
        for _ in range(400):
            drawn = draw(reading, world.gallery(), rng)
            assert len(drawn) == 5
            for each in drawn:
                times[each.subject_id] += 1
    # 100 each, with a deviation of 8.7
    assert min(times.values()) > 65
    assert max(times.values()) < 135


def test_of_a_record_without_templates_nothing_is_drawn_however_many_changes_it_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("service.impostor_sample._FEW_CHANGES", 1)
    store = SqlStore(f"sqlite:///{tmp_path}/record.sqlite")
    store.migrate()
    for world in (World(), World(store)):
        for _ in range(2):
            world.answer(biometric_exception="no usable face")
        world.accuracy.refresh(world.gallery())
        assert subjects_of(world) == set()
    store.close()


def test_a_sample_is_drawn_from_the_real_record_among_other_galleries(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = SqlStore(f"sqlite:///{tmp_path_factory.mktemp('record') / 'r.sqlite'}")
    store.migrate()
    try:
        world = World(store)
        for person in range(12):
            world.enrol(person, subject_id=f"S{person}")
        world.erasure.erase_subject(GALLERY, "S3")
        with store.reading() as reading:
            drawn = draw(reading, world.gallery(), np.random.default_rng(0))
        assert sorted(each.subject_id for each in drawn) == sorted(f"S{n}" for n in range(12) if n != 3)
        assert len(drawn) < SAMPLE_SIZE
    finally:
        store.close()


def test_who_is_erased_leaves_the_sample_with_the_erasure() -> None:
    world = World()
    for person in range(4):
        world.enrol(person, subject_id=f"S{person}")
    world.accuracy.refresh(world.gallery())
    assert subjects_of(world) == {"S0", "S1", "S2", "S3"}
    world.erasure.erase_subject(GALLERY, "S2")
    assert subjects_of(world) == {"S0", "S1", "S3"}


def test_who_is_no_longer_searched_leaves_the_sample() -> None:
    world = World()
    encounter = world.enrol(1, subject_id="S1").encounter_id
    world.enrol(2, subject_id="S2")
    world.accuracy.refresh(world.gallery())
    world.erasure.set_encounter_status(GALLERY, encounter, EncounterStatus.INACTIVE)
    assert subjects_of(world) == {"S2"}


def test_who_is_erased_elsewhere_leaves_the_sample_when_the_index_follows() -> None:
    world = World()
    other = World.beside(world.store)
    for person in range(3):
        world.enrol(person, subject_id=f"S{person}")
    world.accuracy.refresh(world.gallery())
    other.erasure.erase_subject(GALLERY, "S0")
    world.enrol(7, subject_id="S7")
    assert subjects_of(world) == {"S1", "S2"}


def test_an_index_that_is_filled_anew_begins_without_a_sample() -> None:
    world = World()
    world.enrol(1)
    world.accuracy.refresh(world.gallery())
    world.matcher.throw_away(GALLERY, "differs_from_record")
    world.identify(1)
    assert world.matcher.samples.of(GALLERY) is None
