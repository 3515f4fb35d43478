"""What the scores of a gallery mean: calibrations made of its templates or brought to it, and which one is used."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from service.calibration import Calibration
from service.calibration_fit import MatedScores, Source, calibrate, mated_scores
from service.decision import DecisionRule
from service.domain import Gallery, Reference, ThresholdChange, Thresholds
from service.errors import CalibrationNotFound, CalibrationUnfit
from service.packs import Packs
from service.population import Population, population_of
from service.ports import Store
from service.same_people import one_name

MOST_TEMPLATES = 4000  # 8 million pairs: some seconds of work
_BLOCKS = 80  # of a larger gallery: places where templates are taken from


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """A calibration of a gallery, and the thresholds that it gives at the gallery's present size.

    One of another model pack, kept from before a change of pack, gives none.
    """

    calibration: Calibration
    created_at: datetime | None  # None: it came with the pack
    is_used: bool
    thresholds: Thresholds | None
    warnings: tuple[str, ...]


class CalibrationService:
    """The use cases about calibrations. Nothing is ever deleted, so that each change can be taken back."""

    def __init__(self, store: Store, packs: Packs, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._packs = packs
        self._clock = clock

    def calibrations(self, gallery_id: str) -> list[CalibrationReport]:
        """Return that of the pack, then those made for the gallery, oldest first.

        Raises:
            GalleryNotFound, PackNotLoaded
        """
        gallery = self._gallery(gallery_id)
        own = self._packs.of(gallery.pack_id).rule.calibration
        kept = [(each.calibration, each.created_at) for each in self._store.calibrations(gallery_id)]
        return [self._report(gallery, *each) for each in [(own, None), *kept]]

    def make(self, gallery_id: str, seed: int = 0) -> CalibrationReport:
        """Make a calibration of the gallery's own templates, without any label, and keep it; it is not used yet.

        Nearly all pairs of a gallery are different people. Templates of one subject count as one person. Of a person
        under two names one is left out where a human decided so; the others are told apart by the fit. Of a large
        gallery a part is drawn.

        Raises:
            GalleryNotFound, PackNotLoaded
            CalibrationUnfit: the gallery has too few people.
        """
        gallery = self._gallery(gallery_id)
        pack = self._packs.of(gallery.pack_id)
        population = self._drawn(gallery, np.random.default_rng(seed))
        who = f"{population.people:,} people of the gallery {gallery_id} on {self._clock():%Y-%m-%d}"
        source = Source(gallery.pack_id, gallery.model_id or pack.embedder.model_id, "gallery", who)
        mated = mated_scores(population, who) or MatedScores.of(pack.rule.calibration)
        try:
            return self._keep(gallery, calibrate(source, population, mated, seed=seed))
        except ValueError as error:
            raise CalibrationUnfit(str(error)) from error

    def add(self, gallery_id: str, calibration: Calibration) -> CalibrationReport:
        """Keep a calibration that was made elsewhere, by `biodedup calibrate`; it is not used yet.

        Raises:
            GalleryNotFound, PackNotLoaded
            CalibrationUnfit: it was made for other templates than the gallery holds.
        """
        return self._keep(self._gallery(gallery_id), calibration)

    def use(self, gallery_id: str, calibration_id: str) -> CalibrationReport:
        """Judge the gallery by one of its calibrations from now on; earlier answers keep what they were given with.

        Raises:
            GalleryNotFound, PackNotLoaded
            CalibrationNotFound: the gallery has none of this id.
            CalibrationUnfit: it was made for other templates than the gallery holds.
        """
        chosen = next((each for each in self.calibrations(gallery_id) if _id(each) == calibration_id), None)
        if chosen is None:
            raise CalibrationNotFound("the gallery has no calibration of this id")
        kept_id = None if chosen.created_at is None else calibration_id

        def chosen_for(now: Gallery) -> Gallery:
            # its packs may have changed places since
            self._check(now, chosen.calibration)
            return replace(now, calibration_id=kept_id)

        def change_of(now: Gallery) -> ThresholdChange | None:
            return self._rule(now, chosen.calibration).threshold_change(now, "calibration")

        changed = self._store.update_gallery(gallery_id, chosen_for, change_of)
        return self._report(changed, chosen.calibration, chosen.created_at)

    def _gallery(self, gallery_id: str) -> Gallery:
        with self._store.reading() as reading:
            return reading.gallery(gallery_id)

    def _keep(self, gallery: Gallery, calibration: Calibration) -> CalibrationReport:
        self._check(gallery, calibration)
        # before it is kept: one that cannot be reported would be in the way for ever
        self._report(gallery, calibration, self._clock())
        self._store.add_calibration(gallery.gallery_id, calibration)
        return next(each for each in self.calibrations(gallery.gallery_id) if _id(each) == calibration.calibration_id)

    def _check(self, gallery: Gallery, calibration: Calibration) -> None:
        """Raises CalibrationUnfit."""
        model_id = gallery.model_id or self._packs.of(gallery.pack_id).embedder.model_id
        if (calibration.pack_id, calibration.model_id) != (gallery.pack_id, model_id):
            raise CalibrationUnfit(
                f"the calibration is for templates of {calibration.model_id} ({calibration.pack_id}), "
                f"and the gallery holds those of {model_id} ({gallery.pack_id})"
            )

    def _report(self, gallery: Gallery, calibration: Calibration, created_at: datetime | None) -> CalibrationReport:
        if calibration.pack_id != gallery.pack_id:
            of_another = f"It is of another model pack ({calibration.pack_id}) than the one that is searched now."
            return CalibrationReport(calibration, created_at, is_used=False, thresholds=None, warnings=(of_another,))
        rule = self._rule(gallery, calibration)
        thresholds = rule.thresholds(gallery, gallery.template_count)
        is_used = calibration.calibration_id == self._packs.rule(gallery).calibration.calibration_id
        return CalibrationReport(calibration, created_at, is_used, thresholds, rule.warnings(thresholds))

    def _rule(self, gallery: Gallery, calibration: Calibration) -> DecisionRule:
        return replace(self._packs.of(gallery.pack_id).rule, calibration=calibration)

    def _drawn(self, gallery: Gallery, rng: np.random.Generator) -> Population:
        """Return templates of the gallery, those of a subject together: all, or as many as are compared at once."""
        found: dict[int, Reference] = {}
        with self._store.reading() as reading:
            last = 2**63 - 1
            if gallery.template_count <= MOST_TEMPLATES:
                drawn = reading.references_after(gallery.gallery_id, 0, last, MOST_TEMPLATES, gallery.pack_id)
                found = {each.reference_id: each for each in drawn}
            else:
                highest = max(reading.last_reference_id(), 1)  # the gallery was read before: all may be erased by now
                for start in sorted(rng.integers(0, highest, _BLOCKS).tolist()):
                    most = MOST_TEMPLATES // _BLOCKS
                    drawn = reading.references_after(gallery.gallery_id, start, last, most, gallery.pack_id)
                    found |= {each.reference_id: each for each in drawn}
        # of one person under two names only one stays; what did not look like its own subject may be anyone
        names = one_name(self._store.same_people(gallery.gallery_id))
        usable = sorted(
            (
                each
                for each in found.values()
                if each.verifies and names.get(each.subject_id, each.subject_id) == each.subject_id
            ),
            key=lambda each: each.subject_id,
        )
        if not usable:
            raise CalibrationUnfit("the gallery holds no template that can be compared")
        return population_of(np.stack([each.embedding for each in usable]), [each.subject_id for each in usable])


def _id(report: CalibrationReport) -> str:
    return report.calibration.calibration_id
