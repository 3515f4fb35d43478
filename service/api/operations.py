"""For those who run the service: alive, ready, metrics, and the way to the documentation."""

from collections.abc import Callable
from typing import Literal, TypeVar, cast

import anyio
import anyio.to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from service.api.access import STATE_READERS
from service.api.auth import authentication_of
from service.api.context import RETRY_WHILE_STARTING_S, startup_of
from service.api.error_responses import documented
from service.api.guarded_route import GuardedRoute
from service.api.readiness import ReadinessOut, check, refresh_gauges
from service.api.request_limits import limits_of
from service.api.schemas import answer
from service.errors import (
    BiodedupError,
    Forbidden,
    InvalidRequest,
    NotReady,
    ProviderUnavailable,
    StoreUnavailable,
    Unauthenticated,
)
from service.metrics import Metrics

router = APIRouter(tags=["operations"], route_class=GuardedRoute)

T = TypeVar("T")

_THREADS = 4


class AliveOut(BaseModel):
    status: Literal["alive"] = "alive"


async def _aside(request: Request, work: Callable[[], T]) -> T:
    """Run `work` on threads of its own: under load all others may be waiting for a face to be embedded."""
    state = request.app.state
    if not hasattr(state, "operations_threads"):
        state.operations_threads = anyio.CapacityLimiter(_THREADS)
    return await anyio.to_thread.run_sync(work, limiter=cast(anyio.CapacityLimiter, state.operations_threads))


@router.get("/healthz", summary="Is the process alive?", response_model=AliveOut)
async def read_health() -> Response:
    return answer(AliveOut())


@router.get(
    "/readyz",
    summary="Can the service answer?",
    response_model=ReadinessOut,
    responses={
        503: {"model": ReadinessOut, "description": "Not yet, or not any more; `warnings` says why."},
        **documented(Unauthenticated),
    },
)
async def read_readiness(request: Request) -> Response:
    """Models loaded, record reachable and migrated, every index in step with its record.

    Galleries and warnings are for those who run the service; without a credential the answer says whether it is ready.
    """
    try:
        service = startup_of(request).service()
        found = await _aside(request, lambda: check(service))
        if not await _may_see_state(request):
            found = found.without_details()
    except Unauthenticated:
        raise
    except BiodedupError as error:
        found = ReadinessOut.not_yet(error.message)
    if found.status == "ready":
        return answer(found)
    return answer(found, 503, {"Retry-After": str(RETRY_WHILE_STARTING_S)})


async def _may_see_state(request: Request) -> bool:
    """Raises Unauthenticated: a credential was sent that does not hold. StoreUnavailable, ProviderUnavailable."""
    authentication = authentication_of(request)
    if authentication.is_on and "Authorization" not in request.headers:
        return False
    caller = await authentication.caller(request)
    limits_of(request).admit(request.scope, caller)
    return caller.may(STATE_READERS)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **documented(InvalidRequest, Unauthenticated, Forbidden, StoreUnavailable, NotReady, ProviderUnavailable),
    },
)
async def read_metrics(request: Request) -> Response:
    metrics: Metrics = request.app.state.metrics
    try:
        service = startup_of(request).service()
        await _aside(request, lambda: refresh_gauges(service))
    except NotReady:
        pass  # a scrape during the start still gets what there is
    content = await _aside(request, metrics.render)
    return Response(content, media_type=CONTENT_TYPE_LATEST)


@router.get("/", include_in_schema=False)
async def to_documentation() -> Response:
    return RedirectResponse("docs")
