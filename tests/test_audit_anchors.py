"""Anchors: written when a chain has grown, when time has passed and at the end, and read back from files and logs."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from service.audit_anchors import Anchors, anchor_line, read_anchors
from service.audit_chain import SERVICE_CHAIN, AuditEvent, NewEntry
from service.audit_check import ChainPoint, check_chain
from service.errors import SettingsInvalid, StoreUnavailable
from service.logs import configure_logs
from service.metrics import Metrics
from tests.fakes import FakeStore
from tests.store.building import Clock, new_gallery

VIEWED = NewEntry(AuditEvent.AUDIT_VIEWED)
ENTRIES, PERIOD_S = 10, 60.0


class World:
    """A store with one gallery, anchors of it, and time that moves when told to."""

    def __init__(self, file: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.monotonic_s = Clock(), 1000.0
        monkeypatch.setattr("service.audit_anchors.time.monotonic", lambda: self.monotonic_s)
        self.store = FakeStore(self.clock)
        self.store.create_gallery(new_gallery())
        self.metrics = Metrics(CollectorRegistry())
        self.file = file
        self.anchors = Anchors(
            self.store, self.metrics, file=file, entries=ENTRIES, period_s=PERIOD_S, clock=self.clock
        )

    def append(self, count: int) -> None:
        for _ in range(count):
            self.store.record(VIEWED, "camp")

    def written(self) -> list[int]:
        assert self.file is not None
        return [json.loads(line)["seq"] for line in self.file.read_text().splitlines()]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path / "anchors.jsonl", monkeypatch)


def test_a_chain_is_anchored_at_once_and_then_after_so_many_entries(world: World) -> None:
    world.anchors.look()
    assert world.written() == [1]
    world.append(ENTRIES - 1)
    world.anchors.look()
    assert world.written() == [1]
    world.append(1)
    world.anchors.look()
    assert world.written() == [1, 11]


def test_a_quiet_chain_is_anchored_after_a_while_and_not_again_without_an_entry(world: World) -> None:
    world.anchors.look()
    world.append(1)
    world.monotonic_s += PERIOD_S
    world.anchors.look()
    world.monotonic_s += PERIOD_S
    world.anchors.look()
    assert world.written() == [1, 2]


def test_at_the_end_every_chain_is_anchored_to_its_last_entry(world: World) -> None:
    world.anchors.look()
    world.append(2)
    world.store.record(VIEWED)
    world.anchors.start()
    world.anchors.close()
    lines = [json.loads(line) for line in (world.file or Path()).read_text().splitlines()]
    last = {line["chain"]: line["seq"] for line in lines}
    assert last == {"camp": 3, SERVICE_CHAIN: 1}


def test_what_is_written_verifies_the_chain(world: World) -> None:
    world.append(5)
    world.anchors.look()
    assert world.file is not None
    found = read_anchors(world.file.read_text().splitlines())
    report = check_chain(world.store.audit_block("camp", 0, 100), anchors=found["camp"])
    assert (report.fault, report.anchors_met) == (None, 1)


def test_the_file_is_only_appended_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "anchors.jsonl"
    file.write_text("of an earlier start\n")
    World(file, monkeypatch).anchors.look()
    assert file.read_text().splitlines()[0] == "of an earlier start"
    assert len(file.read_text().splitlines()) == 2


def test_a_file_that_cannot_be_written_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsInvalid, match="BIODEDUP_AUDIT_ANCHOR_FILE"):
        World(tmp_path / "nowhere" / "anchors.jsonl", monkeypatch)


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def stream() -> io.StringIO:
    stream = io.StringIO()
    configure_logs("info", stream)
    return stream


def test_each_anchor_is_a_line_of_the_log_too(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> None:
    world = World(None, monkeypatch)
    world.append(1)
    world.anchors.look()
    (event,) = events(stream)
    head = world.store.audit_heads()["camp"]
    assert (event["event"], event["chain"], event["seq"], event["hash"]) == (
        "audit.anchored", "camp", 2, head.hash.hex(),
    )  # fmt: skip
    assert read_anchors(stream.getvalue().splitlines()) == {"camp": {2: head.hash}}


def test_a_store_that_does_not_answer_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO
) -> None:
    def fail() -> dict[str, ChainPoint]:
        raise StoreUnavailable("the record does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(world.store, "audit_heads", fail)
        world.anchors.look()
    assert [(each["event"], each["code"]) for each in events(stream)] == [("audit.not_anchored", "store_unavailable")]
    assert world.written() == []
    world.anchors.look()
    assert world.written() == [1]


def test_the_time_of_the_last_anchor_is_a_metric(world: World) -> None:
    world.anchors.look()
    found = world.metrics.registry.get_sample_value("biodedup_audit_anchor_timestamp_seconds")
    assert found == world.clock.now.timestamp()


def test_other_lines_of_a_log_are_no_anchors() -> None:
    anchor = anchor_line(Clock().now, "camp", ChainPoint(7, b"\x01" * 32))
    lines = ["", "not json", "7", '{"chain":"camp"}', '{"chain":"camp","seq":1,"hash":"zz"}', anchor, anchor]
    assert read_anchors(lines) == {"camp": {7: b"\x01" * 32}}


def test_anchors_that_contradict_each_other_are_told() -> None:
    lines = [anchor_line(Clock().now, "camp", ChainPoint(7, bytes([byte]) * 32)) for byte in (1, 2)]
    with pytest.raises(ValueError, match="different things of entry 7"):
        read_anchors(lines)
    with pytest.raises(ValueError, match="no line of it is an anchor"):
        read_anchors(["{}"])
