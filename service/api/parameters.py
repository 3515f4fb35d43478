"""The parameters that routes share: identifiers, pages, headers; each with its limits."""

import hashlib
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request
from pydantic import StringConstraints

from service.access import LOCAL, Caller
from service.errors import InvalidRequest

GALLERY_ID_PATTERN = r"^[a-z0-9][a-z0-9_-]*$"
MAX_GALLERY_ID = 64
IDEMPOTENCY_KEY_PATTERN = r"^[!-~]{1,128}$"
RECORD_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]*$"
MAX_ROW_NUMBER = 2**63 - 1

GalleryName = Annotated[str, StringConstraints(pattern=GALLERY_ID_PATTERN, max_length=MAX_GALLERY_ID)]
"""Galleries are metric labels: short, without capitals."""

RecordId = Annotated[str, StringConstraints(pattern=RECORD_ID_PATTERN, max_length=128)]

_RECORD_PATH = Path(pattern=RECORD_ID_PATTERN, max_length=128)

GalleryPath = Annotated[
    str, Path(alias="gallery_id", pattern=GALLERY_ID_PATTERN, max_length=MAX_GALLERY_ID, examples=["default"])
]
SubjectPath = Annotated[str, _RECORD_PATH]
EncounterPath = Annotated[str, _RECORD_PATH]
EnrolmentPath = Annotated[str, _RECORD_PATH]
CasePath = Annotated[int, Path(ge=1, le=MAX_ROW_NUMBER)]
ReportPath = Annotated[int, Path(ge=1, le=MAX_ROW_NUMBER)]
SweepPath = Annotated[int, Path(ge=1, le=MAX_ROW_NUMBER)]

Limit = Annotated[int, Query(ge=1, le=200, description="Items on one page.")]
SubjectFilter = Annotated[str | None, Query(pattern=RECORD_ID_PATTERN, max_length=128)]
SweepFilter = Annotated[
    int | None, Query(ge=1, le=MAX_ROW_NUMBER, description="Only the cases that this sweep opened.")
]
AfterId = Annotated[
    str | None, Query(pattern=RECORD_ID_PATTERN, max_length=128, description="`next_after` of the page before.")
]
AfterNumber = Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$", description="`next_after` of the page before.")]

_KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=IDEMPOTENCY_KEY_PATTERN,
        description="A name of your own for this request: a repeat within 24 h gets the first answer.",
    ),
]


async def _read_idempotency_key(request: Request, idempotency_key: _KeyHeader = None) -> str | None:
    """Raises InvalidRequest."""
    if len(request.headers.getlist("Idempotency-Key")) > 1:
        raise InvalidRequest("Idempotency-Key: send it once")
    return idempotency_key


IdempotencyKey = Annotated[str | None, Depends(_read_idempotency_key)]


def own_name(caller: Caller, idempotency_key: str | None) -> str | None:
    """Return the name a request is kept under: two clients that count from 1 must not get each other's answers."""
    if idempotency_key is None or caller == LOCAL:
        return idempotency_key
    return hashlib.sha256(f"{caller.client_id}\0{idempotency_key}".encode()).hexdigest()


DEFAULT_LIMIT = 50
