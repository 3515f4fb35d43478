"""Galleries: made, tuned and described, each with its own pack and error rates."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import datetime

from service.domain import Gallery, GalleryCounts, MetadataAgreement, QualityGate, Thresholds
from service.errors import InvalidRequest
from service.filters import Filters, filter_warnings
from service.fusion import comparisons_of
from service.packs import Packs
from service.ports import Store


@dataclass(frozen=True, slots=True)
class GalleryDefaults:
    """What a new gallery gets where its maker says nothing."""

    pack_id: str
    review_fpir: float
    duplicate_fpir: float
    verification_fmr: float
    keep_samples: bool
    quality_gate: QualityGate = QualityGate.OFF


@dataclass(frozen=True, slots=True)
class GalleryReport:
    """A gallery, what it holds, and the thresholds that its next enrolment will use."""

    gallery: Gallery
    counts: GalleryCounts
    thresholds: Thresholds
    warnings: tuple[str, ...]
    agreement: MetadataAgreement  # of what the filter goes by; of both where it is off


@dataclass(frozen=True, slots=True)
class GalleryChange:
    """The fields of a gallery to set; None leaves one as it is."""

    pack_id: str | None = None
    review_fpir: float | None = None
    duplicate_fpir: float | None = None
    verification_fmr: float | None = None
    keep_samples: bool | None = None
    quality_gate: QualityGate | None = None
    filter_by_sex: bool | None = None
    filter_by_birth_year: bool | None = None
    birth_year_tolerance: int | None = None
    min_duplicate_age: int | None = None
    review_unknown_age: bool | None = None


class GalleryService:
    """The use cases about galleries themselves."""

    def __init__(self, store: Store, packs: Packs, defaults: GalleryDefaults, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._packs = packs
        self._defaults = defaults
        self._clock = clock
        self._filters = Filters(store)

    def create(self, gallery_id: str, wanted: GalleryChange) -> GalleryReport:
        """Raises GalleryExists, PackNotLoaded, InvalidRequest."""
        blank = Gallery(
            gallery_id=gallery_id,
            pack_id=self._defaults.pack_id if wanted.pack_id is None else wanted.pack_id,
            review_fpir=self._defaults.review_fpir,
            duplicate_fpir=self._defaults.duplicate_fpir,
            verification_fmr=self._defaults.verification_fmr,
            keep_samples=self._defaults.keep_samples,
            created_at=self._clock(),
            quality_gate=self._defaults.quality_gate,
        )
        self._store.create_gallery(self._allowed(_changed(blank, wanted), wanted))
        return self.report(gallery_id)

    def update(self, gallery_id: str, wanted: GalleryChange) -> GalleryReport:
        """Set what is given, of the gallery as it is then; earlier answers keep the thresholds they were given with.

        Raises:
            GalleryNotFound, PackNotLoaded, InvalidRequest
        """

        def revised(gallery: Gallery) -> Gallery:
            if wanted.pack_id not in {None, gallery.pack_id}:
                raise InvalidRequest(
                    "the pack of a gallery cannot be changed: templates of two packs cannot be compared"
                )
            return self._allowed(_changed(gallery, wanted), wanted)

        self._store.update_gallery(
            gallery_id, revised, lambda gallery: self._packs.rule(gallery).threshold_change(gallery, "rates")
        )
        return self.report(gallery_id)

    def _allowed(self, gallery: Gallery, wanted: GalleryChange) -> Gallery:
        """Raises PackNotLoaded; InvalidRequest where a gate is asked for that could not judge."""
        judges = self._packs.of(gallery.pack_id).judges_quality
        if wanted.quality_gate not in {None, QualityGate.OFF} and not judges:
            raise InvalidRequest(
                "quality_gate: this model pack has no quality.json, so the quality of a sample cannot be judged"
            )
        return gallery

    def report(self, gallery_id: str) -> GalleryReport:
        """Raises GalleryNotFound, PackNotLoaded."""
        with self._store.reading() as reading:
            gallery = reading.gallery(gallery_id)
        rule = self._packs.rule(gallery)
        thresholds = rule.thresholds(gallery, comparisons_of(gallery))
        warnings = rule.warnings(thresholds)
        if gallery.quality_gate is not QualityGate.OFF and not self._packs.of(gallery.pack_id).judges_quality:
            warnings += ("The model pack has no quality.json: no sample is refused for its quality.",)
        agreement = self._filters.agreement(gallery)
        warnings += filter_warnings(gallery, agreement)
        return GalleryReport(gallery, self._store.gallery_counts(gallery_id), thresholds, warnings, agreement)

    def reports(self, is_wanted: Callable[[str], bool] = lambda _: True) -> list[GalleryReport]:
        """Return the galleries whose ids are wanted; the others are not looked at. Raises PackNotLoaded."""
        found = [gallery.gallery_id for gallery in self._store.galleries()]
        return [self.report(gallery_id) for gallery_id in found if is_wanted(gallery_id)]


def _changed(gallery: Gallery, wanted: GalleryChange) -> Gallery:
    given = {field.name: getattr(wanted, field.name) for field in fields(wanted) if field.name != "pack_id"}
    changed = replace(gallery, **{name: value for name, value in given.items() if value is not None})
    if changed.duplicate_fpir > changed.review_fpir:
        raise InvalidRequest("duplicate_fpir must not be above review_fpir: a duplicate needs stronger evidence")
    return changed
