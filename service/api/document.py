"""The HTTP application over its routes: errors, documentation without a CDN, the OpenAPI document."""

from typing import Any

import yaml
from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.routing import Mount, Route

from service.api import (
    access_reports,
    agreements,
    audit,
    calibrations,
    cases,
    clients,
    encounters,
    enrolments,
    error_responses,
    galleries,
    holds,
    identifications,
    images,
    index,
    keys,
    migrations,
    operations,
    plans,
    receipts,
    retention,
    subjects,
    sweeps,
    verifications,
)
from service.api.access import RULES, Scope, check_table
from service.api.guarded_route import PURPOSE_PATTERN, GuardedRoute
from service.api.strictness import only_known_parameters

_DESCRIPTION = """
Send a face, learn whether the person is already enrolled.

Every error has one body, `{"code", "message", "request_id"}`; `code` never changes. Every answer has an `X-Request-ID`,
yours if you send one. What is flagged is decided by people: `REVIEW` and `DUPLICATE` open a case.
"""

_REQUEST_ID = {"description": "Names the request in the logs.", "schema": {"type": "string"}}
_WWW_AUTHENTICATE = {"description": "Always `Bearer`.", "schema": {"type": "string"}}
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key (`bdk_...`), or a JSON Web Token of the OpenID Connect provider of the service.",
}
_PURPOSE = {
    "name": "X-Purpose",
    "in": "header",
    "required": False,
    "description": "What for, as a code of your own: it goes into the audit trail.",
    "schema": {"type": "string", "pattern": PURPOSE_PATTERN},
}
_RETRY_AFTER = {"description": "Seconds to wait before trying again.", "schema": {"type": "string"}}
# FastAPI's own telemetry would put messages of exceptions, which may hold personal data, into any exporter it finds
_NO_TELEMETRY = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
_ROUTES = (
    enrolments,
    identifications,
    verifications,
    subjects,
    encounters,
    images,
    access_reports,
    galleries,
    retention,
    holds,
    calibrations,
    audit,
    index,
    cases,
    sweeps,
    plans,
    migrations,
    keys,
    receipts,
    clients,
    agreements,
    operations,
)
# FastAPI's own pages, which it makes itself: they are open, and the table says so
_PAGES = frozenset({"/docs", "/docs/oauth2-redirect", "/redoc"})


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
        app.include_router(module.router, dependencies=[Depends(only_known_parameters)])
    app.state.methods = _methods(app)
    check_table(_served(app))
    error_responses.install(app)
    make_document = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_access(_with_headers(make_document()))
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


def _served(app: FastAPI) -> list[tuple[str, str]]:
    """Return the method and path of every route, with HEAD as GET. Raises LookupError: one is not guarded."""
    found: list[tuple[str, str]] = []
    for route in [*app.routes, *(route for module in _ROUTES for route in module.router.routes)]:
        if isinstance(route, Mount):
            found.append(("GET", route.path))
        elif isinstance(route, Route | APIRoute):
            is_page = route.path in _PAGES or not isinstance(route, APIRoute)
            if not is_page and not isinstance(route, GuardedRoute):
                raise LookupError(f"{route.path} is not guarded: its router needs route_class=GuardedRoute")
            found.extend((method, route.path) for method in (route.methods or set()) - {"HEAD"})
    return found


def _with_access(document: dict[str, Any]) -> dict[str, Any]:
    """Say of every route that is not open that it takes a credential and may be told what for."""
    components = document["components"]
    components["securitySchemes"] = {"bearer": _BEARER}
    components["parameters"] = {"X-Purpose": _PURPOSE}
    for rule in RULES:
        operation = document["paths"].get(rule.path, {}).get(rule.method.lower())
        if operation is not None and rule.scope is not Scope.OPEN:
            operation["security"] = [{"bearer": []}]
            operation.setdefault("parameters", []).append({"$ref": "#/components/parameters/X-Purpose"})
    return document


def _with_headers(document: dict[str, Any]) -> dict[str, Any]:
    """Add the headers that the middleware and the error table give to every answer."""
    document["components"]["headers"] = {
        "X-Request-ID": _REQUEST_ID,
        "Retry-After": _RETRY_AFTER,
        "WWW-Authenticate": _WWW_AUTHENTICATE,
    }
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                headers = response.setdefault("headers", {})
                headers["X-Request-ID"] = {"$ref": "#/components/headers/X-Request-ID"}
                if status == "401":
                    headers["WWW-Authenticate"] = {"$ref": "#/components/headers/WWW-Authenticate"}
                if status in {"429", "503"}:
                    headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    return document
