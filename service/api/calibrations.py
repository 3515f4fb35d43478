"""What the scores of a gallery mean: its calibrations, and which one is used."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.bodies import OnlyJsonBody
from service.api.context import ServiceDep
from service.api.error_responses import responses
from service.api.guarded_route import GuardedRoute
from service.api.openapi_bodies import json_body
from service.api.parameters import GalleryPath
from service.api.sample_schemas import Out
from service.api.samples import read_json
from service.api.schemas import ThresholdsOut, answer
from service.calibration import Calibration
from service.calibrations import CalibrationReport
from service.errors import (
    CalibrationNotFound,
    CalibrationUnfit,
    GalleryNotFound,
    InvalidRequest,
    PackNotLoaded,
    RequestTooLarge,
    UnsupportedMediaType,
)

router = APIRouter(tags=["calibrations"], route_class=GuardedRoute)

_MAX_ID = 96
_ERRORS = (GalleryNotFound, PackNotLoaded, RequestTooLarge, UnsupportedMediaType)


class CalibrationIn(BaseModel):
    """Nothing: make one of the gallery's own templates. Or one that `biodedup calibrate` wrote."""

    model_config = ConfigDict(extra="forbid")

    calibration: dict[str, Any] | None = Field(None, description="The content of a calibration file.")


class CalibrationUseIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    calibration_id: Annotated[str, Field(min_length=1, max_length=_MAX_ID)]


class CalibrationOut(Out):
    """A calibration, and the thresholds that it gives at the gallery's present size."""

    calibration_id: str
    model_id: str
    method: Literal["photographs", "gallery"] = Field(
        description="Made of labelled photographs, or of the templates of a gallery."
    )
    population: str
    people: int
    comparisons: int
    found_mates: float = Field(description="Pairs of people that look like one person under two names, by the fit.")
    measured_to: float = Field(description="Highest score that was measured; beyond, rates are extrapolated.")
    mated_people: int = Field(description="People on whom the expected misses rest.")
    mated_population: str
    created_at: datetime | None = Field(description="null: it came with the model pack.")
    is_used: bool
    thresholds: ThresholdsOut | None = Field(
        description="null: it is of another model pack than the one that is searched now, and judges nothing here."
    )
    warnings: list[str]

    @classmethod
    def of(cls, report: CalibrationReport) -> "CalibrationOut":
        calibration = report.calibration
        return cls(
            calibration_id=calibration.calibration_id,
            model_id=calibration.model_id,
            method="gallery" if calibration.method == "gallery" else "photographs",
            population=calibration.population,
            people=calibration.people,
            comparisons=calibration.comparisons,
            found_mates=calibration.found_mates,
            measured_to=calibration.measured_to,
            mated_people=calibration.mated_people,
            mated_population=calibration.mated_population,
            created_at=report.created_at,
            is_used=report.is_used,
            thresholds=None if report.thresholds is None else ThresholdsOut.model_validate(report.thresholds),
            warnings=list(report.warnings),
        )


class CalibrationsOut(Out):
    items: list[CalibrationOut]


@router.get(
    "/v1/galleries/{gallery_id}/calibrations",
    summary="List the calibrations of a gallery",
    response_model=CalibrationsOut,
    responses=responses(GalleryNotFound, PackNotLoaded),
)
def list_calibrations(service: ServiceDep, gallery_id: GalleryPath) -> Response:
    """Return the calibration of the model pack, then those kept for the gallery, oldest first."""
    reports = service.calibrations.calibrations(gallery_id)
    return answer(CalibrationsOut(items=[CalibrationOut.of(report) for report in reports]))


@router.post(
    "/v1/galleries/{gallery_id}/calibrations",
    status_code=201,
    summary="Make a calibration of a gallery, or bring one",
    response_model=CalibrationOut,
    responses=responses(CalibrationUnfit, *_ERRORS),
    openapi_extra=json_body(CalibrationIn, {}),
)
def add_calibration(service: ServiceDep, gallery_id: GalleryPath, body: OnlyJsonBody) -> Response:
    """Make a calibration of the gallery's own templates, without any label, or keep one that was made elsewhere.

    It is not used yet: compare its thresholds, then choose it. Making one takes some seconds.
    """
    wanted = read_json(body, CalibrationIn)
    if wanted.calibration is None:
        return answer(CalibrationOut.of(service.calibrations.make(gallery_id)), 201)
    try:
        calibration = Calibration.from_json(json.dumps(wanted.calibration))
    except ValueError as error:
        raise InvalidRequest(
            f"calibration: this is none that biodedup made, or it was changed since: {error}"
        ) from error
    return answer(CalibrationOut.of(service.calibrations.add(gallery_id, calibration)), 201)


@router.put(
    "/v1/galleries/{gallery_id}/calibration",
    summary="Choose the calibration of a gallery",
    response_model=CalibrationOut,
    responses=responses(CalibrationNotFound, CalibrationUnfit, *_ERRORS),
    openapi_extra=json_body(CalibrationUseIn, {"calibration_id": "opencv-zoo-0123456789ab"}),
)
def use_calibration(service: ServiceDep, gallery_id: GalleryPath, body: OnlyJsonBody) -> Response:
    """Judge the gallery by this calibration from now on. Choosing an earlier one takes a change back."""
    wanted = read_json(body, CalibrationUseIn)
    return answer(CalibrationOut.of(service.calibrations.use(gallery_id, wanted.calibration_id)))
