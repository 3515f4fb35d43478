"""The metrics of live accuracy: `service.live_accuracy` fills them, docs/live-accuracy.md explains them."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# cosine; above 0.2 is where thresholds and mated pairs lie
SCORE_BUCKETS = (-0.2, 0.0, 0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0)
QUALITY_BUCKETS = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
INTER_EYE_BUCKETS = (10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480)
SHARPNESS_BUCKETS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
BRIGHTNESS_BUCKETS = (32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224)


class AccuracyMetrics:
    """The part of `service.metrics.Metrics` that tells how searches and comparisons turn out."""

    registry: CollectorRegistry

    def _define_searches(self) -> None:
        self.searches = Counter(
            "biodedup_searches_total",
            "Enrolments that were compared with a gallery, by whether a candidate was found (flagged: true, false).",
            ("gallery", "flagged"),
            registry=self.registry,
        )
        self.false_alarms_asked = Counter(
            "biodedup_false_alarms_asked_total",
            "Sum of the review_fpir of these searches: the false alarms that were asked for.",
            ("gallery",),
            registry=self.registry,
        )
        self.top_score = self._scores(
            "biodedup_top_score", "Score of the best candidate of an enrolment that found one.", ("gallery",)
        )
        self.verification_score = self._scores(
            "biodedup_verification_score",
            "Best score of a verification of a subject, by whether it matched (true, false).",
            ("gallery", "matched"),
        )

    def _define_decisions(self) -> None:
        self.decided_cases = Gauge(
            "biodedup_decided_cases",
            "Cases that a human decided on, by their kind and the verdict, since the gallery began.",
            ("gallery", "kind", "verdict"),
            registry=self.registry,
        )

    def _define_drift(self) -> None:
        self.impostor_probes = Counter(
            "biodedup_impostor_probes_total",
            "Enrolments that were compared with a random sample of their gallery.",
            ("gallery",),
            registry=self.registry,
        )
        self.impostor_comparisons = Counter(
            "biodedup_impostor_comparisons_total",
            "Comparisons of these enrolments with other subjects of the sample.",
            ("gallery",),
            registry=self.registry,
        )
        self.impostor_exceedances = Counter(
            "biodedup_impostor_exceedances_total",
            "Comparisons of these at or above the score that the calibration gives for a false match rate.",
            ("gallery", "fmr"),
            registry=self.registry,
        )
        self.impostor_exceedances_claimed = Counter(
            "biodedup_impostor_exceedances_claimed_total",
            "How many these would be by the calibration.",
            ("gallery", "fmr"),
            registry=self.registry,
        )

    def _define_continuity(self) -> None:
        self.continuity_score = self._scores(
            "biodedup_continuity_score",
            "Best score of a further encounter of one sample with the earlier ones of its subject.",
            ("gallery",),
        )
        self.continuity_failures = Counter(
            "biodedup_continuity_failures_total",
            "Further encounters of one sample that scored below the verification threshold.",
            ("gallery",),
            registry=self.registry,
        )
        self.continuity_failures_claimed = Counter(
            "biodedup_continuity_failures_claimed_total",
            "How many these would be by the calibration.",
            ("gallery",),
            registry=self.registry,
        )

    def _define_sites(self) -> None:
        self.site_samples = Counter(
            "biodedup_site_samples_total",
            "Samples of enrolments, by site (BIODEDUP_METRIC_SITES) and whether they had a usable face (true, false).",
            ("site", "usable"),
            registry=self.registry,
        )
        self.site_unified_quality = self._by_site(
            "biodedup_site_unified_quality", "Unified quality score of usable samples (0 to 100).", QUALITY_BUCKETS
        )
        self.site_inter_eye_px = self._by_site(
            "biodedup_site_inter_eye_px", "Pixels between the eyes of usable samples.", INTER_EYE_BUCKETS
        )
        self.site_sharpness = self._by_site(
            "biodedup_site_sharpness", "Sharpness of usable samples, higher is sharper.", SHARPNESS_BUCKETS
        )
        self.site_brightness = self._by_site(
            "biodedup_site_brightness", "Mean grey level of the faces of usable samples (0 to 255).", BRIGHTNESS_BUCKETS
        )

    def _scores(self, name: str, text: str, labels: tuple[str, ...]) -> Histogram:
        return Histogram(name, text, labels, buckets=SCORE_BUCKETS, registry=self.registry)

    def _by_site(self, name: str, text: str, buckets: tuple[int, ...]) -> Histogram:
        return Histogram(name, text, ("site",), buckets=buckets, registry=self.registry)


class GallerySeries:
    """The series of one gallery, looked up once: they begin at 0, and counting takes a microsecond each."""

    def __init__(self, metrics: AccuracyMetrics, gallery_id: str, levels: Sequence[float]) -> None:
        name = gallery_id
        self.searches = {
            flagged: metrics.searches.labels(gallery=name, flagged=str(flagged).lower()) for flagged in (True, False)
        }
        self.verification_score = {
            matched: metrics.verification_score.labels(gallery=name, matched=str(matched).lower())
            for matched in (True, False)
        }
        self.false_alarms_asked = metrics.false_alarms_asked.labels(gallery=name)
        self.top_score = metrics.top_score.labels(gallery=name)
        self.impostor_probes = metrics.impostor_probes.labels(gallery=name)
        self.impostor_comparisons = metrics.impostor_comparisons.labels(gallery=name)
        self.impostor_exceedances = [metrics.impostor_exceedances.labels(gallery=name, fmr=each) for each in levels]
        self.impostor_exceedances_claimed = [
            metrics.impostor_exceedances_claimed.labels(gallery=name, fmr=each) for each in levels
        ]
        self.continuity_score = metrics.continuity_score.labels(gallery=name)
        self.continuity_failures = metrics.continuity_failures.labels(gallery=name)
        self.continuity_failures_claimed = metrics.continuity_failures_claimed.labels(gallery=name)


class SiteSeries:
    """The series of one site, looked up once."""

    def __init__(self, metrics: AccuracyMetrics, site: str) -> None:
        self.usable = metrics.site_samples.labels(site=site, usable="true")
        self.unusable = metrics.site_samples.labels(site=site, usable="false")
        self.unified_quality = metrics.site_unified_quality.labels(site=site)
        self.inter_eye_px = metrics.site_inter_eye_px.labels(site=site)
        self.sharpness = metrics.site_sharpness.labels(site=site)
        self.brightness = metrics.site_brightness.labels(site=site)
