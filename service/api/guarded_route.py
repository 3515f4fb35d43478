"""The way of every request: who calls, whether they may, and on whose behalf the work is done."""

import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute

from service.access import Caller
from service.acting import Actor, acting_as
from service.api.access import Scope, rule_of
from service.api.auth import authentication_of
from service.api.request_limits import limits_of
from service.errors import InvalidRequest

PURPOSE_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,63}$"

_PURPOSE = re.compile(PURPOSE_PATTERN)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class GuardedRoute(APIRoute):
    """A route whose row in the table of `access.py` is held before anything else of it is done.

    Raises:
        LookupError: while it is made, where the table has no row for it.
    """

    def get_route_handler(self) -> Handler:
        rule, inner = rule_of(self.methods or (), self.path), self.allowed_handler()
        if rule.scope is Scope.OPEN:
            return inner

        async def handle(request: Request) -> Response:
            caller = await authentication_of(request).caller(request)
            limits_of(request).admit(request.scope, caller)
            rule.check(caller, request.path_params.get("gallery_id"))
            request.state.caller = caller
            actor = Actor(caller.client_id, _purpose(request), request_id=request.scope.get("request_id"))
            with acting_as(actor):
                return await inner(request)

        return handle

    def allowed_handler(self) -> Handler:
        """Return what answers a request of somebody who may."""
        return super().get_route_handler()


def _purpose(request: Request) -> str | None:
    """Raises InvalidRequest."""
    given = request.headers.getlist("X-Purpose")
    if not given:
        return None
    if len(given) > 1 or not _PURPOSE.fullmatch(given[0]):
        raise InvalidRequest("X-Purpose: send one code, of a to z, 0 to 9, `_`, `.` and `-`, at most 64 characters")
    return given[0]


async def current_caller(request: Request) -> Caller:  # async: FastAPI would give a plain function a thread
    found = request.state.caller
    assert isinstance(found, Caller)
    return found


CallerDep = Annotated[Caller, Depends(current_caller)]
