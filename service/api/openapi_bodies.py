"""The request bodies of the routes that read them themselves, as the OpenAPI document shows them."""

from typing import Any

from pydantic import BaseModel

from service.api.bodies import FORM, JSON
from service.api.request_schemas import (
    EnrolmentFields,
    EnrolmentIn,
    IdentificationFields,
    IdentificationIn,
    VerificationFields,
    VerificationIn,
)

_FILE = {"type": "string", "format": "binary", "description": "An image file with one face."}
# a grey square of 1 x 1 pixel, so that the example is short
_BASE64 = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
_FACTS = {"subject_id": "P-1041", "captured_at": "2026-05-04T09:30:00+03:00", "site": "KE-12", "birth_year": 1990}


def json_body(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that reads JSON."""
    return {"requestBody": {"required": True, "content": {JSON: {"schema": _schema(model), "example": example}}}}


def _either(form: dict[str, Any], model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    content = {FORM: form, JSON: {"schema": _schema(model), "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    assert "$defs" not in schema, "a request body is written where it is used"
    return schema


def _form(model: type[BaseModel], files: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """Return the schema of a form: the fields of `model` as texts, beside the files."""
    fields = {name: _text(name, part) for name, part in _schema(model)["properties"].items()}
    schema = {"type": "object", "additionalProperties": False, "properties": {**files, **fields}}
    return {**schema, "required": required} if required else schema


def _text(name: str, part: dict[str, Any]) -> dict[str, Any]:
    """A form knows no null: a field is given or not."""
    (kind,) = [kind for kind in part["anyOf"] if kind["type"] != "null"]
    described: dict[str, Any] = {key: part[key] for key in ("title", "description") if key in part}
    if name == "also_search":
        names = {"type": "string", "examples": ["camp-north,camp-south"]}
        return {**described, **names}
    if name == "labels":
        labels = {"type": "string", "contentMediaType": JSON, "description": "A JSON object of texts."}
        return {**described, **labels, "examples": ['{"campaign": "2026-spring"}']}
    return {**kind, **described}


ENROLMENT_BODY = _either(
    {"schema": _form(EnrolmentFields, {"sample": {"type": "array", "items": _FILE}}, []), "example": _FACTS},
    EnrolmentIn,
    {**_FACTS, "samples": [_BASE64], "labels": {"campaign": "2026-spring"}},
)
IDENTIFICATION_BODY = _either(
    {"schema": _form(IdentificationFields, {"sample": _FILE}, ["sample"])}, IdentificationIn, {"sample": _BASE64}
)
VERIFICATION_BODY = _either(
    {"schema": _form(VerificationFields, {"sample": _FILE, "reference_sample": _FILE}, ["sample"])},
    VerificationIn,
    {"sample": _BASE64, "subject_id": "P-1041"},
)
