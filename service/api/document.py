"""The HTTP application over its routes: errors, documentation without a CDN, the OpenAPI document."""

from typing import Any

import yaml
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.routing import Route

from service.api import (
    agreements,
    calibrations,
    cases,
    encounters,
    enrolments,
    error_responses,
    galleries,
    identifications,
    index,
    migrations,
    operations,
    plans,
    subjects,
    sweeps,
    verifications,
)

_DESCRIPTION = """
Send a face, learn whether the person is already enrolled.

Every error has one body, `{"code", "message", "request_id"}`; `code` never changes. Every answer has an `X-Request-ID`,
yours if you send one. What is flagged is decided by people: `REVIEW` and `DUPLICATE` open a case.
"""

_REQUEST_ID = {"description": "Names the request in the logs.", "schema": {"type": "string"}}
_RETRY_AFTER = {"description": "Seconds to wait before trying again.", "schema": {"type": "string"}}
# FastAPI's own telemetry would put messages of exceptions, which may hold personal data, into any exporter it finds
_NO_TELEMETRY = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
_ROUTES = (
    enrolments,
    identifications,
    verifications,
    subjects,
    encounters,
    galleries,
    calibrations,
    index,
    cases,
    sweeps,
    plans,
    migrations,
    agreements,
    operations,
)


def create_api(version: str, **options: Any) -> FastAPI:
    """Return the application with all routes, without anything behind them.

    Args:
        version: of biodedup.
        options: of FastAPI, such as its lifespan.
    """
    app: FastAPI = FastAPIOffline(
        title="biodedup",
        version=version,
        description=_DESCRIPTION,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
        **options,
    )
    for module in _ROUTES:
        app.include_router(module.router)
    app.state.methods = _methods(app)
    error_responses.install(app)
    make_document = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_headers(make_document())
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


def to_yaml(app: FastAPI) -> str:
    """Return the OpenAPI document as YAML, in the order of the routes."""
    return yaml.safe_dump(app.openapi(), sort_keys=False, allow_unicode=True, width=120)


def _methods(app: FastAPI) -> dict[str, list[str]]:
    """Return the methods that each path answers."""
    found: dict[str, set[str]] = {}
    routes = [route for module in _ROUTES for route in module.router.routes] + app.routes
    for route in routes:
        if isinstance(route, Route | APIRoute):
            found.setdefault(route.path, set()).update(route.methods or ())
    return {path: sorted(methods) for path, methods in found.items()}


def _with_headers(document: dict[str, Any]) -> dict[str, Any]:
    """Add the headers that the middleware and the error table give to every answer."""
    document["components"]["headers"] = {"X-Request-ID": _REQUEST_ID, "Retry-After": _RETRY_AFTER}
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                headers = response.setdefault("headers", {})
                headers["X-Request-ID"] = {"$ref": "#/components/headers/X-Request-ID"}
                if status in {"429", "503"}:
                    headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    return document
