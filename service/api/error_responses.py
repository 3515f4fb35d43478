"""The one table from errors to HTTP: status, body and the examples in the OpenAPI document."""

import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service import errors
from service.api.safe_headers import headers_for
from service.errors import BiodedupError
from service.logs import log_event
from service.metrics import Metrics

_log = logging.getLogger(__name__)

RETRY_UNAVAILABLE_S = 2  # a restart of a database or a failover takes seconds

EXAMPLES: dict[type[BiodedupError], str] = {
    errors.BiodedupError: "something went wrong inside the service; it was logged under the request id",
    errors.InvalidRequest: "limit: Input should be less than or equal to 200",
    errors.RequestTooLarge: "the request is larger than 41943040 bytes",
    errors.UnsupportedMediaType: "send multipart/form-data or application/json",
    errors.MethodNotAllowed: "this path does not answer this method",
    errors.RequestMalformed: "the header content-length is given more than once",
    errors.HeadersTooLarge: "the address or the headers are too long",
    errors.RequestTimedOut: "the request did not arrive within 120 s",
    errors.Unauthenticated: "send `Authorization: Bearer` with an API key or a token that holds",
    errors.Forbidden: "your roles do not allow this here",
    errors.SampleRejected: "no usable face in this sample",
    errors.SampleEmpty: "the sample is empty",
    errors.SampleTooLarge: "the sample is larger than 10485760 bytes",
    errors.ImageFormatUnsupported: "send JPEG, PNG, WebP, BMP, TIFF or JPEG 2000",
    errors.ImageUnreadable: "the image is damaged or incomplete",
    errors.ImageTooManyPixels: "the image has more pixels than this service reads",
    errors.ImageTooSmall: "the image is too small to show a usable face",
    errors.ImageTooSlow: "the image takes too long to decode",
    errors.NoFace: "no face was found: one face, frontal, in even light",
    errors.SeveralFaces: "several faces were found: only one person may be in the picture",
    errors.FaceTooSmall: "the face is too small: come closer",
    errors.QualityTooLow: (
        "the photograph is not good enough to be found again: hold the camera still, and wait until it is in focus; "
        "turn the face to the camera"
    ),
    errors.TemplateUnusable: "the model could make nothing of this face: take another photograph",
    errors.LandmarksDegenerate: "eyes, nose and mouth could not be told apart: look into the camera",
    errors.NotFound: "there is nothing at this path",
    errors.GalleryNotFound: "there is no such gallery",
    errors.SubjectNotFound: "there is no such subject in this gallery",
    errors.EncounterNotFound: "there is no such encounter in this gallery",
    errors.EnrolmentNotFound: "there is no such enrolment in this gallery",
    errors.CaseNotFound: "there is no such case in this gallery",
    errors.SweepNotFound: "there is no such sweep in this gallery",
    errors.CalibrationNotFound: "the gallery has no calibration of this id",
    errors.ClientNotFound: "there is no such client",
    errors.ClientExists: "there is, or was, a client of this name",
    errors.GalleryExists: "there is a gallery of this name",
    errors.EncounterExists: "this encounter_id is already enrolled with other content",
    errors.EncounterOutdated: "others were enrolled while this encounter was inactive: enrol the sample again",
    errors.CaseVoid: "the records it compared were erased: there is nothing left to decide",
    errors.EncounterWithdrawn: "a withdrawn encounter cannot become active again",
    errors.IdempotencyKeyReused: "this Idempotency-Key was used for other content; use a new key for a new request",
    errors.NoReference: "this subject has no active template that may verify: enrol a new sample first",
    errors.SweepUnderway: "a sweep of this gallery has not ended yet",
    errors.GalleriesNotComparable: (
        "the galleries have different model packs: opencv-zoo in camp, buffalo_s in village"
    ),
    errors.CalibrationUnfit: "a calibration needs 100 people or more, not 12",
    errors.SampleNotFound: "this encounter keeps no sample at this position",
    errors.AuditChainBroken: "the gallery has no chain: its head was removed",
    errors.MigrationNotFound: "the model pack of this gallery was never changed",
    errors.MigrationUnderway: "the model pack of this gallery is being changed already",
    errors.MigrationNotReady: "templates are still being made",
    errors.PeopleWouldBeMissed: (
        "12 people have no template of buffalo_s and would be searched by opencv-zoo alone until they are captured "
        "again; accept it by their number: accepted_missing=12"
    ),
    errors.AgreementNotFound: "there is no such agreement",
    errors.PurposeNotAgreed: "X-Purpose: this is not what the agreement is for",
    errors.AgreementLimitReached: "no search is left today (UTC)",
    errors.HoldNotFound: "there is no legal hold on this subject itself",
    errors.RetentionReportNotFound: "there is no such retention report in this gallery",
    errors.LegalHold: "under legal hold since 2026-03-01T12:00:00Z: nothing is erased until it is lifted",
    errors.RetentionRuleChanged: "the rule was changed since the report was made: make another report",
    errors.RetentionReportExpired: "a report may be acted on for 24 hours: make another one",
    errors.RetentionUnderway: "a retention run of this gallery has not ended yet",
    errors.ClockDoubtful: "the clock is earlier than the gallery's last change: set it right, then make another report",
    errors.Overloaded: "too many samples are waiting; try again",
    errors.RateLimited: "more than 12000 requests in a minute; try again later",
    errors.StoreUnavailable: "the record does not answer",
    errors.IndexUnavailable: "the gallery changes faster than its index can follow; try again",
    errors.PackMismatch: "the gallery holds templates of another model than the one that is loaded",
    errors.PackNotLoaded: "the model pack buffalo_s is not loaded",
    errors.NotReady: "the service is starting; try again",
    errors.KeyRotationUnderway: "the master key is being rotated already",
    errors.MasterKeyUnusable: "the transit engine does not answer (ConnectError)",
    errors.VarUnusable: "the ledger of erasures cannot be written: the disk is full",
    errors.ProviderUnavailable: "the identity provider does not answer; try again",
}
"""What each error that can be met over HTTP says."""

