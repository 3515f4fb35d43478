"""Searches limited by sex and year of birth: a lower threshold within the band, the usual one outside.

Nothing that the whole gallery's rule finds is dropped, whatever was recorded of it (decision 0019).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from service.calibration import fmr_for_fpir
from service.decision import DecisionRule, stated_size
from service.domain import (
    FILTERED_SEXES,
    Band,
    CaptureFacts,
    Gallery,
    Hit,
    MetadataAgreement,
    Reference,
    SearchFilter,
    Thresholds,
)
from service.fusion import FusedScore
from service.ports import Reading, Store

LEAST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Limits:
    """What limits a search: none where the gallery's filter is off or says nothing about this person."""

    band: Band | None = None
    left_out: int = 0  # templates
    agreement: MetadataAgreement | None = None

    def within(self, templates: int) -> int:
        """Return how many of so many templates count as within: never fewer than a hundredth of all.

        A still lower threshold would have thousands of hits outside the band, each to be looked up and dropped.
        """
        return max(templates - self.left_out, math.ceil(templates * LEAST_SHARE))

    def least(self, gallery: Gallery) -> int:
        """Return half of the templates within: a search from their threshold stands while no more than half go."""
        return self.within(gallery.template_count) // 2


@dataclass(frozen=True, slots=True)
class Judged:
    """The thresholds of a search; those of review hold within its band."""

    thresholds: Thresholds
    limits: Limits
    filter: SearchFilter | None
    warnings: tuple[str, ...] = ()

    def kept(self, hits: Iterable[Hit], references: Mapping[int, Reference]) -> list[Hit]:
        """Return the hits without those outside the band that are below the whole gallery's threshold."""
        band, limit = self.limits.band, self.filter
        if band is None or limit is None:
            return list(hits)
        return [
            hit
            for hit in hits
            if hit.score >= limit.review_outside
            or (reference := references.get(hit.reference_id)) is None
            or not band.leaves_out(reference.capture)
        ]

    def kept_together(self, fused: Mapping[str, FusedScore]) -> dict[str, FusedScore]:
        """Return the fused scores without those outside the band that are below the whole gallery's threshold.

        Outside is who is so by the best reference: one within is kept by its own pair.
        """
        band, limit = self.limits.band, self.filter
        if band is None or limit is None:
            return dict(fused)
        return {
            subject_id: each
            for subject_id, each in fused.items()
            if each.score >= limit.review_outside or not band.leaves_out(each.best.capture)
        }


def band_of(gallery: Gallery, probe: CaptureFacts) -> Band | None:
    """Return among whom a probe is searched with the lower threshold; None: among all."""
    sex = probe.sex if gallery.filter_by_sex and probe.sex in FILTERED_SEXES else None
    years = None
    if gallery.filter_by_birth_year and probe.birth_year is not None:
        years = (probe.birth_year - gallery.birth_year_tolerance, probe.birth_year + gallery.birth_year_tolerance)
    return None if sex is None and years is None else Band(sex, years)


def judge(
    rule: DecisionRule, gallery: Gallery, limits: Limits, templates: int, comparisons: Callable[[int], int]
) -> Judged:
    """Return the thresholds of a search of `templates` templates; so many make so many `comparisons`.

    DUPLICATE needs what it needs without a filter, within the band too.
    """
    whole = rule.thresholds(gallery, comparisons(templates))
    inside = comparisons(limits.within(templates))
    # within one stated size the thresholds are the same: a filter that leaves out so few changes nothing
    if limits.band is None or stated_size(inside) == stated_size(whole.comparisons):
        return Judged(whole, Limits(), None)
    lower = rule.thresholds(gallery, inside)
    thresholds = replace(whole, review=lower.review, review_fmr=lower.review_fmr, expected_fnir=lower.expected_fnir)
    applied = _applied(gallery, limits, whole, lower, inside=inside)
    return Judged(thresholds, limits, applied, _warnings(rule, gallery, applied, stated_size(whole.comparisons)))


