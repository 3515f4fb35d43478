"""What enrolments and verifications tell Prometheus about accuracy."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from service.calibration import Calibration
from service.domain import EncounterFacts, EncounterStatus, FacePolicy, OutcomeKind
from service.errors import NoFace
from service.impostor_sample import LEVELS
from service.live_accuracy import LiveAccuracy
from service.metrics import Metrics
from tests.fakes import FakeStore
from tests.synthetic import calibration, sample_of
from tests.world import GALLERY, DeafMatcher, World


def value(world: World, name: str, **labels: str) -> float:
    found = world.metrics.registry.get_sample_value(name, labels)
    assert found is not None, f"{name} {labels} has no series"
    return found


def in_gallery(world: World, name: str, **labels: str) -> float:
    return value(world, f"biodedup_{name}", gallery=GALLERY, **labels)


def populated(people: int = 40) -> World:
    """A gallery whose sample is drawn."""
    world = World(sites=("KE-12", "KE-13"))
    for person in range(people):
        world.enrol(person, subject_id=f"S{person}")
    world.accuracy.refresh(world.gallery())
    return world


def test_series_of_a_gallery_begin_at_zero_with_the_first_scrape() -> None:
    world = World()
    world.accuracy.refresh(world.gallery())
    assert in_gallery(world, "searches_total", flagged="true") == 0
    assert in_gallery(world, "impostor_probes_total") == 0
    assert in_gallery(world, "impostor_exceedances_claimed_total", fmr="0.001") == 0
    assert in_gallery(world, "continuity_failures_claimed_total") == 0
    assert in_gallery(world, "verification_score_count", matched="false") == 0


def test_searches_are_counted_beside_the_false_alarms_that_were_asked_for() -> None:
    world = populated(3)
    assert world.enrol(1, capture=1, subject_id="again").outcome is not OutcomeKind.UNIQUE
    assert in_gallery(world, "searches_total", flagged="false") == 2  # the first was compared with nobody
    assert in_gallery(world, "searches_total", flagged="true") == 1
    assert in_gallery(world, "false_alarms_asked_total") == pytest.approx(3 * 0.01)
    assert in_gallery(world, "top_score_count") == 1
    assert in_gallery(world, "top_score_bucket", le="0.8") == 0


def test_an_encounter_that_does_not_look_like_its_subject_is_no_false_alarm() -> None:
    world = populated(3)
    assert world.enrol(8, subject_id="S1").outcome is OutcomeKind.REVIEW
    assert in_gallery(world, "searches_total", flagged="true") == 0


def test_an_enrolment_is_compared_with_others_of_the_sample() -> None:
    world = populated(40)
    world.enrol(100, subject_id="newcomer")
    world.enrol(3, capture=1, subject_id="S3")
    assert in_gallery(world, "impostor_probes_total") == 2
    assert in_gallery(world, "impostor_comparisons_total") == 40 + 39
    for level in LEVELS:
        claimed = in_gallery(world, "impostor_exceedances_claimed_total", fmr=str(level))
        assert claimed == pytest.approx(79 * level, rel=1e-3)
    scores = _scores_of_two_probes(world)
    for level in LEVELS:
        counted = in_gallery(world, "impostor_exceedances_total", fmr=str(level))
        assert counted == np.count_nonzero(scores >= calibration().threshold(level))
    assert in_gallery(world, "impostor_exceedances_total", fmr="0.5") > 0


def _scores_of_two_probes(world: World) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    extract = world.packs.of(world.gallery().pack_id).embedder.extract
    policy = FacePolicy.REFUSE
    rows = np.stack([extract(sample_of(person), policy).embedding for person in range(40)])
    new, again = (extract(sample_of(*each), policy).embedding for each in ((100,), (3, 1)))
    return np.concatenate([rows @ new, np.delete(rows, 3, axis=0) @ again])


def test_an_encounter_of_several_samples_is_compared_once() -> None:
    world = populated(10)
    world.answer(sample_of(50), sample_of(50, 1), subject_id="both")
    assert in_gallery(world, "impostor_probes_total") == 1
    assert in_gallery(world, "impostor_comparisons_total") == 10


def test_nothing_is_compared_by_another_calibration_than_that_of_the_answer() -> None:
    world = populated(10)
    made = world.calibrations.add(GALLERY, _other_calibration())
    world.calibrations.use(GALLERY, made.calibration.calibration_id)
    world.enrol(50)
    assert in_gallery(world, "impostor_probes_total") == 0
    world.accuracy.refresh(world.gallery())
    world.enrol(51)
    assert in_gallery(world, "impostor_probes_total") == 1


def _other_calibration() -> Calibration:
    return replace(calibration(), population="others")


def test_a_sample_is_drawn_anew_after_ten_minutes_or_when_the_gallery_doubled() -> None:
    world = populated(4)
    first = world.matcher.samples.of(GALLERY)
    world.enrol(20)
    world.accuracy.refresh(world.gallery())
    assert world.matcher.samples.of(GALLERY) is first
    world.clock.now += timedelta(minutes=10)
    world.accuracy.refresh(world.gallery())
    second = world.matcher.samples.of(GALLERY)
    assert second is not None
    assert len(second) == 5
    for person in range(21, 26):
        world.enrol(person)
    world.accuracy.refresh(world.gallery())
    third = world.matcher.samples.of(GALLERY)
    assert third is not None
    assert len(third) == 10


def test_a_scrape_fills_no_index() -> None:
    world = populated(4)
    world.matcher.throw_away(GALLERY, "differs_from_record")
    world.clock.now += timedelta(hours=1)
    made = len(world.indexes)
    world.accuracy.refresh(world.gallery())
    assert len(world.indexes) == made


def test_a_scrape_does_not_wait_for_an_index_that_is_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.live_accuracy._LAG_LIMIT", 3)
    world = World(matcher=DeafMatcher)
    for person in range(4):
        world.enrol(person)
    world.accuracy.refresh(world.gallery())
    assert world.matcher.samples.of(GALLERY) is None
    world.matcher.catch_up(GALLERY)
    world.accuracy.refresh(world.gallery())
    assert world.matcher.samples.of(GALLERY) is not None


def test_a_sample_of_before_a_restore_is_drawn_anew() -> None:
    store = FakeStore()
    world = World(store)
    world.enrol(1)
    world.accuracy.refresh(world.gallery())
    store.renew_timelines()
    world.accuracy.refresh(world.gallery())
    sample = world.matcher.samples.of(GALLERY)
    assert sample is not None
    assert sample.timeline_id == world.gallery().timeline_id


def test_a_further_encounter_counts_its_continuity_score_beside_what_is_expected() -> None:
    world = populated(3)
    world.store.update_gallery(GALLERY, lambda each: replace(each, verification_fmr=1e-6))
    world.enrol(1, capture=1, subject_id="S1")
    world.enrol(70, subject_id="S2")
    assert in_gallery(world, "continuity_score_count") == 2
    assert in_gallery(world, "continuity_failures_total") == 1
    threshold = calibration().threshold(world.gallery().verification_fmr)
    claimed = in_gallery(world, "continuity_failures_claimed_total")
    assert claimed == pytest.approx(2 * calibration().expected_fnir(threshold))
    assert claimed > 0


def test_encounters_of_several_samples_say_nothing_about_continuity() -> None:
    world = populated(3)
    world.answer(sample_of(50), sample_of(50, 1), subject_id="both")
    assert in_gallery(world, "continuity_score_count") == 0


def test_a_check_that_nobody_could_pass_counts_by_its_score() -> None:
    world = populated(3)
    own = world.enrol(60, subject_id="S").encounter_id
    assert _continuity_passed(world, person=61) is False
    world.erasure.set_encounter_status(GALLERY, own, EncounterStatus.WITHDRAWN)
    assert in_gallery(world, "continuity_failures_total") == 1
    assert _continuity_passed(world, person=61, capture=1) is False  # nothing proven is left of S
    assert in_gallery(world, "continuity_failures_total") == 1
    assert in_gallery(world, "continuity_score_count") == 2


def _continuity_passed(world: World, person: int, capture: int = 0) -> bool:
    continuity = world.enrol(person, capture, subject_id="S").continuity
    assert continuity is not None
    return continuity.passed


def test_verifications_of_a_subject_show_their_scores() -> None:
    world = populated(3)
    world.verification.verify_subject(GALLERY, sample_of(1, 1), "S1")
    world.verification.verify_subject(GALLERY, sample_of(2, 1), "S1")
    world.verification.verify_samples(GALLERY, sample_of(1), sample_of(1, 1))
    assert in_gallery(world, "verification_score_count", matched="true") == 1
    assert in_gallery(world, "verification_score_bucket", matched="true", le="0.8") == 0
    assert in_gallery(world, "verification_score_count", matched="false") == 1


def test_quality_is_counted_by_the_sites_that_were_named() -> None:
    world = populated(1)
    for site in ("KE-12", "somewhere, by Anna", None):
        world.answer(sample_of(60), b"nothing", facts=_facts(site), subject_id=f"at {site}")
    with pytest.raises(NoFace):
        world.answer(b"nothing", b"nothing", facts=_facts("KE-13"))
    samples = "biodedup_site_samples_total"
    assert value(world, samples, site="KE-12", usable="true") == 1
    assert value(world, samples, site="KE-12", usable="false") == 1
    assert value(world, samples, site="KE-13", usable="false") == 2
    assert value(world, samples, site="other", usable="true") == 3  # two, and the one that was enrolled before
    for name in ("inter_eye_px", "sharpness", "brightness"):
        assert value(world, f"biodedup_site_{name}_count", site="KE-12") == 1
    assert value(world, "biodedup_site_inter_eye_px_sum", site="KE-12") == 45
    assert b"Anna" not in world.metrics.render()


def test_the_unified_score_is_shown_where_the_pack_has_one() -> None:
    world = populated(2)
    measured = world.enrol(60)
    template = world.packs.of(world.gallery().pack_id).embedder.extract(sample_of(60), FacePolicy.REFUSE)
    for unified in (None, 35):
        quality = replace(template.quality, unified=unified)
        world.accuracy.enrolled(measured, [replace(template, quality=quality)], "KE-13")
    assert value(world, "biodedup_site_samples_total", site="KE-13", usable="true") == 2
    assert value(world, "biodedup_site_unified_quality_count", site="KE-13") == 1
    assert value(world, "biodedup_site_unified_quality_sum", site="KE-13") == 35


def _facts(site: str | None) -> EncounterFacts:
    return EncounterFacts(site=site)


def test_named_sites_begin_at_zero() -> None:
    metrics = Metrics()
    world = World()
    LiveAccuracy(world.matcher, world.packs, metrics, sites=("KE-12",))
    assert metrics.registry.get_sample_value("biodedup_site_samples_total", {"site": "KE-12", "usable": "false"}) == 0
