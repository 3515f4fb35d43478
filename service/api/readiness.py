"""Whether the service can answer, and the gauges that a scrape refreshes."""

import itertools
from typing import Literal

from pydantic import BaseModel

from service.api.context import Service
from service.domain import CaseKind, CaseVerdict, Gallery
from service.errors import BiodedupError
from service.fusion import comparisons_of


class ChecksOut(BaseModel):
    """What must hold before the service is ready."""

    models: bool
    store: bool
    index: bool


class ReadyGalleryOut(BaseModel):
    """A gallery's index beside its record."""

    gallery_id: str
    pack_id: str
    high_water_mark: int
    last_seq: int
    index_templates: int
    record_templates: int
    in_step: bool
    expected_fnir: float


class ReadinessOut(BaseModel):
    status: Literal["ready", "not_ready"]
    checks: ChecksOut
    galleries: list[ReadyGalleryOut]
    warnings: list[str]

    @classmethod
    def not_yet(cls, reason: str) -> "ReadinessOut":
        checks = ChecksOut(models=False, store=False, index=False)
        return cls(status="not_ready", checks=checks, galleries=[], warnings=[reason])

    def without_details(self) -> "ReadinessOut":
        """Whether the service is ready, and nothing of its galleries."""
        return self.model_copy(update={"galleries": [], "warnings": []})


def check(service: Service) -> ReadinessOut:
    """Ask the record, and compare each index with it."""
    if not _store_answers(service):
        reason = "the record does not answer, or is not migrated"
        return ReadinessOut.not_yet(reason).model_copy(
            update={"checks": ChecksOut(models=bool(service.packs.loaded()), store=False, index=False)}
        )
    recorded = service.store.galleries()
    galleries: list[ReadyGalleryOut] = []
    warnings: list[str] = []
    for gallery in recorded:
        try:
            galleries.append(_check_gallery(service, gallery, warnings))
        except BiodedupError as error:
            # the others are still worth reporting
            warnings.append(f"{gallery.gallery_id}: {error.message}")
    in_step = len(galleries) == len(recorded) and all(gallery.in_step for gallery in galleries)
    has_packs = {gallery.pack_id for gallery in recorded} <= set(service.packs.loaded())
    return ReadinessOut(
        status="ready" if in_step and has_packs else "not_ready",
        checks=ChecksOut(models=has_packs, store=True, index=in_step),
        galleries=galleries,
        warnings=warnings,
    )


def _store_answers(service: Service) -> bool:
    try:
        service.store.ping()
        return service.store.is_migrated()
    except BiodedupError:
        return False


def _check_gallery(service: Service, gallery: Gallery, warnings: list[str]) -> ReadyGalleryOut:
    """Raises PackNotLoaded, IndexUnavailable, StoreUnavailable."""
    rule = service.packs.rule(gallery)
    thresholds = rule.thresholds(gallery, comparisons_of(gallery))
    state, *standby = [service.matcher.state(gallery.gallery_id, pack_id) for pack_id in gallery.pack_ids]
    warnings.extend(f"{gallery.gallery_id}: {warning}" for warning in rule.warnings(thresholds))
    return ReadyGalleryOut(
        gallery_id=gallery.gallery_id,
        pack_id=gallery.pack_id,
        high_water_mark=state.high_water_mark,
        last_seq=state.last_seq,
        index_templates=state.index_templates,
        record_templates=state.record_templates,
        in_step=all(each.in_step for each in (state, *standby)),
        expected_fnir=thresholds.expected_fnir,
    )


def refresh_gauges(service: Service) -> None:
    """Set the gauges of every gallery; one that cannot be judged now keeps its last values."""
    try:
        galleries = service.store.galleries()
        for gallery in galleries:
            _refresh(service, gallery)
        for gallery in galleries:
            if gallery.pack_id in service.packs.loaded():
                service.accuracy.refresh(gallery)
    except BiodedupError:
        # the scrape goes on: the error counters and the missing change tell of it
        return


def _refresh(service: Service, gallery: Gallery) -> None:
    metrics, name = service.metrics, gallery.gallery_id
    lag = service.matcher.lag(gallery)
    metrics.gallery_templates.labels(gallery=name).set(gallery.template_count)
    metrics.standby_only_templates.labels(gallery=name).set(gallery.standby_only_count)
    metrics.open_cases.labels(gallery=name).set(service.store.open_case_count(name))
    metrics.show_retention(name, service.retention.figures(name))
    counts = service.store.verdict_counts(name)
    for kind, verdict in itertools.product(CaseKind, CaseVerdict):
        metrics.decided_cases.labels(gallery=name, kind=kind.value, verdict=verdict.value).set(
            counts.get((kind, verdict), 0)
        )
    metrics.index_lag_changes.labels(gallery=name).set(lag)
    metrics.miss_bound.labels(gallery=name).set(service.matcher.miss_bound(gallery))
    parts = service.matcher.parts(gallery)
    for state in ("open", "sealing", "sealed"):
        metrics.index_templates.labels(gallery=name, state=state).set(
            sum(part.templates for part in parts if part.state == state)
        )
    metrics.index_templates.labels(gallery=name, state="removed").set(sum(part.removed for part in parts))
    metrics.index_bytes.labels(gallery=name, place="ram").set(sum(part.ram_bytes for part in parts))
    metrics.index_bytes.labels(gallery=name, place="disk").set(sum(part.disk_bytes for part in parts))
    metrics.index_high_water_mark.labels(gallery=name).set(gallery.last_seq - lag)
    if gallery.pack_id in service.packs.loaded():
        rule = service.packs.rule(gallery)
        fnir = rule.thresholds(gallery, comparisons_of(gallery)).expected_fnir
        metrics.expected_fnir.labels(gallery=name).set(fnir)
        metrics.fnir_warning.labels(gallery=name).set(fnir > service.fnir_warning)