ALWAYS: tuple[type[BiodedupError], ...] = (
    errors.BiodedupError,
    errors.InvalidRequest,
    errors.RequestMalformed,
    errors.HeadersTooLarge,
    errors.RequestTimedOut,
    errors.RateLimited,
    errors.Unauthenticated,
    errors.Forbidden,
    errors.StoreUnavailable,
    errors.NotReady,
    errors.ProviderUnavailable,
)
"""Errors that every route under /v1 can give."""

SAMPLE_ERRORS: tuple[type[BiodedupError], ...] = (
    errors.RequestTooLarge,
    errors.UnsupportedMediaType,
    errors.GalleryNotFound,
    *errors.all_errors(errors.SampleRejected)[1:],
    errors.Overloaded,
    errors.PackNotLoaded,
)
"""Further errors of the routes that read a sample."""


class ErrorOut(BaseModel):
    """The one error body. `code` is for machines and never changes, `message` for people."""

    model_config = ConfigDict(title="Error")

    code: str = Field(examples=["no_face"])
    message: str = Field(examples=["no face was found: one face, frontal, in even light"])
    request_id: str = Field(examples=["3f0c9a52d1b14bb0a3f6b5a0c2f5f1d7"])


def responses(*kinds: type[BiodedupError]) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route: each status with an example of each of its codes."""
    return documented(*ALWAYS, *kinds)


def documented(*kinds: type[BiodedupError]) -> dict[int | str, dict[str, Any]]:
    """Return the same of these errors alone."""
    by_status: dict[int, list[type[BiodedupError]]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    return {status: _description(by_status[status]) for status in sorted(by_status)}


def _description(kinds: Sequence[type[BiodedupError]]) -> dict[str, Any]:
    request_id = "3f0c9a52d1b14bb0a3f6b5a0c2f5f1d7"
    examples = {
        kind.code: {"value": {"code": kind.code, "message": EXAMPLES[kind], "request_id": request_id}} for kind in kinds
    }
    return {
        "model": ErrorOut,
        "description": ", ".join(f"`{kind.code}`" for kind in kinds),
        "content": {"application/json": {"examples": examples}},
    }


def to_response(error: BiodedupError, request: Request, headers: dict[str, str] | None = None) -> Response:
    """Return the one error body with the error's status."""
    metrics: Metrics = request.app.state.metrics
    metrics.errors.labels(code=error.code).inc()
    body = {"code": error.code, "message": error.message, "request_id": request.scope.get("request_id", "")}
    headers = dict(headers or {})
    if isinstance(error, errors.RequestTimedOut):
        headers["Connection"] = "close"  # nobody waits for the rest of its body
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status in {429, 503}:
        headers["Retry-After"] = str(retry_after_s(error))
    return Response(json.dumps(body), error.status, headers, media_type="application/json")


