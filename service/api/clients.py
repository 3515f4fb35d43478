"""Clients: which programs may call with API keys, what they may do, and until when."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.access import MAX_GRANTS, Client, ClientKey, grant_texts, read_grants
from service.api.bodies import OnlyJsonBody
from service.api.context import ServiceDep
from service.api.error_responses import responses
from service.api.guarded_route import GuardedRoute
from service.api.openapi_bodies import json_body
from service.api.sample_schemas import Out
from service.api.samples import read_json
from service.api.schemas import answer
from service.clients import NewKey
from service.errors import ClientExists, ClientNotFound, RequestTooLarge, UnsupportedMediaType

router = APIRouter(tags=["clients"], route_class=GuardedRoute)

_NAME_PATTERN = r"^[a-z0-9][a-z0-9_.-]*$"
_MAX_NAME = 64
_MAX_LIFETIME_S = 3650 * 86_400
_MAX_OVERLAP_S = 30 * 86_400
_DAY_S = 86_400
_BODY = (RequestTooLarge, UnsupportedMediaType)
_SHOWN_ONCE = {"Cache-Control": "no-store"}

ClientPath = Annotated[str, Path(pattern=_NAME_PATTERN, max_length=_MAX_NAME)]


def _grant(text: str) -> str:
    """Raises ValueError."""
    read_grants([text])
    return text


GrantText = Annotated[str, AfterValidator(_grant)]
Lifetime = Annotated[
    int | None,
    Field(ge=60, le=_MAX_LIFETIME_S, description="Seconds until the key ends; by default as the settings say."),
]


class ClientIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=_NAME_PATTERN, max_length=_MAX_NAME)]
    grants: Annotated[
        list[GrantText],
        Field(
            max_length=MAX_GRANTS,
            description="`ROLE:GALLERY`, or `ROLE:*` for all galleries; none for who is only a partner. A gallery may "
            "be made later.",
        ),
    ]
    lifetime_s: Lifetime = None


class RotationIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    overlap_s: Annotated[int, Field(ge=0, le=_MAX_OVERLAP_S, description="Until the earlier keys end.")] = _DAY_S
    lifetime_s: Lifetime = None


class ClientKeyOut(Out):
    key_id: str = Field(description="The part of the key between `bdk_` and the next `_`.")
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None = Field(description="To a minute or two.")
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: ClientKey) -> "ClientKeyOut":
        return cls(
            key_id=key.key_id,
            created_at=key.created_at,
            expires_at=key.expires_at,
            last_used_at=key.last_used_at,
            revoked_at=key.revoked_at,
        )


class ClientOut(Out):
    name: str
    grants: list[str]
    created_at: datetime
    revoked_at: datetime | None
    keys: list[ClientKeyOut] = Field(description="Oldest first.")

    @classmethod
    def of(cls, client: Client) -> "ClientOut":
        return cls(**_fields(client))


class NewKeyOut(ClientOut):
    key: str = Field(description="Shown this once: nobody can read it again.")

    @classmethod
    def of_new(cls, made: NewKey) -> "NewKeyOut":
        return cls(**_fields(made.client), key=made.key)


class ClientsOut(Out):
    items: list[ClientOut]


def _fields(client: Client) -> dict[str, Any]:
    return {
        "name": client.name,
        "grants": grant_texts(client.grants),
        "created_at": client.created_at,
        "revoked_at": client.revoked_at,
        "keys": [ClientKeyOut.of(key) for key in client.keys],
    }


def _lifetime(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


@router.get("/v1/clients", summary="List clients", response_model=ClientsOut, responses=responses())
def list_clients(service: ServiceDep) -> Response:
    """Return all clients in the order of their names, revoked ones among them, without their keys."""
    return answer(ClientsOut(items=[ClientOut.of(client) for client in service.clients.clients()]))


@router.post(
    "/v1/clients",
    status_code=201,
    summary="Add a client",
    response_model=NewKeyOut,
    responses=responses(ClientExists, *_BODY),
    openapi_extra=json_body(ClientIn, {"name": "desk-7", "grants": ["enroller:default"]}),
)
def add_client(service: ServiceDep, body: OnlyJsonBody) -> Response:
    """Make a client with its first key, which is in this answer and nowhere else. A name is given once."""
    wanted = read_json(body, ClientIn)
    made = service.clients.add(wanted.name, read_grants(wanted.grants), _lifetime(wanted.lifetime_s))
    return answer(NewKeyOut.of_new(made), 201, _SHOWN_ONCE)


@router.post(
    "/v1/clients/{name}/rotations",
    status_code=201,
    summary="Give a client another key",
    response_model=NewKeyOut,
    responses=responses(ClientNotFound, *_BODY),
    openapi_extra=json_body(RotationIn, {"overlap_s": _DAY_S}),
)
def rotate_client(service: ServiceDep, name: ClientPath, body: OnlyJsonBody) -> Response:
    """Make a further key; those that the client has end after the overlap, unless they end sooner."""
    wanted = read_json(body, RotationIn)
    made = service.clients.rotate(name, timedelta(seconds=wanted.overlap_s), _lifetime(wanted.lifetime_s))
    return answer(NewKeyOut.of_new(made), 201, _SHOWN_ONCE)


@router.delete(
    "/v1/clients/{name}", summary="Revoke a client", response_model=ClientOut, responses=responses(ClientNotFound)
)
def revoke_client(service: ServiceDep, name: ClientPath) -> Response:
    """End a client and all its keys at once and for good.

    Other processes on the same database notice it within two seconds.
    """
    return answer(ClientOut.of(service.clients.revoke(name)))
