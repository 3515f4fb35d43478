"""What may be read in two ways, or says nothing, is refused: doubled keys of JSON, parameters that nobody knows."""

import json
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from service.errors import InvalidRequest


def check_json(data: bytes) -> None:
    """Refuse JSON that readers understand differently. What is no JSON at all passes: pydantic says better what it is.

    Raises:
        InvalidRequest: an object names a key twice, a number is NaN or infinite, or it is nested too deeply to read.
    """
    try:
        json.loads(data, object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise InvalidRequest("the JSON is nested too deeply") from None
    except ValueError:
        return


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidRequest("the JSON names a key more than once in one object")
    return found


def _no_constant(_name: str) -> None:
    raise InvalidRequest("the JSON holds NaN or Infinity, which are no JSON")


async def only_known_parameters(request: Request) -> None:
    """Refuse a misspelt filter: without this it would be ignored, and the answer be taken for a filtered one.

    Raises:
        InvalidRequest
    """
    route = request.scope.get("route")
    if not request.scope["query_string"] or not isinstance(route, APIRoute) or not route.path.startswith("/v1"):
        return
    known = _query_names(route.dependant)
    given = [name for name, _ in request.query_params.multi_items()]
    if set(given) - known:
        raise InvalidRequest(f"unknown parameter; the parameters are {', '.join(sorted(known)) or 'none'}")
    if len(set(given)) < len(given):
        raise InvalidRequest("a parameter is given more than once")


def _query_names(dependant: Dependant) -> set[str]:
    names = {field.alias for field in dependant.query_params}
    return names.union(*(_query_names(each) for each in dependant.dependencies))
