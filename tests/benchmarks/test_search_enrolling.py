"""Search while others enrol: what is counted, on galleries of a few thousand."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import search_biodedup, speed
from benchmarks.search_enrolling import Enroller, EnrollingPlan, enrol_and_search
from service.domain import Embeddings, Hit
from service.errors import IndexUnavailable
from service.gallery.segmented_index import SegmentedIndex


def plan_in(folder: Path) -> EnrollingPlan:
    return EnrollingPlan(
        2000, 128, threads=1, rate=500, seconds=0.5, newcomers=18_000, quiet_searches=20, folder=folder
    )


def test_searches_meanwhile_are_compared_with_quiet_ones_and_find_who_was_just_added(tmp_path: Path) -> None:
    figures = enrol_and_search(plan_in(tmp_path))

    for phase in (figures["paced"], figures["full_speed"]):
        assert phase["templates_added"] > 0
        assert phase["searches"] > 0
        assert phase["missed_acknowledged"] == 0
        assert phase["slowdown"] == pytest.approx(phase["median_ms"] / phase["quiet_median_ms"])
    assert figures["paced"]["templates_added"] < figures["full_speed"]["templates_added"]
    assert list(tmp_path.iterdir()) == []


class Late(SegmentedIndex):
    """Acknowledges a template before a search can find it."""

    newest = -1

    def add(self, seq: int, reference_ids: Sequence[int], embeddings: Embeddings) -> None:
        super().add(seq, reference_ids, embeddings)
        self.newest = max(reference_ids)

    def search(self, probes: Embeddings, threshold: float) -> list[list[Hit]]:
        newest = self.newest
        return [[hit for hit in hits if hit.reference_id < newest] for hits in super().search(probes, threshold)]


def test_an_index_that_acknowledges_too_early_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_biodedup, "SegmentedIndex", Late)

    assert enrol_and_search(plan_in(tmp_path))["paced"]["missed_acknowledged"] > 0


class Full(SegmentedIndex):
    def add(self, seq: int, reference_ids: Sequence[int], embeddings: Embeddings) -> None:
        raise IndexUnavailable("full")


def test_an_add_that_fails_ends_the_measurement() -> None:
    enroller = Enroller(Full(128), np.ones((3, 128), np.float32), 0, None)

    enroller.start()
    enroller.begun.wait(10)

    with pytest.raises(IndexUnavailable):
        enroller.stop()


def test_the_command_writes_both_paces(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    options: dict[str, object] = {
        "--gallery-size": 1000,
        "--dimension": 128,
        "--threads": 1,
        "--seconds": 0.2,
        "--newcomers": 18_000,
    }
    options |= {"--rate": 100, "--folder": tmp_path, "--json": file}

    result = CliRunner().invoke(speed.app, ["enrolling", *(str(word) for pair in options.items() for word in pair)])

    assert result.exit_code == 0, result.output
    assert {"paced", "full_speed"} < set(json.loads(file.read_text()))


@pytest.mark.parametrize("wrong", [["--dimension", "64"], ["--newcomers", "5000"]])
def test_a_plan_that_cannot_be_followed_is_refused(wrong: list[str]) -> None:
    assert CliRunner().invoke(speed.app, ["enrolling", *wrong]).exit_code == 2
