"""Metrics are defined once, start at zero, and name nobody."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.domain import OutcomeKind
from service.errors import NoFace
from service.metrics import PHASES, Metrics


def labels_of(metrics: Metrics) -> set[str]:
    """Every label name, also of metrics that have no series yet."""
    return {label for metric in vars(metrics).values() for label in getattr(metric, "_labelnames", ())}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_no_label_names_a_person() -> None:
    assert labels_of(Metrics()) == {
        "code",
        "event",
        "flagged",
        "fmr",
        "found",
        "gallery",
        "kind",
        "matched",
        "method",
        "outcome",
        "part",
        "phase",
        "place",
        "reason",
        "result",
        "route",
        "site",
        "state",
        "status",
        "usable",
        "verdict",
    }


def test_every_metric_has_a_help_text() -> None:
    families = list(text_string_to_metric_families(Metrics().render().decode()))
    ours = [family for family in families if family.name.startswith("biodedup_")]
    assert len(ours) > 10
    assert [family.name for family in ours if not family.documentation.endswith(".")] == []


def test_a_phase_records_its_time() -> None:
    metrics = Metrics()
    with metrics.phase("embed"):
        pass
    assert value(metrics, "biodedup_phase_seconds_count", phase="embed") == 1
    assert value(metrics, "biodedup_phase_seconds_count", phase="decode") == 0


def test_a_phase_that_fails_records_its_time_too() -> None:
    metrics = Metrics()
    with pytest.raises(NoFace), metrics.phase("detect"):
        raise NoFace("no face was found")
    assert value(metrics, "biodedup_phase_seconds_count", phase="detect") == 1


def test_a_time_measured_elsewhere_is_added() -> None:
    metrics = Metrics()
    metrics.observe_phase("wait", 0.25)
    metrics.observe_phase("wait", 0.5)
    assert value(metrics, "biodedup_phase_seconds_sum", phase="wait") == 0.75


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(ValueError, match="lunch"):
        Metrics().observe_phase("lunch", 1.0)


def test_series_start_at_zero() -> None:
    metrics = Metrics()
    for phase in PHASES:
        assert value(metrics, "biodedup_phase_seconds_count", phase=phase) == 0
    for kind in OutcomeKind:
        assert value(metrics, "biodedup_enrolments_total", outcome=kind.value) == 0
    assert value(metrics, "biodedup_identifications_total", found="true") == 0
    assert value(metrics, "biodedup_verifications_total", matched="false") == 0
    assert value(metrics, "biodedup_rejections_total", code="no_face") == 0


def test_two_processes_in_one_test_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.requests.labels(method="GET", route="/healthz", status="200").inc()
    assert value(one, "biodedup_requests_total", method="GET", route="/healthz", status="200") == 1
    assert value(other, "biodedup_requests_total", method="GET", route="/healthz", status="200") is None


def test_the_version_is_shown() -> None:
    assert value(Metrics(version="1.2.3"), "biodedup_build_info", version="1.2.3") == 1
