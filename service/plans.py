"""The use case of planning a campaign, for a gallery or for a pack before there is one."""

from dataclasses import dataclass

from service.campaign import Campaign
from service.errors import InvalidRequest
from service.galleries import GalleryDefaults
from service.packs import Packs
from service.planning import Plan, Wish, plan
from service.ports import Store


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What is known of a campaign and what is asked. Without a gallery: the pack's, at the rates of new galleries."""

    size_end: int
    enrolments_per_day: int
    duplicate_share: float
    gallery_id: str | None = None
    pack_id: str | None = None
    size_now: int | None = None  # None: as many templates as the gallery has, without a gallery none
    review_fpir: float | None = None
    duplicate_fpir: float | None = None
    wanted_fnir: float | None = None
    capacity_per_day: int | None = None


@dataclass(frozen=True, slots=True)
class PlanAnswer:
    """A plan, and what it is for."""

    gallery_id: str | None
    pack_id: str
    plan: Plan


class PlanService:
    """Plans with the packs that are loaded. Nothing is recorded and nothing set."""

    def __init__(self, store: Store, packs: Packs, defaults: GalleryDefaults) -> None:
        self._store = store
        self._packs = packs
        self._defaults = defaults

    def plan(self, request: PlanRequest) -> PlanAnswer:
        """Raises GalleryNotFound, PackNotLoaded, InvalidRequest, StoreUnavailable."""
        if request.gallery_id is not None and request.pack_id is not None:
            raise InvalidRequest("give gallery_id or pack_id, not both: a gallery has its pack")
        pack_id, size_now = request.pack_id or self._defaults.pack_id, request.size_now
        review_fpir, duplicate_fpir = self._defaults.review_fpir, self._defaults.duplicate_fpir
        if request.gallery_id is not None:
            with self._store.reading() as reading:
                gallery = reading.gallery(request.gallery_id)
            rule = self._packs.rule(gallery)
            pack_id, review_fpir, duplicate_fpir = gallery.pack_id, gallery.review_fpir, gallery.duplicate_fpir
            size_now = gallery.template_count if size_now is None else size_now
        elif pack_id in self._packs.loaded():
            rule = self._packs.of(pack_id).rule
        else:
            # of a gallery this is a fault of the process (503); here it is one of the request
            raise InvalidRequest(f"pack_id: this pack is not loaded; loaded are {', '.join(self._packs.loaded())}")
        try:
            campaign = Campaign(
                size_now=size_now or 0,
                size_end=request.size_end,
                enrolments_per_day=request.enrolments_per_day,
                duplicate_share=request.duplicate_share,
            )
            wish = Wish(
                usual_review_fpir=review_fpir,
                usual_duplicate_fpir=duplicate_fpir if request.duplicate_fpir is None else request.duplicate_fpir,
                review_fpir=request.review_fpir,
                wanted_fnir=request.wanted_fnir,
                capacity_per_day=request.capacity_per_day,
                fnir_warning=rule.fnir_warning,
            )
        except ValueError as error:
            raise InvalidRequest(str(error)) from error
        return PlanAnswer(request.gallery_id, pack_id, plan(rule.calibration, campaign, wish))
