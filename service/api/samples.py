"""From request bodies to the requests of the use cases."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from service.api.bodies import Body, FormBody, JsonBody
from service.api.error_responses import explain
from service.api.request_schemas import (
    EnrolmentFields,
    EnrolmentIn,
    IdentificationFields,
    IdentificationIn,
    VerificationFields,
    VerificationIn,
)
from service.api.strictness import check_json
from service.domain import CaptureFacts, EncounterFacts
from service.enrolment_request import EnrolmentRequest
from service.errors import InvalidRequest

M = TypeVar("M", bound=BaseModel)

# each element costs the validator hundreds of bytes and each problem with one a record of its own: a body that is small
# on the wire must not fill the memory. Base64 has no comma, and the longest honest body has a few hundred
_MAX_COMMAS = 8192
_MAX_TEXT_BYTES = 32 * 1024

_LIST = "also_search"  # the only field that may be given more than once
_LABELS: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])


@dataclass(frozen=True, slots=True)
class VerificationRequest:
    """A sample and what it is compared with: a subject, or another sample."""

    sample: bytes = field(repr=False)
    subject_id: str | None
    reference_sample: bytes | None = field(repr=False)
    verification_fmr: float | None


def read_json(body: JsonBody, model: type[M]) -> M:
    """Raises InvalidRequest."""
    if body.data.count(b",") > _MAX_COMMAS:
        raise InvalidRequest("the JSON has too many elements")
    try:
        found = model.model_validate_json(body.data, strict=True)
    except ValidationError as error:
        raise _invalid(error, model) from None
    check_json(body.data)
    return found


def enrolment_request(
    gallery_id: str, body: Body, idempotency_key: str | None, *, max_samples: int
) -> EnrolmentRequest:
    """Raises InvalidRequest."""
    if isinstance(body, JsonBody):
        read = read_json(body, EnrolmentIn)
        fields: EnrolmentFields = read
        samples = tuple(read.samples)
    else:
        files, texts = _split(body, EnrolmentFields, {"sample"})
        samples = tuple(data for _, data in files)
        fields = _from_texts(texts, EnrolmentFields)
    if len(samples) > max_samples:
        raise InvalidRequest(f"send at most {max_samples} samples in one request")
    return EnrolmentRequest(
        gallery_id=gallery_id,
        samples=samples,
        subject_id=fields.subject_id,
        encounter_id=fields.encounter_id,
        facts=EncounterFacts(
            captured_at=fields.captured_at,
            site=fields.site,
            operator_ref=fields.operator_ref,
            birth_year=fields.birth_year,
            sex=fields.sex,
            labels=tuple(sorted((fields.labels or {}).items())),
        ),
        biometric_exception=fields.biometric_exception,
        idempotency_key=idempotency_key,
        also_search=tuple(fields.also_search or ()),
        waive_quality_gate=bool(fields.waive_quality_gate),
    )


def identification_request(body: Body) -> tuple[bytes, CaptureFacts]:
    """Return the sample and what is known of the person. Raises InvalidRequest."""
    if isinstance(body, JsonBody):
        read = read_json(body, IdentificationIn)
        fields: IdentificationFields = read
        sample = read.sample
    else:
        files, texts = _split(body, IdentificationFields, {"sample"})
        fields = _from_texts(texts, IdentificationFields)
        sample = _single(files, "sample")
    return sample, CaptureFacts(fields.sex, fields.birth_year, fields.captured_at)


def verification_request(body: Body) -> VerificationRequest:
    """Raises InvalidRequest."""
    if isinstance(body, JsonBody):
        read = read_json(body, VerificationIn)
        request = VerificationRequest(read.sample, read.subject_id, read.reference_sample, read.verification_fmr)
    else:
        files, texts = _split(body, VerificationFields, {"sample", "reference_sample"})
        fields = _from_texts(texts, VerificationFields)
        has_reference = any(name == "reference_sample" for name, _ in files)
        request = VerificationRequest(
            sample=_single(files, "sample"),
            subject_id=fields.subject_id,
            reference_sample=_single(files, "reference_sample") if has_reference else None,
            verification_fmr=fields.verification_fmr,
        )
    if (request.subject_id is None) == (request.reference_sample is None):
        raise InvalidRequest("send either subject_id or reference_sample, to compare the sample with")
    return request


def _split(
    body: FormBody, model: type[BaseModel], file_names: set[str]
) -> tuple[list[tuple[str, bytes]], dict[str, str]]:
    """Return the files, and the texts by name. An empty text counts as not given, as browsers send it.

    Raises:
        InvalidRequest: a name is unknown or given twice, or a text is not UTF-8.
    """
    text_names = set(model.model_fields)
    files: list[tuple[str, bytes]] = []
    texts: dict[str, str] = {}
    for name, data in body.parts:
        if name in file_names:
            files.append((name, data))
            continue
        if name not in text_names:
            raise InvalidRequest(f"unknown field; the fields are {', '.join(sorted(text_names | file_names))}")
        if len(data) > _MAX_TEXT_BYTES:
            raise InvalidRequest(f"{name}: too long")
        if name in texts and name != _LIST:
            raise InvalidRequest(f"{name}: given more than once")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidRequest(f"{name}: must be UTF-8") from None
        texts[name] = f"{texts[name]},{text}" if texts.get(name) and text else text or texts.get(name, "")
    return files, {name: text for name, text in texts.items() if text}


def _single(files: list[tuple[str, bytes]], wanted: str) -> bytes:
    """Raises InvalidRequest."""
    found = [data for name, data in files if name == wanted]
    if len(found) != 1:
        raise InvalidRequest(f"{wanted}: send exactly one")
    return found[0]


def _from_texts(texts: dict[str, str], model: type[M]) -> M:
    """Raises InvalidRequest."""
    values: dict[str, Any] = dict(texts)
    if "labels" in values:
        try:
            values["labels"] = _LABELS.validate_json(values["labels"])
        except ValidationError:
            raise InvalidRequest("labels: must be a JSON object of texts") from None
    if _LIST in values:
        values[_LIST] = values[_LIST].split(",")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _invalid(error, model) from None


def _invalid(error: ValidationError, model: type[BaseModel]) -> InvalidRequest:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return InvalidRequest(explain(problems, model.model_fields))
