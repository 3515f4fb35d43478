"""Who sends a request, as the routes are told."""

from typing import Annotated

from fastapi import Depends, Request

from service.access import LOCAL, Caller, Role
from service.errors import GalleryNotFound


async def current_caller(request: Request) -> Caller:  # async: FastAPI would give a plain function a thread
    """Return whom the request was proved to come from; `LOCAL` where nobody is asked."""
    found = getattr(request.state, "caller", LOCAL)
    assert isinstance(found, Caller)
    return found


CallerDep = Annotated[Caller, Depends(current_caller)]


def require(caller: Caller, roles: frozenset[Role], gallery_id: str) -> None:
    """Raises GalleryNotFound: the caller has none of the roles there, and is told no more than of one that is not."""
    if not caller.may(roles, gallery_id):
        raise GalleryNotFound("there is no such gallery")