def retry_after_s(error: BiodedupError) -> int:
    return error.retry_after_s or RETRY_UNAVAILABLE_S


def explain(problems: Iterable[Any], known: Iterable[str]) -> str:
    """Name the first wrong field and what is wrong with it, without its value.

    Args:
        problems: as pydantic lists them.
        known: names that may be repeated; what else stands in a location is the caller's own text.
    """
    names = set(known)
    problem = next(iter(problems))
    if problem["type"] == "extra_forbidden":
        return f"unknown field; the fields are {', '.join(sorted(names))}"
    named = [str(step) for step in problem["loc"] if isinstance(step, int) or step in names]
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{'.'.join(named)}: {message}" if named else message


async def _deliberate(request: Request, error: Exception) -> Response:
    assert isinstance(error, BiodedupError)
    return to_response(error, request)


async def _invalid_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    # names of parameters come from the routes; only a body could bring names of its own, and bodies are read elsewhere
    known = {str(step) for problem in problems for step in problem["loc"][1:]}
    return to_response(errors.InvalidRequest(explain(problems, known)), request)


async def _from_framework(request: Request, error: Exception) -> Response:
    """Unknown paths and methods, as Starlette reports them."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        # Starlette names the methods of the first route of a path only
        path = getattr(request.scope.get("route"), "path", request.url.path)
        allowed: list[str] = request.app.state.methods.get(path, [])
        return to_response(
            errors.MethodNotAllowed(EXAMPLES[errors.MethodNotAllowed]), request, {"Allow": ", ".join(allowed)}
        )
    if error.status_code == 404:
        return to_response(errors.NotFound(EXAMPLES[errors.NotFound]), request)
    return to_response(errors.InvalidRequest("the request could not be read"), request)


async def _gone(request: Request, _error: Exception) -> Response:
    """The caller hung up while it was sending; nobody reads this answer."""
    return to_response(errors.InvalidRequest("the request ended early"), request)


async def _unexpected(request: Request, error: Exception) -> Response:
    """A fault of ours: logged by type and place, since its message may hold values."""
    request_id = request.scope.get("request_id", "")
    log_event(_log, "request.failed", level=logging.ERROR, error=error, request_id=request_id)
    # Starlette raises the fault again for the server to see, and uvicorn then closes the connection
    headers = {"X-Request-ID": request_id, "Connection": "close"}
    headers |= {name.decode(): value.decode() for name, value in headers_for(request.scope)}
    return to_response(BiodedupError(EXAMPLES[BiodedupError]), request, headers)


def install(app: FastAPI) -> None:
    """Answer every error of `app` with the one body.

    It reads `app.state.metrics`, and the methods of each path from `app.state.methods`.
    """
    app.add_exception_handler(BiodedupError, _deliberate)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)
    app.add_exception_handler(HTTPException, _from_framework)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)
