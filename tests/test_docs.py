"""The pages on settings, metrics and errors say what the code says, no more and no less."""

import ast
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client import Metric
from pydantic.fields import FieldInfo

from service.api.request_schemas import EnrolmentFields
from service.audit_chain import AuditEvent
from service.cli.client import NO_SERVICE
from service.errors import all_errors
from service.metrics import PHASES, Metrics
from service.settings import OUTSIDE_NAMES, Settings, setting_names

DOCS = Path(__file__).resolve().parent.parent / "docs"


def table(page: str) -> dict[str, list[str]]:
    """The rows of a page's tables by their first cell, without the code marks around it."""
    return rows_of((DOCS / page).read_text())


def rows_of(text: str) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            name = cells[0].strip("`")
            assert name not in rows, f"{name} is there twice"
            rows[name] = cells[1:]
    return rows


def number_text(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6f}".rstrip("0").rstrip(".")


def default_text(name: str, field: FieldInfo) -> str:
    default = field.default
    if name == "BIODEDUP_MODELS_DIR":
        return "`models` beside the code"
    if name == "BIODEDUP_VAR_DIR":
        return "`./var`"
    if default is None or default == ():
        return "not set"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    # without thousands separators, so that it can be pasted
    return f"`{number_text(default).replace(',', '')}`" if isinstance(default, int | float) else f"`{default}`"


def range_text(field: FieldInfo) -> str:
    limits = {key: getattr(fact, key) for fact in field.metadata for key in ("ge", "le") if hasattr(fact, key)}
    extra: Any = field.json_schema_extra or {}
    if limits:
        return f"{number_text(limits['ge'])} to {number_text(limits['le'])} {extra.get('unit', '')}".strip()
    annotation: Any = field.annotation
    choices = list(annotation) if isinstance(annotation, type) and issubclass(annotation, StrEnum) else ()
    return " ".join(f"`{choice}`" for choice in choices or literal_choices(annotation))


def literal_choices(annotation: Any) -> tuple[Any, ...]:
    return tuple(choice for choice in get_args(annotation) if isinstance(choice, str))


def samples_of(metrics: Metrics) -> Iterator[tuple[str, Metric]]:
    """Our metrics under the names that Prometheus sees."""
    for metric in metrics.registry.collect():
        if metric.name.startswith("biodedup_"):
            suffix = {"counter": "_total", "info": "_info"}.get(metric.type, "")
            yield metric.name + suffix, metric


def test_every_setting_is_documented_and_nothing_else_is() -> None:
    assert list(table("settings.md")) == [*setting_names(), *OUTSIDE_NAMES]


@pytest.mark.parametrize(("name", "field"), setting_names().items())
def test_defaults_and_ranges_are_the_documented_ones(name: str, field: str) -> None:
    default, limits, meaning = table("settings.md")[name]
    info = Settings.model_fields[field]
    assert default == default_text(name, info)
    assert limits == range_text(info)
    assert meaning.startswith(str(info.description))


def test_every_metric_is_documented_with_its_type_and_labels() -> None:
    metrics = Metrics(version="1")
    types = {"info": "gauge"}  # what Prometheus calls it
    documented = {name: cells[0] for name, cells in table("metrics.md").items()}
    assert documented == {name: types.get(metric.type, metric.type) for name, metric in samples_of(metrics)}


def test_the_labels_are_the_documented_ones() -> None:
    metrics = Metrics(version="1")
    documented = {name: set(re.findall(r"`(\w+)`", cells[1])) for name, cells in table("metrics.md").items()}
    defined = {
        f"{metric._name}{suffix}": set(metric._labelnames)
        for metric in vars(metrics).values()
        if hasattr(metric, "_labelnames")
        for suffix in [{"counter": "_total", "info": "_info"}.get(metric._type, "")]
    }
    defined["biodedup_build_info"] = {"version"}
    assert documented == defined


def test_every_phase_is_documented() -> None:
    assert set(re.findall(r"`(\w+)`", table("metrics.md")["biodedup_phase_seconds"][2])) == set(PHASES)


def error_tables() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The errors of the service, and the codes of the command line alone."""
    everywhere, commands = (DOCS / "errors.md").read_text().split("\n## Only on the command line\n")
    return rows_of(everywhere), rows_of(commands)


def codes_of_commands() -> set[str]:
    """Every code that a module of the commands names as it raises `CommandFailed`."""
    found = {NO_SERVICE}
    for module in (DOCS.parent / "service" / "cli").glob("*.py"):
        for call in ast.walk(ast.parse(module.read_text())):
            match call:
                case ast.Call(func=ast.Name(id="CommandFailed"), args=[_, ast.Constant(value=str(code))]):
                    found.add(code)
    return found


def test_every_error_is_documented_with_its_status_and_nothing_else_is() -> None:
    documented = {code: int(cells[0]) for code, cells in error_tables()[0].items()}
    assert documented == {error.code: error.status for error in all_errors()}


def test_every_code_of_the_command_line_is_documented_and_nothing_else_is() -> None:
    assert set(error_tables()[1]) == codes_of_commands() - {error.code for error in all_errors()}


def test_every_error_says_what_to_do() -> None:
    assert [code for code, cells in table("errors.md").items() if not all(cells)] == []


def test_the_enrolments_of_the_readme_have_fields_that_the_service_takes() -> None:
    text = (DOCS.parent / "README.md").read_text().replace("\\\n", " ")
    requests = [line for line in text.splitlines() if line.startswith("curl ") and line.endswith("/enrolments")]
    assert len(requests) == 2
    for request in requests:
        fields = dict(re.findall(r"-F (\w+)=(\S+)", request))
        assert fields.pop("sample").startswith("@")
        EnrolmentFields.model_validate(fields, strict=False)


def test_settings_named_in_any_page_exist() -> None:
    known = {*setting_names(), *OUTSIDE_NAMES}
    pages = [*DOCS.rglob("*.md"), *(DOCS.parent / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md"))]
    named = {name for page in pages for name in re.findall(r"BIODEDUP_[A-Z_]*[A-Z]", page.read_text())}
    assert {name for name in named - known if not name.startswith("BIODEDUP_TEST")} == set()


def test_every_event_of_the_audit_trail_is_documented() -> None:
    table_of_events = (DOCS / "audit.md").read_text().partition("### Events")[2].partition("`decided_by`")[0]
    first_cells = [line.split("|")[1] for line in table_of_events.splitlines() if line.startswith("| `")]
    documented = [name for cell in first_cells for name in re.findall(r"`([a-z_.]+)`", cell)]
    assert sorted(documented) == sorted(event.value for event in AuditEvent)
