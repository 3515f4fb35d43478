"""What each answer tells about the accuracy of the running service, counted for Prometheus."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from service.accuracy_metrics import GallerySeries, SiteSeries
from service.domain import Enrolment, Gallery, Template, Thresholds
from service.impostor_sample import LEVELS, ImpostorSample, draw
from service.index_keeping import IndexKeeper
from service.index_slots import side_of
from service.metrics import Metrics
from service.packs import Packs

OTHER_SITE = "other"
_REDRAW_S = 600.0
_LAG_LIMIT = 1000  # changes: a scrape does not wait for an index that is further behind


class LiveAccuracy:
    """Counts searches, impostor scores, continuity checks and the quality of samples.

    Nothing here can fail an enrolment that is recorded already: what needs the record is read when Prometheus asks
    (`refresh`), and an enrolment is compared with what is in memory. Until the first scrape nothing is compared.
    """

    def __init__(
        self,
        keeper: IndexKeeper,
        packs: Packs,
        metrics: Metrics,
        *,
        sites: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        rng: np.random.Generator | None = None,
    ) -> None:
        self._keeper = keeper
        self._packs = packs
        self._metrics = metrics
        self._galleries: dict[str, GallerySeries] = {}
        self._sites = {site: SiteSeries(metrics, site) for site in (*sites, OTHER_SITE)}
        self._clock = clock
        self._rng = rng or np.random.default_rng()

    def refresh(self, gallery: Gallery) -> None:
        """Let the series of a gallery begin at 0, and draw its sample anew where that is due.

        Raises:
            PackNotLoaded, GalleryNotFound, IndexUnavailable, StoreUnavailable
        """
        self._of(gallery.gallery_id)
        if not self._is_due(gallery) or not self._is_near(gallery):
            return
        calibration = self._packs.rule(gallery).calibration
        with self._keeper.hold(gallery.gallery_id, gallery.pack_id) as held:
            now = side_of(held.reading.gallery(gallery.gallery_id), gallery.pack_id)
            references = draw(held.reading, now, self._rng)
            sample = ImpostorSample.of(now, calibration, references, self._clock())
            self._keeper.samples.put(gallery.gallery_id, sample)

    def enrolled(
        self, enrolment: Enrolment, templates: Sequence[Template], site: str | None, *, is_one_pack: bool = True
    ) -> None:
        """Count a recorded enrolment.

        Args:
            enrolment: as recorded.
            templates: of its usable samples.
            site: as the registration system names it.
            is_one_pack: False while the gallery changes its model: either pack may have made the continuity check.
        """
        thresholds = enrolment.thresholds
        if thresholds is None:
            return
        self._count_search(enrolment, thresholds)
        series = self._site(site)
        for template in templates:
            series.usable.inc()
            quality = template.quality
            if quality.unified is not None:
                series.unified_quality.observe(quality.unified)
            series.inter_eye_px.observe(quality.inter_eye_px)
            series.sharpness.observe(quality.sharpness)
            series.brightness.observe(quality.brightness)
        sample = self._keeper.samples.of(enrolment.gallery_id)
        # another one is of before another calibration was chosen, or the model changed: not drawn anew yet
        if sample is not None and sample.calibration.calibration_id == thresholds.calibration_id:
            self._compare(enrolment, templates[0], sample)
            if is_one_pack:
                self._check_continuity(enrolment, templates, sample)

    def unusable(self, site: str | None, count: int) -> None:
        """Count samples of an enrolment that had no usable face."""
        self._site(site).unusable.inc(count)

    def verified(self, gallery_id: str, score: float, *, matched: bool) -> None:
        """Count a verification of a subject."""
        self._of(gallery_id).verification_score[matched].observe(score)

    def _count_search(self, enrolment: Enrolment, thresholds: Thresholds) -> None:
        if not thresholds.comparisons:
            return  # nobody was there who could be taken for this person
        series, flagged = self._of(enrolment.gallery_id), bool(enrolment.candidates)
        series.searches[flagged].inc()
        series.false_alarms_asked.inc(thresholds.review_fpir)
        if flagged and enrolment.candidates[0].pack_id is None:  # a score of the standby pack is of another scale
            series.top_score.observe(enrolment.candidates[0].score)

    def _compare(self, enrolment: Enrolment, probe: Template, sample: ImpostorSample) -> None:
        """Count the impostor scores of the first template: an encounter counts once, however many samples it has."""
        comparisons, exceedances = sample.exceedances(probe.embedding, enrolment.subject_id)
        if not comparisons:
            return
        series = self._of(enrolment.gallery_id)
        series.impostor_probes.inc()
        series.impostor_comparisons.inc(comparisons)
        for place, (count, claimed) in enumerate(zip(exceedances, sample.claimed, strict=True)):
            series.impostor_exceedances[place].inc(count)
            series.impostor_exceedances_claimed[place].inc(claimed * comparisons)

    def _check_continuity(self, enrolment: Enrolment, templates: Sequence[Template], sample: ImpostorSample) -> None:
        """Count the continuity check of a further encounter.

        Only encounters of one sample: of several the worst score is kept, and a first encounter compares them with
        each other; the calibration says nothing about either. A check that fails whatever the score, since nothing
        proven is left to compare with, counts by its score all the same.
        """
        continuity = enrolment.continuity
        if continuity is None or len(templates) != 1:
            return
        series = self._of(enrolment.gallery_id)
        series.continuity_score.observe(continuity.score)
        series.continuity_failures.inc(continuity.score < continuity.threshold)
        series.continuity_failures_claimed.inc(sample.calibration.expected_fnir(continuity.threshold))

    def _of(self, gallery_id: str) -> GallerySeries:
        series = self._galleries.get(gallery_id)
        if series is None:
            series = self._galleries[gallery_id] = GallerySeries(self._metrics, gallery_id, LEVELS)
        return series

    def _site(self, site: str | None) -> SiteSeries:
        """Return the series of a named site: free text could name a person, and each spelling would make one more."""
        return self._sites.get(site or OTHER_SITE, self._sites[OTHER_SITE])

    def _is_due(self, gallery: Gallery) -> bool:
        sample = self._keeper.samples.of(gallery.gallery_id)
        return (
            sample is None
            or sample.timeline_id != gallery.timeline_id
            or sample.calibration.calibration_id != self._packs.rule(gallery).calibration.calibration_id
            or gallery.template_count >= 2 * max(sample.gallery_size, 1)
            or self._clock() - sample.drawn_at >= _REDRAW_S
        )

    def _is_near(self, gallery: Gallery) -> bool:
        """Whether the index follows closely; a scrape fills none."""
        is_there = not gallery.template_count or bool(self._keeper.parts(gallery))
        return is_there and self._keeper.lag(gallery) <= _LAG_LIMIT
