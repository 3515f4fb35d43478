"""JSON logs: one line an event, fields from an allow-list, nothing personal."""

import json
import logging
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from errno import errorcode
from types import TracebackType
from typing import TextIO

from service.errors import BiodedupError

ALLOWED_FIELDS = frozenset(
    {
        "address",
        "attempt",
        "bytes",
        "cases",
        "chain",
        "code",
        "complete",
        "count",
        "database",
        "done",
        "duration_ms",
        "encounters",
        "error_type",
        "expected_fnir",
        "file_count",
        "found",
        "gallery_id",
        "gallery_size",
        "hash",
        "high_water_mark",
        "host",
        "index",
        "job",
        "kind",
        "lag",
        "limit",
        "matched",
        "method",
        "model_id",
        "open_cases",
        "outcome",
        "pack_id",
        "phase",
        "pid",
        "port",
        "reason",
        "request_id",
        "route",
        "samples",
        "seq",
        "setting",
        "signal",
        "size_bytes",
        "status",
        "step",
        "templates",
        "timeline_id",
        "total",
        "version",
        "workers",
    }
)
"""Every field an event may have. Subjects, encounters, scores, images, embeddings and free text are not among them."""

MAX_TEXT = 200
"""Characters of a text value: longer ones are no names, codes or patterns."""

MAX_FRAMES = 30
"""Stack locations that are logged, the innermost."""

# their messages are constant texts about the server itself; other libraries may write values into theirs
PLAIN_LOGGERS = ("uvicorn", "uvicorn.error")

Value = str | int | float | bool | None

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that this thread or task works on; every event of it carries the id."""


@contextmanager
def bound_request_id(value: str | None = None) -> Iterator[str]:
    """Give every event inside the block the same request id: `value`, or a new one."""
    chosen = value or uuid.uuid4().hex
    token = request_id.set(chosen)
    try:
        yield chosen
    finally:
        request_id.reset(token)


def log_event(
    logger: logging.Logger,
    event: str,
    *,
    level: int = logging.INFO,
    error: BaseException | None = None,
    **fields: Value,
) -> None:
    """Write one event, for example `log_event(log, "enrolment.answered", gallery_id=..., outcome=...)`.

    Args:
        logger: of the calling module.
        event: noun and past participle, a constant.
        level: of the standard library.
        error: written as types, codes and places in the code; never its message, which may hold personal data.
        fields: names from `ALLOWED_FIELDS`.

    Raises:
        ValueError: a field is not allowed, or its value is not a short plain value.
    """
    forbidden = sorted(set(fields) - ALLOWED_FIELDS)
    if forbidden:
        raise ValueError(f"not allowed in logs: {', '.join(forbidden)}")
    for name, value in fields.items():
        if not _is_plain(value):
            raise ValueError(f"the value of {name} is not a short plain value")
    if logger.isEnabledFor(level):
        exc_info = (type(error), error, error.__traceback__) if error is not None else None
        logger.log(level, event, exc_info=exc_info, extra={"biodedup_fields": dict(fields)})


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, int)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, also for the records of libraries, whose values and messages are left out."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields: Mapping[str, Value] | None = getattr(record, "biodedup_fields", None)
        if fields is None:
            line |= _foreign(record)
        else:
            line |= {"event": record.msg} | dict(fields)
        if request_id.get() is not None:
            line.setdefault("request_id", request_id.get())
        error = record.exc_info[1] if record.exc_info else None
        if error is None and isinstance(record.msg, BaseException):
            error = record.msg
        if error is not None:
            line["errors"] = describe_error(error)
        return json.dumps(line, ensure_ascii=True, allow_nan=False, default=repr)


def _foreign(record: logging.LogRecord) -> dict[str, object]:
    """What may be kept of a library's record: where it was written, and the text before values are filled in."""
    kept: dict[str, object] = {"event": "library.logged", "place": f"{record.module}:{record.lineno}"}
    if record.name in PLAIN_LOGGERS and isinstance(record.msg, str):
        kept["text"] = record.msg.strip()[:MAX_TEXT]
    return kept


def describe_error(error: BaseException) -> list[dict[str, object]]:
    """The error and what caused it, outermost first: type, code and places, without any message or value."""
    described: list[dict[str, object]] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        entry: dict[str, object] = {"error_type": type(current).__qualname__}
        if isinstance(current, BiodedupError):
            entry["code"] = current.code
        if isinstance(current, OSError) and current.errno is not None:
            entry["errno"] = errorcode.get(current.errno, str(current.errno))
        entry["places"] = _places(current.__traceback__)
        described.append(entry)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return described


def _places(traceback: TracebackType | None) -> list[str]:
    """`module:line function` of each frame, outermost first."""
    places: list[str] = []
    while traceback is not None:
        frame = traceback.tb_frame
        module = str(frame.f_globals.get("__name__", os.path.basename(frame.f_code.co_filename)))  # noqa: PTH119
        places.append(f"{module}:{traceback.tb_lineno} {frame.f_code.co_name}")
        traceback = traceback.tb_next
    return places[-MAX_FRAMES:]


def configure_logs(level: str = "info", stream: TextIO | None = None) -> None:
    """Send every record of the process as JSON lines to `stream` (standard error when not given).

    Start uvicorn with `log_config=None, access_log=False`: the middleware of the service writes the access log.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.WARNING, getattr(logging, level.upper())))  # libraries tell of trouble only
    for name in ("service", *PLAIN_LOGGERS, "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(level.upper())
    logging.getLogger("uvicorn.access").disabled = True  # it writes full paths, and those hold subject ids
    logging.captureWarnings(capture=True)
