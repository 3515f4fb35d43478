"""biodedup in the benchmark of 1:N search: with its files, and started again from them."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import search
from benchmarks.search_biodedup import Biodedup
from benchmarks.search_gallery import (
    BLOCK,
    GalleryFile,
    drawn_blocks,
    load_population,
    make_gallery,
    make_probes,
    population_path,
)
from benchmarks.search_truth import find_truth, share_of_pairs

PEOPLE = load_population(population_path("opencv-zoo"))
SIZE = BLOCK + 600  # one sealed segment and some templates that no file holds


@pytest.fixture
def gallery(tmp_path: Path) -> GalleryFile:
    return make_gallery(tmp_path / "gallery", PEOPLE, SIZE, seed=1)


@pytest.fixture
def built(tmp_path: Path, gallery: GalleryFile) -> Biodedup:
    method = Biodedup(SIZE, PEOPLE.dimension, 2, tmp_path)
    method.build(gallery.blocks())
    return method


def test_blocks_drawn_from_anywhere_are_those_of_the_gallery(gallery: GalleryFile) -> None:
    whole = np.concatenate([block for _, block in gallery.blocks()])

    parts = list(drawn_blocks(PEOPLE, 1, BLOCK - 100, SIZE))

    assert [start for start, _ in parts] == [BLOCK - 100, BLOCK]
    assert np.array_equal(np.concatenate([block for _, block in parts]), whole[BLOCK - 100 :])


def test_the_figures_of_biodedup_count_its_files_and_a_start_from_them(tmp_path: Path) -> None:
    plan = search.Plan(SIZE, PEOPLE.dimension, 2, (Biodedup,), probes=100, one_probes=100, folder=tmp_path)

    figures = search.run(plan)["methods"]["biodedup"]

    rows = BLOCK * (PEOPLE.dimension * 4 + 32)  # each with its code
    assert rows < figures["disk_bytes_per_template"] * SIZE < 1.2 * rows
    assert figures["startup_vs_build"] == figures["startup_seconds"] / figures["build_seconds"]
    assert figures["pairs_at_threshold_found"] == 1


def test_biodedup_finds_the_pairs_of_a_gallery_with_their_scores(gallery: GalleryFile, built: Biodedup) -> None:
    probes = make_probes(gallery, PEOPLE, 100, seed=1)
    truth = find_truth(gallery, probes)

    found = built.search_batch(probes.embeddings, truth.thresholds[0.5])

    assert share_of_pairs(found, truth, 0.5) == 1
    for probe, one in zip(probes.embeddings, found, strict=True):
        assert np.allclose(one.scores, gallery.rows(one.ids) @ probe if len(one.ids) else [], atol=1e-5)


def test_a_start_that_cannot_use_the_files_is_not_measured(
    tmp_path: Path, gallery: GalleryFile, built: Biodedup
) -> None:
    built.start_again(gallery)
    for segment in tmp_path.rglob("*.sealed"):
        segment.write_bytes(segment.read_bytes()[:-1])

    with pytest.raises(RuntimeError, match="set aside"):
        built.start_again(gallery)


def test_a_start_that_finds_fewer_templates_is_not_measured(gallery: GalleryFile, built: Biodedup) -> None:
    fewer = GalleryFile(gallery.path, SIZE - 1, gallery.dimension)

    with pytest.raises(RuntimeError, match=f"{SIZE - 1} templates"):
        built.start_again(fewer)
