"""Request bodies as they arrive: JSON, or a form whose parts stay in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import InvalidRequest, UnsupportedMediaType

MAX_PARTS = 64  # the fields of the largest form, and its samples, with room

_MAX_BOUNDARY = 70  # RFC 2046, 5.1.1

FORM = "multipart/form-data"
JSON = "application/json"

_Callback = Callable[..., None]


@dataclass(frozen=True, slots=True)
class JsonBody:
    """Bytes that should be JSON."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class FormBody:
    """The parts of a form in their order, each with its name."""

    parts: tuple[tuple[str, bytes], ...] = field(repr=False)


Body = JsonBody | FormBody


class _FormReader:
    """Collects the parts of multipart/form-data.

    Starlette's own reader spools large files to disk in plain text; a face must not touch the disk on its way.
    """

    def __init__(self, boundary: bytes) -> None:
        self._parts: list[tuple[str, bytearray]] = []
        self._name = b""
        self._value = b""
        self._disposition = b""
        self._has_ended = False
        callbacks: dict[str, _Callback] = {
            "on_part_begin": self._part_begins,
            "on_part_data": self._part_data,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_end": self._form_ends,
        }
        self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # its TypedDict fits no dict

    def write(self, chunk: bytes) -> None:
        """Raises InvalidRequest."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest("the form could not be read: it is not valid multipart/form-data") from error

    def finish(self) -> FormBody:
        """Raises InvalidRequest: the form stops before its end, and its last sample may be half a face."""
        if not self._has_ended:
            raise InvalidRequest("the form is cut off: its closing boundary is missing")
        return FormBody(tuple((name, bytes(data)) for name, data in self._parts))

    def _part_begins(self) -> None:
        if len(self._parts) == MAX_PARTS:
            raise InvalidRequest(f"the form has more than {MAX_PARTS} parts")
        self._disposition = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._parts[-1][1].extend(memoryview(data)[start:end])

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._parts.append((options.get(b"name", b"").decode("utf-8", "replace"), bytearray()))

    def _form_ends(self) -> None:
        self._has_ended = True


async def read_body(request: Request) -> Body:
    """Read the body in the form that its Content-Type names.

    Raises:
        InvalidRequest: the form is broken. RequestTooLarge. UnsupportedMediaType.
    """
    media_type, options = _media_type(request)
    if media_type == JSON.encode():
        return JsonBody(await request.body())
    if media_type != FORM.encode():
        raise UnsupportedMediaType(f"send {FORM} or {JSON}")
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= _MAX_BOUNDARY:
        raise InvalidRequest(f"the Content-Type must name a boundary of 1 to {_MAX_BOUNDARY} characters")
    reader = _FormReader(boundary)
    async for chunk in request.stream():
        if chunk:
            reader.write(chunk)
    return reader.finish()


async def read_json_body(request: Request) -> JsonBody:
    """Raises RequestTooLarge, UnsupportedMediaType."""
    media_type, _ = _media_type(request)
    if media_type != JSON.encode():
        raise UnsupportedMediaType(f"send {JSON}")
    return JsonBody(await request.body())


def _media_type(request: Request) -> tuple[bytes, dict[bytes, bytes]]:
    """Raises UnsupportedMediaType: its text is in another encoding than UTF-8."""
    media_type, options = parse_options_header(request.headers.get("content-type"))
    if options.get(b"charset", b"utf-8").lower() not in {b"utf-8", b"utf8", b"us-ascii"}:
        raise UnsupportedMediaType("send texts in UTF-8")
    return media_type, options


AnyBody = Annotated[Body, Depends(read_body)]
OnlyJsonBody = Annotated[JsonBody, Depends(read_json_body)]
