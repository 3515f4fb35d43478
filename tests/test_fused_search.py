"""Several samples through the use cases and the real index: whoever reaches a threshold is found."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service import fusion
from service.domain import Embeddings, EncounterStatus, Enrolment, FacePolicy, OutcomeKind, Reference
from service.face.extractor import Extractor
from service.face.image import ImageLimits
from service.face.model_packs import InstalledPack
from service.gallery.exact_index import ExactIndex
from service.gallery.segmented_index import SegmentedIndex
from service.ports import GalleryIndex
from tests.synthetic import PersonEmbedder, sample_of
from tests.together import SPREAD, found_only_together, probes_of
from tests.world import GALLERY, DeafMatcher, InterruptedStore, World

Makes = Callable[[int], GalleryIndex]


def loose(**how: object) -> World:
    return World(embedder=PersonEmbedder(SPREAD), **how)  # type: ignore[arg-type]  # by name


def hasty(dimension: int) -> SegmentedIndex:
    return SegmentedIndex(dimension, threads=2, seal_at=512, max_segment=2048)


def references_of(world: World) -> list[Reference]:
    with world.store.reading() as reading:
        return reading.references_after(GALLERY, 0, 2**62, 10**6)


def expected(probes: Embeddings, references: list[Reference], threshold: float, own: str | None) -> set[str]:
    """Return the subjects that a comparison of everything with everything finds."""
    pairs = {each.subject_id for each in references if float((probes @ each.embedding).max()) >= threshold}
    fused = {name for name, each in fusion.fused_scores(probes, references).items() if each.score >= threshold}
    return (pairs | fused) - {own}


def shown(answer: Enrolment) -> set[str | None]:
    return {candidate.subject_id for candidate in answer.candidates}


@pytest.mark.parametrize("index", [ExactIndex, hasty])
def test_whoever_reaches_the_threshold_by_a_pair_or_together_is_found(index: Makes) -> None:
    world, rng = loose(index=index), np.random.default_rng(5)
    by_fusion = by_pair = 0
    for step in range(250):
        person, count = int(rng.integers(90)), int(rng.integers(1, 4))
        samples = [sample_of(person, 10 * step + number) for number in range(count)]
        own = f"s{rng.integers(150)}" if rng.random() < 0.3 else f"new-{step}"
        before = references_of(world)
        answer = world.answer(*samples, subject_id=own).enrolment
        assert answer.thresholds is not None
        assert shown(answer) == expected(probes_of(*samples), before, answer.thresholds.review, own)
        by_fusion += sum((each.pair_score or 1) < answer.thresholds.review for each in answer.candidates)
        by_pair += sum(each.score == each.pair_score for each in answer.candidates)
    assert by_fusion > 50  # else this test would say nothing of the one
    assert by_pair > 0  # or the other


def test_two_samples_find_together_whom_neither_finds_among_people_with_one_each() -> None:
    world, by_fusion = loose(), 0
    for person in range(60):
        world.enrol(person, subject_id=f"s{person}")
    for person in range(60):
        samples = [sample_of(person, 1), sample_of(person, 2)]
        answer = world.answer(*samples, subject_id=f"s{person}-again").enrolment
        world.erasure.erase_subject(GALLERY, f"s{person}-again")
        assert world.gallery().several_count == 0
        assert answer.thresholds is not None
        assert shown(answer) == expected(probes_of(*samples), references_of(world), answer.thresholds.review, None)
        by_fusion += sum((each.pair_score or 1) < answer.thresholds.review for each in answer.candidates)
    assert by_fusion >= 5


def test_whoever_reaches_the_threshold_is_found_among_newcomers_too() -> None:
    world = loose(matcher=DeafMatcher)
    for person in range(30):
        world.answer(*(sample_of(person, capture) for capture in range(3)), subject_id=f"s{person}")
    assert len(world.indexes[0]) < 10  # it caught up once: when the first subject had several templates
    for person in range(30):
        samples = [sample_of(person, 50), sample_of(person, 51)]
        before = references_of(world)
        answer = world.answer(*samples, subject_id=f"again-{person}").enrolment
        assert answer.thresholds is not None
        assert shown(answer) == expected(probes_of(*samples), before, answer.thresholds.review, f"again-{person}")


def test_a_subject_that_gets_its_second_template_during_a_search_is_compared_with_both() -> None:
    store = InterruptedStore()
    world, elsewhere = loose(store=store), World(store, has_gallery=True, embedder=PersonEmbedder(SPREAD))
    for person in range(1, 60):
        world.enrol(person)
    first, second, probe = found_only_together(len(references_of(world)))
    world.answer(first, subject_id="s")
    assert world.gallery().several_count == 0
    store.before_writing = lambda: elsewhere.answer(second, subject_id="s")
    answer = world.answer(probe).enrolment
    assert "s" in shown(answer)


def test_a_photograph_of_somebody_else_among_the_samples_hides_nobody() -> None:
    world = World()
    world.enrol(1, subject_id="first")
    for person in range(10, 90):
        world.enrol(person)
    answer = world.answer(*(sample_of(person, 5) for person in (1, 2, 3)), subject_id="again").enrolment
    assert answer.outcome is OutcomeKind.DUPLICATE
    assert [(each.subject_id, each.pair_score) for each in answer.candidates] == [("first", None)]
    assert answer.thresholds is not None
    assert answer.thresholds.comparisons == 3 * 81  # nothing was fused, and nothing counted for it


def test_a_photograph_of_somebody_else_among_the_references_hides_nobody() -> None:
    world = World()
    world.answer(sample_of(1), sample_of(2), sample_of(3), subject_id="mixed")
    for person in (1, 2, 3):
        assert shown(world.enrol(person, 9)) >= {"mixed"}


def test_a_candidate_found_together_shows_its_best_pair_and_is_for_review_only() -> None:
    world = loose()
    for person in range(2, 60):
        world.enrol(person)
    for capture in range(4):
        world.enrol(1, capture, subject_id="s")
    found = world.answer(*(sample_of(1, capture) for capture in (10, 11))).enrolment
    (candidate,) = found.candidates
    assert candidate.pair_score is not None
    assert found.thresholds is not None
    assert candidate.score > found.thresholds.review
    assert candidate.score > candidate.pair_score
    rule = world.packs.of("synthetic").rule
    assert candidate.false_match == rule.calibration.false_match_rate(candidate.pair_score)
    duplicate = found.thresholds.duplicate
    assert duplicate is not None
    assert (found.outcome is OutcomeKind.DUPLICATE) == (candidate.pair_score >= duplicate)
    assert found.outcome is OutcomeKind.REVIEW
    assert world.store.enrolment(GALLERY, found.enrolment_id) == found


def test_one_sample_is_compared_with_all_of_a_subject_together() -> None:
    world = loose()
    for person in range(20):
        world.enrol(person, subject_id=f"s{person}")
    alone = world.identification.identify(GALLERY, sample_of(1, 70)).decision
    for capture in range(1, 6):
        world.enrol(1, capture, subject_id="s1")
    together = world.identification.identify(GALLERY, sample_of(1, 70)).decision
    assert [each.subject_id for each in alone.candidates] == []
    assert [each.subject_id for each in together.candidates] == ["s1"]
    assert together.thresholds.comparisons == 20 + 5 + 1


def test_a_gallery_of_one_sample_each_pays_nothing() -> None:
    world = World()
    for person in range(10):
        world.enrol(person)
    decision = world.identify(3).decision
    assert decision.thresholds.comparisons == 10
    assert decision.candidates[0].pair_score is None


def test_whoever_is_no_longer_searched_is_in_no_mean() -> None:
    world = loose()
    encounters = [world.enrol(1, capture, subject_id="s").encounter_id for capture in range(3)]
    assert world.gallery().several_count == 1
    for encounter_id in encounters[1:]:
        world.erasure.set_encounter_status(GALLERY, encounter_id, EncounterStatus.INACTIVE)
    assert world.gallery().several_count == 0
    (candidate,) = world.answer(sample_of(1, 0)).enrolment.candidates
    assert candidate.pair_score is None


@pytest.fixture(scope="module")
def templates(faces_dir: Path, pack: InstalledPack) -> dict[str, Embeddings]:
    """Real templates of some people with three photographs or more, and of others with one."""
    chosen = json.loads((faces_dir / "openset.json").read_text())
    people = Counter(name.split("/")[0] for name in chosen["mated"] + chosen["gallery"])
    extractor = Extractor(pack, limits=ImageLimits(), min_face_width_px=20, observe=lambda *_: None)
    found: dict[str, Embeddings] = {}
    for person in sorted(people):
        files = sorted((faces_dir / "images" / person).iterdir())[:4]
        if len(files) >= 3 and len(found) < 40:
            rows = [extractor.extract(file.read_bytes(), FacePolicy.CENTRAL).embedding for file in files]
            found[person] = np.stack(rows)
    return found


@pytest.mark.models
@pytest.mark.faces
@pytest.mark.parametrize("several", [1, 2])
def test_the_index_drops_no_real_template_that_a_fused_score_needs(
    templates: dict[str, Embeddings], several: int
) -> None:
    """In segments of codes among thousands of others, at every threshold."""
    rng = np.random.default_rng(1)
    dimension = next(iter(templates.values())).shape[1]
    real = np.concatenate(list(templates.values()))
    # others with the spread of real faces
    noise = np.linalg.cholesky(np.cov(real.T) + 1e-6 * np.eye(dimension)) @ rng.normal(size=(dimension, 3000))
    others = np.asarray((noise / np.linalg.norm(noise, axis=0)).T, np.float32)
    enrolled = {name: rows[:-several] for name, rows in templates.items()}
    owner = [name for name, rows in enrolled.items() for _ in rows]
    index = hasty(dimension)
    index.add(1, range(len(owner)), np.concatenate(list(enrolled.values())))
    index.add(2, range(len(owner), len(owner) + len(others)), others)
    index.settle()
    assert any(part.state == "sealed" for part in index.parts())
    compared = needed = 0
    for person, rows in templates.items():
        probes = rows[-several:]
        fused = {
            name: fusion.fused_scores(probes, [Reference(0, name, "", row, True) for row in own]).get(name)
            for name, own in enrolled.items()
        }
        for threshold in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
            hits = index.search(fusion.search_probes(probes), fusion.search_threshold(threshold, several=1))
            found = {owner[hit.reference_id] for some in hits for hit in some if hit.reference_id < len(owner)}
            due = {name for name, each in fused.items() if each is not None and each.score >= threshold}
            assert due <= found, (person, threshold)
            compared += len(due)
            needed += sum(each.pair_score < threshold for name in due if (each := fused[name]) is not None)
    assert compared > 100
    assert needed > 10