def _applied(gallery: Gallery, limits: Limits, whole: Thresholds, lower: Thresholds, *, inside: int) -> SearchFilter:
    assert limits.band is not None
    size, size_inside = stated_size(whole.comparisons), stated_size(inside)
    wrong = wrong_share(limits.agreement)
    return SearchFilter(
        by_sex=limits.band.sex is not None,
        birth_year_tolerance=gallery.birth_year_tolerance if limits.band.birth_years is not None else None,
        left_out=limits.left_out,
        comparisons=inside,
        review_outside=whole.review,
        expected_fpir=_fpir((size_inside, lower.review_fmr), (size - size_inside, whole.review_fmr)),
        fpir_upper=_fpir((size, lower.review_fmr)),
        expected_fnir=None if wrong is None else (1 - wrong) * lower.expected_fnir + wrong * whole.expected_fnir,
        wrong_metadata=wrong,
    )


def _fpir(*parts: tuple[int, float]) -> float:
    """Return the share of searches with a false match in any part, each of so many comparisons at a rate."""
    return -math.expm1(sum(comparisons * math.log1p(-fmr) for comparisons, fmr in parts))


def _warnings(rule: DecisionRule, gallery: Gallery, applied: SearchFilter, size: int) -> tuple[str, ...]:
    """Say where as many false alarms without a filter would find more."""
    if applied.expected_fnir is None:
        return ()
    plain = rule.calibration.threshold(fmr_for_fpir(min(0.5, applied.expected_fpir), size))
    if applied.expected_fnir <= rule.calibration.expected_fnir(plain):
        return ()
    return (
        f"The filter loses more by wrong metadata than its lower threshold gains: without it, a review_fpir of "
        f"{applied.expected_fpir:.2g} instead of {gallery.review_fpir:.2g} is expected to find more duplicates.",
    )


def filter_warnings(gallery: Gallery, agreement: MetadataAgreement) -> tuple[str, ...]:
    """Say what somebody who has the filter on must know."""
    if not (gallery.filter_by_sex or gallery.filter_by_birth_year) or agreement.people:
        return ()
    return (
        "What the filter loses by wrong metadata is not known: of nobody the sex or year of birth it goes by was "
        "recorded at two encounters.",
    )


def wrong_share(agreement: MetadataAgreement | None) -> float | None:
    """Return the share of people of whom a fact disagrees; None where of nobody a fact is known twice."""
    return None if agreement is None or not agreement.people else agreement.disagreeing / agreement.people


def limits_now(reading: Reading, gallery: Gallery, probe: CaptureFacts, before: Limits) -> Limits:
    """Return what limits a search as it is in a transaction; `before` has what takes too long there."""
    band = band_of(gallery, probe)
    if band is None:
        return Limits()
    return Limits(band, reading.left_out(gallery.gallery_id, band), before.agreement)


class Filters:
    """The filters of galleries, with how often their metadata are wrong: counted anew at each stated size."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._agreements: dict[str, tuple[object, MetadataAgreement]] = {}  # by gallery: what it was counted for

    def limits(self, gallery: Gallery, probe: CaptureFacts) -> Limits:
        """Return what limits a search of the gallery, before it begins and outside all locks."""
        band = band_of(gallery, probe)
        if band is None:
            return Limits()
        with self._store.reading() as reading:
            left_out = reading.left_out(gallery.gallery_id, band)
        return Limits(band, left_out, self.agreement(gallery))

    def limits_elsewhere(self, gallery: Gallery, probe: CaptureFacts) -> Limits:
        """Return what limits a search in the name of another gallery, by whose metadata it is judged."""
        band = band_of(gallery, probe)
        if band is None:
            return Limits()
        with self._store.reading() as reading:
            return Limits(band, reading.left_out(gallery.gallery_id, band))

    def agreement(self, gallery: Gallery) -> MetadataAgreement:
        """Return how often the facts that filter disagree; of both where the filter is off."""
        is_off = not (gallery.filter_by_sex or gallery.filter_by_birth_year)
        by_sex = gallery.filter_by_sex or is_off
        tolerance = gallery.birth_year_tolerance if gallery.filter_by_birth_year or is_off else None
        key = (gallery.timeline_id, stated_size(gallery.template_count), by_sex, tolerance)
        known = self._agreements.get(gallery.gallery_id)
        if known is None or known[0] != key:
            counted = self._store.metadata_agreement(gallery.gallery_id, by_sex=by_sex, birth_year_tolerance=tolerance)
            known = self._agreements[gallery.gallery_id] = (key, counted)
        return known[1]
