"""The OpenAPI document: complete, and kept by the service whatever is sent."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from service.api.document import create_api
from service.errors import BiodedupError

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in create_api("0").openapi()["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


OPERATIONS = [pytest.param(*each, id=f"{each[1].upper()} {each[0]}") for each in operations()]
BELOW_V1 = [each for each in OPERATIONS if str(each.values[0]).startswith("/v1")]


@pytest.mark.parametrize(("path", "method", "operation"), BELOW_V1)
def test_every_route_shows_its_errors_in_the_one_body(path: str, method: str, operation: dict[str, Any]) -> None:
    failures = {status: found for status, found in operation["responses"].items() if int(status) >= 400}
    assert {"422", "500", "503"} <= set(failures)
    if "{gallery_id}" in path:
        assert "404" in failures
    if "requestBody" in operation:
        assert {"413", "415"} <= set(failures)
    for status, found in failures.items():
        content = found["content"]["application/json"]
        assert content["schema"] == {"$ref": "#/components/schemas/ErrorOut"}
        for code, example in content["examples"].items():
            assert set(example["value"]) == {"code", "message", "request_id"}
            assert example["value"]["code"] == code
            assert example["value"]["message"]
        assert ("Retry-After" in found["headers"]) == (status in {"429", "503"})


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_route_is_described(path: str, method: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["tags"]
    assert all("X-Request-ID" in found["headers"] for found in operation["responses"].values())


@pytest.mark.parametrize("path", ["enrolments", "identifications", "verifications"])
def test_samples_are_documented_as_files_and_as_base64(path: str) -> None:
    operation = create_api("0").openapi()["paths"][f"/v1/galleries/{{gallery_id}}/{path}"]["post"]
    content = operation["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "application/json"}
    assert "example" in content["application/json"]


def test_no_error_is_called_by_two_names() -> None:
    codes = [
        (code, status)
        for _, _, operation in operations()
        for status, found in operation["responses"].items()
        if int(status) >= 400
        for code in found["content"]["application/json"].get("examples", {})
    ]
    assert len({code for code, _ in codes}) == len(set(codes))
    assert BiodedupError.code in dict(codes)


def _attack(live_url: str, document: dict[str, Any], label: str, mode: GenerationMode, examples: int) -> None:
    """Send made-up requests to one operation and hold each answer against the document."""
    method, path = label.split()
    operation = schemathesis.openapi.from_dict(document)[path][method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(base_url=live_url, checks=CHECKS)

    send()


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


ATTACKS = [(f"{method.upper()} {path}", GenerationMode.POSITIVE) for path, method, _ in operations()] + [
    (f"{method.upper()} {path}", GenerationMode.NEGATIVE)  # without a parameter or a body nothing can be wrong
    for path, method, operation in operations()
    if "parameters" in operation or "requestBody" in operation
]
attacks = pytest.mark.parametrize(("label", "mode"), ATTACKS, ids=lambda part: getattr(part, "value", part))


@attacks
def test_no_made_up_request_leaves_the_document(
    live_url: str, document: dict[str, Any], label: str, mode: GenerationMode
) -> None:
    _attack(live_url, document, label, mode, examples=10)


@pytest.mark.soak
@attacks
def test_no_made_up_request_leaves_the_document_at_full_count(
    live_url: str, document: dict[str, Any], label: str, mode: GenerationMode
) -> None:
    _attack(live_url, document, label, mode, examples=1000)
