"""Every operation of the interface, read from openapi.yaml: a new one is attacked without anybody thinking of it."""

import base64
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from service.api.access import Rule, rule_of

_DOCUMENT = Path(__file__).resolve().parents[2] / "openapi.yaml"
_JSON, _FORM = "application/json", "multipart/form-data"

SAMPLE = base64.b64encode(b"anna/9").decode()

Place = tuple[str, ...]
"""Where a text stands: ("path", name), ("query", name), ("form", name), or ("json", name, name...)."""


@dataclass(frozen=True)
class Operation:
    """One method of one path, and what it takes."""

    method: str
    path: str
    path_names: tuple[str, ...]
    query_names: tuple[str, ...]
    json_schema: Mapping[str, Any] | None
    json_example: Mapping[str, Any]
    form_names: tuple[str, ...]
    """Of texts, without the files."""

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def rule(self) -> Rule:
        return rule_of({self.method}, self.path)

    def body(self) -> dict[str, Any] | None:
        """Return a JSON body in which nothing is wrong; None: the operation takes none."""
        if self.json_schema is None:
            return None
        found = copy.deepcopy(dict(self.json_example))
        for name in ("sample", "samples"):
            if name in found:
                found[name] = SAMPLE if name == "sample" else [SAMPLE]
        if "dry_run" in found:
            found["dry_run"] = True  # else each attack would wait for the sweep of the one before
        return found

    def places(self) -> Iterator[Place]:
        """Yield where a caller can put a text."""
        yield from (("path", name) for name in self.path_names)
        yield from (("query", name) for name in self.query_names)
        yield from (("form", name) for name in self.form_names)
        if self.json_schema is not None:
            yield from (("json", *place) for place in _texts_in(self.json_schema))


def _texts_in(schema: Mapping[str, Any]) -> Iterator[Place]:
    """Yield the places of texts in a JSON schema: properties, elements (`[]`), values (`*`) and keys (`#`)."""
    for option in schema.get("anyOf", [schema]):
        kind = option.get("type")
        if kind == "string":
            yield ()
        if kind == "array":
            yield from (("[]", *place) for place in _texts_in(option.get("items", {})))
        if kind == "object":
            for name, part in option.get("properties", {}).items():
                yield from ((name, *place) for place in _texts_in(part))
            for values in (option.get("additionalProperties"), *option.get("patternProperties", {}).values()):
                if isinstance(values, dict):
                    yield ("#",)
                    yield from (("*", *place) for place in _texts_in(values))


def with_text(body: Mapping[str, Any], place: Place, text: Any) -> dict[str, Any]:
    """Return a body with a text at a place of its JSON."""
    changed = copy.deepcopy(dict(body))
    changed[place[0]] = _nested(place[1:], text)
    if place[0] == "biometric_exception":  # in the place of samples
        changed.pop("samples", None)
    return changed


def _nested(place: Place, text: Any) -> Any:
    if not place:
        return text
    if place[0] == "#":
        return {text: "value"}
    inner = _nested(place[1:], text)
    return [inner] if place[0] == "[]" else {"key" if place[0] == "*" else place[0]: inner}


@cache
def operations() -> tuple[Operation, ...]:
    """Return all of them, in the order of the document."""
    document = yaml.safe_load(_DOCUMENT.read_text())
    return tuple(
        _operation(method.upper(), path, found)
        for path, methods in document["paths"].items()
        for method, found in methods.items()
    )


def _operation(method: str, path: str, found: Mapping[str, Any]) -> Operation:
    named = [each for each in found.get("parameters", ()) if "name" in each]
    content = found.get("requestBody", {}).get("content", {})
    form = content.get(_FORM, {}).get("schema", {}).get("properties", {})
    return Operation(
        method=method,
        path=path,
        path_names=tuple(each["name"] for each in named if each["in"] == "path"),
        query_names=tuple(each["name"] for each in named if each["in"] == "query"),
        json_schema=content.get(_JSON, {}).get("schema"),
        json_example=content.get(_JSON, {}).get("example", {}),
        form_names=tuple(name for name in form if name not in {"sample", "reference_sample"}),
    )
