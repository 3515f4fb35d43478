"""Plans of campaigns: what a setting will cost in reviews and in missed duplicates, before anything is set."""

from fastapi import APIRouter, Response

from service.api.access import PLANNERS, require
from service.api.bodies import OnlyJsonBody
from service.api.context import ServiceDep
from service.api.error_responses import responses
from service.api.guarded_route import CallerDep, GuardedRoute
from service.api.openapi_bodies import json_body
from service.api.plan_schemas import PlanIn, PlanOut
from service.api.samples import read_json
from service.api.schemas import answer
from service.errors import GalleryNotFound, PackNotLoaded, RequestTooLarge, UnsupportedMediaType
from service.plans import PlanRequest

router = APIRouter(tags=["plans"], route_class=GuardedRoute)

_EXAMPLE = {
    "gallery_id": "default",
    "size_end": 80_000,
    "enrolments_per_day": 600,
    "duplicate_share": 0.02,
    "capacity_per_day": 30,
}


@router.post(
    "/v1/plans",
    summary="Plan a campaign",
    response_model=PlanOut,
    responses=responses(GalleryNotFound, PackNotLoaded, RequestTooLarge, UnsupportedMediaType),
    openapi_extra=json_body(PlanIn, _EXAMPLE),
)
def make_plan(service: ServiceDep, caller: CallerDep, body: OnlyJsonBody) -> Response:
    """Say what a campaign will cost in reviews and in missed duplicates, each with an interval; nothing is set.

    `review_fpir` asks what that setting does, `wanted_fnir` which setting and capacity a share of misses takes,
    `capacity_per_day` alone which setting fits the reviewers; with none of them it is the gallery's own setting.
    """
    wanted = read_json(body, PlanIn)
    if wanted.gallery_id is not None:
        require(caller, PLANNERS, wanted.gallery_id)
    return answer(PlanOut.of(service.plans.plan(PlanRequest(**wanted.model_dump()))))
