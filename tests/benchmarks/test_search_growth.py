"""How one search grows with the gallery: the figures, on galleries of a few thousand."""

import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import search_biodedup, speed
from benchmarks.search_biodedup import CODE_BYTES
from benchmarks.search_gallery import PACK_OF_DIMENSION, load_population, population_path
from benchmarks.search_growth import GrowthPlan, grow, memory_bandwidth
from service.domain import Embeddings, Hit
from service.gallery.sealing import seal
from service.gallery.segmented_index import SegmentedIndex

SIZES = (2000, 17_000)


def plan_in(folder: Path, sizes: Sequence[int] = SIZES) -> GrowthPlan:
    return GrowthPlan(128, sizes, threads=1, one_probes=100, probes=200, flat_size=2000, folder=folder)


def test_each_size_is_compared_with_the_time_in_which_its_codes_could_be_read(tmp_path: Path) -> None:
    figures = grow(plan_in(tmp_path))

    small, large = figures["sizes"]
    assert [small["templates"], large["templates"]] == [2000, 17_000]
    limit_ms = 17_000 * 32 / (large["bandwidth_gb_per_s"] * 1e9) * 1000
    assert large["limit_ms"] == pytest.approx(limit_ms)
    assert large["times_limit"] == pytest.approx(large["one_probe_median_ms"] / limit_ms)
    assert figures["growth"] == pytest.approx(large["times_limit"] / small["times_limit"])
    assert small["rss_anon_bytes"] > 2000 * 512
    assert large["disk_bytes_per_template"] > 512 * 16_384 / 17_000
    assert list(tmp_path.iterdir()) == []


def test_every_planted_mate_at_the_threshold_is_found_at_each_size(tmp_path: Path) -> None:
    for entry in grow(plan_in(tmp_path))["sizes"]:
        assert entry["mates_found"] == 1
        assert 50 < entry["mates_at_threshold"] < 200  # their cosines are 0.3 to 0.8


class Forgetful(SegmentedIndex):
    """Returns a neighbour of every candidate with an odd number."""

    def search(self, probes: Embeddings, threshold: float) -> list[list[Hit]]:
        found = super().search(probes, threshold)
        return [[Hit(hit.reference_id - hit.reference_id % 2, hit.score) for hit in hits] for hits in found]


def test_an_index_that_loses_candidates_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_biodedup, "SegmentedIndex", Forgetful)

    assert 0.2 < grow(plan_in(tmp_path, (2000,)))["sizes"][0]["mates_found"] < 0.8


@pytest.mark.parametrize("dimension", PACK_OF_DIMENSION)
def test_a_code_has_the_bytes_that_the_limit_counts(dimension: int) -> None:
    people = load_population(population_path(PACK_OF_DIMENSION[dimension]))
    rows = people.sampler()(np.random.default_rng(0), 2000)

    assert seal(np.arange(len(rows)), rows).codes.code_bytes == CODE_BYTES[dimension]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_bandwidth_is_what_all_threads_read_in_the_best_round(threads: int) -> None:
    seconds = iter([0.5, 0.125, *[0.25] * 100])
    moments = accumulate(second for each in seconds for second in (1.0, each))  # a pause, then a round

    assert memory_bandwidth(threads, array_bytes=2**20, clock=lambda: next(moments)) == threads * 2**20 / 0.125


def test_the_command_writes_the_flat_time_beside_the_sizes(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    options = {"--dimension": 128, "--sizes": "1000,2000", "--flat-size": 1500, "--threads": 1}
    options |= {"--one-probes": 100, "--folder": tmp_path, "--json": file}

    result = CliRunner().invoke(speed.app, ["growth", *(str(word) for pair in options.items() for word in pair)])

    assert result.exit_code == 0, result.output
    figures = json.loads(file.read_text())
    assert [entry["templates"] for entry in figures["sizes"]] == [1000, 2000]
    assert figures["flat"]["templates"] == 1500
    assert figures["flat_1m_one_probe_ms"] is None


@pytest.mark.parametrize("sizes", ["", "2000,1000", "1000,1000", "10", "1000,many"])
def test_sizes_that_do_not_ascend_are_refused(sizes: str) -> None:
    assert CliRunner().invoke(speed.app, ["growth", "--sizes", sizes]).exit_code == 2
