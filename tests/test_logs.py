"""Logs are JSON lines of allowed fields, and hold nothing personal whatever is thrown at them."""

import io
import json
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from service.errors import NoFace, StoreUnavailable
from service.logs import ALLOWED_FIELDS, bound_request_id, configure_logs, describe_error, log_event, request_id

log = logging.getLogger("service.test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the logs of this test go; the loggers are as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    configure_logs("info", stream)
    yield stream
    logging.captureWarnings(capture=False)
    root.handlers, root.level = handlers, level
    for name in ("service", "uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger(name).disabled = False


def fail_with_a_name() -> None:
    raise LookupError("Ada Lovelace, born 1815")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line(stream: io.StringIO) -> None:
    log_event(log, "enrolment.answered", gallery_id="camp\nnorth", outcome="UNIQUE", duration_ms=12.5, complete=True)
    (line,) = lines(stream)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "service.test",
        "event": "enrolment.answered",
        "gallery_id": "camp\nnorth",
        "outcome": "UNIQUE",
        "duration_ms": 12.5,
        "complete": True,
    }


@pytest.mark.parametrize(
    "field",
    ["subject_id", "encounter_id", "score", "embedding", "image", "sample", "message", "birth_year", "operator_ref"],
)
def test_a_personal_field_is_refused(field: str, stream: io.StringIO) -> None:
    with pytest.raises(ValueError, match=field):
        log_event(log, "enrolment.answered", **{field: "x"})  # type: ignore[arg-type]
    assert stream.getvalue() == ""


def test_a_personal_field_is_refused_even_where_nothing_is_logged() -> None:
    with pytest.raises(ValueError, match="subject_id"):
        log_event(log, "enrolment.answered", level=logging.DEBUG, subject_id="x")


@pytest.mark.parametrize("value", [b"image", [1.0], {"a": 1}, np.zeros(3), "x" * 201])
def test_a_value_that_is_not_short_and_plain_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="outcome"):
        log_event(log, "enrolment.answered", outcome=value)


def test_no_allowed_field_could_name_a_person() -> None:
    words = {
        "subject",
        "subject_id",
        "encounter",
        "encounter_id",
        "enrolment_id",
        "score",
        "embedding",
        "image",
        "text",
        "name",
    }
    assert ALLOWED_FIELDS & words == set()


def test_events_of_a_request_carry_its_id(stream: io.StringIO) -> None:
    with bound_request_id("abc"):
        log_event(log, "sample.rejected", code="no_face")
    log_event(log, "index.rebuilt")
    assert [line.get("request_id") for line in lines(stream)] == ["abc", None]


def test_a_request_gets_an_id_when_it_has_none() -> None:
    with bound_request_id() as first, bound_request_id() as second:
        assert len(first) == len(second) == 32
        assert request_id.get() == second != first
    assert request_id.get() is None


def test_another_thread_does_not_see_the_id() -> None:
    seen: list[str | None] = []
    with bound_request_id("abc"):
        thread = threading.Thread(target=lambda: seen.append(request_id.get()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_an_error_is_logged_by_type_code_and_place_without_its_message(stream: io.StringIO) -> None:
    try:
        try:
            fail_with_a_name()
        except LookupError as error:
            raise StoreUnavailable("the store does not answer") from error
    except StoreUnavailable as error:
        log_event(log, "request.failed", level=logging.ERROR, error=error, code=error.code)
    (line,) = lines(stream)
    assert [(entry["error_type"], entry.get("code")) for entry in line["errors"]] == [
        ("StoreUnavailable", "store_unavailable"),
        ("LookupError", None),
    ]
    assert line["errors"][0]["places"][0].startswith("tests.test_logs:")
    assert "Ada" not in stream.getvalue()
    assert "answer" not in stream.getvalue()


def test_a_library_exception_is_logged_without_its_message(stream: io.StringIO) -> None:
    try:
        fail_with_a_name()
    except LookupError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")
    (line,) = lines(stream)
    assert line["text"] == "Exception in ASGI application"
    assert line["errors"][0]["error_type"] == "LookupError"
    assert "Ada" not in stream.getvalue()


def test_the_values_of_a_library_message_are_left_out(stream: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").info("Started %s", "Ada")
    logging.getLogger("sqlalchemy.engine").warning("parameters: Ada")
    logging.getLogger("sqlalchemy.engine").info("parameters: Ada")
    assert [line.get("text") for line in lines(stream)] == ["Started %s", None]
    assert "Ada" not in stream.getvalue()


def test_an_exception_in_the_place_of_a_message_is_an_error(stream: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").error(OSError(98, "Ada: address already in use"))
    (line,) = lines(stream)
    assert line["errors"] == [{"error_type": "OSError", "errno": "EADDRINUSE", "places": []}]
    assert "Ada" not in stream.getvalue()


def test_the_access_log_of_uvicorn_is_off(stream: io.StringIO) -> None:
    logging.getLogger("uvicorn.access").info('"GET /v1/galleries/default/subjects/ADA-1815"')
    assert stream.getvalue() == ""


def test_a_warning_becomes_a_line(stream: io.StringIO) -> None:
    logging.captureWarnings(capture=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure_logs("info", stream)
        warnings.warn("Ada", UserWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    assert [line["logger"] for line in lines(stream)] == ["py.warnings"]
    assert "Ada" not in stream.getvalue()


def test_libraries_are_heard_only_when_there_is_trouble(stream: io.StringIO) -> None:
    configure_logs("debug", stream)
    for name in ("faiss.loader", "faiss.index", "service.test"):
        logging.getLogger(name).info("x")
        logging.getLogger(name).warning("x")
    assert [(line["logger"], line["level"]) for line in lines(stream)] == [
        ("faiss.loader", "warning"),
        ("faiss.index", "warning"),
        ("service.test", "info"),
        ("service.test", "warning"),
    ]


def test_less_serious_events_are_left_out(stream: io.StringIO) -> None:
    log_event(log, "index.searched", level=logging.DEBUG)
    assert stream.getvalue() == ""


def test_a_circle_of_causes_ends() -> None:
    one, other = NoFace("a"), NoFace("b")
    one.__cause__, other.__cause__ = other, one
    assert len(describe_error(one)) == 2


def test_a_value_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="duration_ms"):
        log_event(log, "request.answered", duration_ms=float("nan"))
