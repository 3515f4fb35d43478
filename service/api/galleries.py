"""Galleries: each with its own model pack and error rates."""

from fastapi import APIRouter, Response

from service.api.bodies import OnlyJsonBody
from service.api.context import Service, ServiceDep
from service.api.error_responses import responses
from service.api.guarded_route import CallerDep, GuardedRoute
from service.api.openapi_bodies import json_body
from service.api.parameters import GalleryPath
from service.api.request_schemas import GalleryChangeIn, GalleryIn
from service.api.samples import read_json
from service.api.schemas import CountsOut, GalleriesOut, GalleryOut, HeldOut, MetadataOut, ThresholdsOut, answer
from service.errors import (
    GalleryExists,
    GalleryNotFound,
    InvalidRequest,
    PackNotLoaded,
    RequestTooLarge,
    UnsupportedMediaType,
)
from service.galleries import GalleryChange, GalleryReport

router = APIRouter(tags=["galleries"], route_class=GuardedRoute)


@router.post(
    "/v1/galleries",
    status_code=201,
    summary="Make a gallery",
    response_model=GalleryOut,
    responses=responses(GalleryExists, RequestTooLarge, UnsupportedMediaType),
    openapi_extra=json_body(GalleryIn, {"gallery_id": "camp-7", "review_fpir": 0.03}),
)
def create_gallery(service: ServiceDep, body: OnlyJsonBody) -> Response:
    """Make an empty gallery; what is not given comes from the settings of the service."""
    wanted = read_json(body, GalleryIn)
    loaded = service.packs.loaded()
    if wanted.pack_id is not None and wanted.pack_id not in loaded:
        # for a gallery that exists this is a fault of the process (503); here it is one of the request
        raise InvalidRequest(f"pack_id: this pack is not loaded; loaded are {', '.join(loaded)}")
    return answer(_out(service, service.galleries.create(wanted.gallery_id, _change(wanted, wanted.pack_id))), 201)


@router.get("/v1/galleries", summary="List galleries", response_model=GalleriesOut, responses=responses(PackNotLoaded))
def list_galleries(service: ServiceDep, caller: CallerDep) -> Response:
    """Return the galleries in which the caller has a role, with what they hold."""
    return answer(GalleriesOut(items=[_out(service, report) for report in service.galleries.reports(caller.sees)]))


@router.get(
    "/v1/galleries/{gallery_id}",
    summary="Read one gallery",
    response_model=GalleryOut,
    responses=responses(GalleryNotFound, PackNotLoaded),
)
def read_gallery(service: ServiceDep, gallery_id: GalleryPath) -> Response:
    """Return a gallery, what it holds, and the thresholds that its next enrolment will use."""
    return answer(_out(service, service.galleries.report(gallery_id)))


@router.patch(
    "/v1/galleries/{gallery_id}",
    summary="Change the error rates, the filters, the sample policy or the quality gate of a gallery",
    response_model=GalleryOut,
    responses=responses(GalleryNotFound, PackNotLoaded, RequestTooLarge, UnsupportedMediaType),
    openapi_extra=json_body(GalleryChangeIn, {"review_fpir": 0.05}),
)
def change_gallery(service: ServiceDep, gallery_id: GalleryPath, body: OnlyJsonBody) -> Response:
    """Set what is given; earlier answers keep the thresholds they were given with."""
    wanted = read_json(body, GalleryChangeIn)
    return answer(_out(service, service.galleries.update(gallery_id, _change(wanted, None))))


def _change(wanted: GalleryChangeIn, pack_id: str | None) -> GalleryChange:
    return GalleryChange(
        pack_id=pack_id,
        review_fpir=wanted.review_fpir,
        duplicate_fpir=wanted.duplicate_fpir,
        verification_fmr=wanted.verification_fmr,
        keep_samples=wanted.keep_samples,
        quality_gate=wanted.quality_gate,
        filter_by_sex=wanted.filter_by_sex,
        filter_by_birth_year=wanted.filter_by_birth_year,
        birth_year_tolerance=wanted.birth_year_tolerance,
        min_duplicate_age=wanted.min_duplicate_age,
        review_unknown_age=wanted.review_unknown_age,
    )


def _out(service: Service, report: GalleryReport) -> GalleryOut:
    gallery, counts = report.gallery, report.counts
    figures = service.retention.figures(gallery.gallery_id)
    return GalleryOut(
        gallery_id=gallery.gallery_id,
        pack_id=gallery.pack_id,
        standby_pack_id=gallery.standby_pack_id,
        review_fpir=gallery.review_fpir,
        duplicate_fpir=gallery.duplicate_fpir,
        verification_fmr=gallery.verification_fmr,
        keep_samples=gallery.keep_samples,
        quality_gate=gallery.quality_gate,
        filter_by_sex=gallery.filter_by_sex,
        filter_by_birth_year=gallery.filter_by_birth_year,
        birth_year_tolerance=gallery.birth_year_tolerance,
        min_duplicate_age=gallery.min_duplicate_age,
        review_unknown_age=gallery.review_unknown_age,
        created_at=gallery.created_at,
        counts=CountsOut(
            subjects=counts.subjects,
            encounters=counts.encounters,
            templates=counts.templates,
            standby_only_templates=gallery.standby_only_count,
            biometric_exceptions=counts.biometric_exceptions,
            open_cases=counts.open_cases,
            outcomes=dict(counts.outcomes),
        ),
        thresholds=ThresholdsOut.model_validate(report.thresholds),
        metadata=MetadataOut.of(report.agreement),
        legal_hold=HeldOut.of(service.holds.covering(gallery.gallery_id)),
        held_subjects=figures.held_subjects,
        warnings=list(report.warnings),
    )
