"""The generator, the truth and the figures of the benchmark of 1:N search, on galleries of a few thousand."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import search, speed
from benchmarks.datasets import Dataset, OpenSet
from benchmarks.embeddings import FaceSet
from benchmarks.search_gallery import (
    BLOCK,
    FloatArray,
    GalleryFile,
    Population,
    Probes,
    RealMates,
    load_population,
    make_gallery,
    make_probes,
    mated_probes,
    measure_population,
    population_path,
    real_mates,
    save_population,
)
from benchmarks.search_graphs import Hnswlib, UsearchExact, UsearchGraph
from benchmarks.search_methods import FaissHnsw, FaissIvf, Flat, Gemm, Method
from benchmarks.search_servers import PgVectorExact, PgVectorHnsw, QdrantLocal
from benchmarks.search_truth import FPIRS, Found, find_truth, share_of_mates, share_of_pairs, threshold_of

DIMENSION = 64
SIZE = 3000


@pytest.fixture
def people() -> Population:
    rng = np.random.default_rng(5)
    spread = rng.normal(size=(DIMENSION, DIMENSION))
    covariance = spread @ spread.T / DIMENSION**2
    return Population(rng.normal(scale=0.1, size=DIMENSION).astype(np.float32), covariance.astype(np.float32))


@pytest.fixture
def gallery(tmp_path: Path, people: Population) -> GalleryFile:
    return make_gallery(tmp_path / "gallery", people, SIZE, seed=1)


@pytest.fixture
def probes(gallery: GalleryFile, people: Population) -> Probes:
    return make_probes(gallery, people, 100, seed=1)


def all_rows(gallery: GalleryFile) -> FloatArray:
    return np.concatenate([block for _, block in gallery.blocks()])


def test_the_same_seed_makes_the_same_gallery_and_another_seed_another(
    tmp_path: Path, people: Population, gallery: GalleryFile
) -> None:
    again = make_gallery(tmp_path / "again", people, SIZE, seed=1)
    other = make_gallery(tmp_path / "other", people, SIZE, seed=2)

    assert np.array_equal(all_rows(again), all_rows(gallery))
    assert not np.isclose(all_rows(other), all_rows(gallery)).any(axis=1).all()


def test_a_larger_gallery_begins_with_the_smaller_one_and_goes_on_with_others(
    tmp_path: Path, people: Population, gallery: GalleryFile
) -> None:
    larger = all_rows(make_gallery(tmp_path / "larger", people, 2 * BLOCK, seed=1))

    assert np.array_equal(larger[:SIZE], all_rows(gallery))
    assert len(np.unique(larger, axis=0)) == 2 * BLOCK


def test_templates_have_the_mean_and_covariance_they_were_given_before_they_are_scaled() -> None:
    # around a mean this far from 0 scaling hardly changes anything across it
    covariance = np.array([[1e-8, 0, 0], [0, 4e-4, 3e-4], [0, 3e-4, 9e-4]], np.float32)
    sample = Population(np.array([1, 0, 0], np.float32), covariance).sampler()

    rows = sample(np.random.default_rng(0), 200_000)

    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert np.allclose(rows.mean(axis=0), [1, 0, 0], atol=1e-3)
    assert np.allclose(np.cov(rows.T)[1:, 1:], covariance[1:, 1:], rtol=0.02)


def test_mated_probes_have_the_cosine_asked_for(people: Population) -> None:
    sample, rng = people.sampler(), np.random.default_rng(0)
    templates, cosines = sample(rng, 500), rng.uniform(0.3, 0.8, 500).astype(np.float32)

    made = mated_probes(templates, sample(rng, 500), cosines)

    assert np.allclose(np.einsum("ij,ij->i", templates, made), cosines, atol=1e-5)
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)


def test_half_of_the_probes_are_mated_at_cosines_from_0_3_to_0_8(gallery: GalleryFile, probes: Probes) -> None:
    mated = probes.mates >= 0
    scores = np.einsum("ij,ij->i", probes.embeddings[mated], gallery.rows(probes.mates[mated]))

    assert mated.sum() == (~mated).sum() == 100
    assert scores.min() > 0.299
    assert scores.max() < 0.801
    assert scores.max() - scores.min() > 0.4


def test_real_people_stand_first_in_the_gallery_and_their_other_photographs_are_probes(
    tmp_path: Path, people: Population
) -> None:
    sample, rng = people.sampler(), np.random.default_rng(9)
    real = RealMates(sample(rng, 7), sample(rng, 7))
    gallery = make_gallery(tmp_path / "with-real", people, SIZE, seed=1, real=[real.gallery])

    probes = make_probes(gallery, people, 50, seed=1, real=real.probes)

    assert np.array_equal(all_rows(gallery)[:7], real.gallery)
    assert np.allclose(probes.embeddings[probes.is_real], real.probes[probes.mates[probes.is_real]], atol=1e-6)
    assert len(probes) == 100
    assert (probes.mates[~probes.is_real] >= 7).sum() == 43


def test_real_mates_are_people_with_a_usable_face_in_both_photographs() -> None:
    open_set = OpenSet(("a/1", "b/1", "c/1"), ("a/2", "b/2", "c/2"), ())
    faces = FaceSet(np.eye(4, dtype=np.float32), {"a/1": 0, "a/2": 1, "b/1": 2, "c/2": 3}, {})

    mates = real_mates(Dataset(Path(), (), (), open_set), faces, 3)

    assert np.array_equal(mates.gallery, faces.embeddings[[0]])
    assert np.array_equal(mates.probes, faces.embeddings[[1]])


def test_a_population_is_measured_on_one_photograph_a_person_and_kept(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    faces = FaceSet(rows, {"a/1": 0, "a/2": 1, "b/1": 2, "c/1": 3, "c/2": 4, "d/1": 5}, {})

    save_population(tmp_path / "some.npz", measure_population(faces))
    kept = load_population(tmp_path / "some.npz")

    assert np.allclose(kept.mean, rows[[0, 2, 3, 5]].mean(axis=0), atol=1e-6)
    assert np.allclose(kept.covariance, np.cov(rows[[0, 2, 3, 5]].T), atol=1e-6)


@pytest.mark.parametrize(("pack_id", "dimension"), [("opencv-zoo", 128), ("buffalo_s", 512)])
def test_the_stored_populations_are_those_of_unit_templates(pack_id: str, dimension: int) -> None:
    kept = load_population(population_path(pack_id))

    assert kept.dimension == dimension
    assert np.trace(kept.covariance) + kept.mean @ kept.mean == pytest.approx(1, abs=1e-3)


def test_the_truth_is_what_one_product_of_everything_says(
    gallery: GalleryFile, probes: Probes, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = probes.embeddings @ all_rows(gallery).T
    monkeypatch.setattr(GalleryFile.blocks, "__defaults__", (700,))

    truth = find_truth(gallery, probes)

    for fpir in FPIRS:
        threshold = threshold_of(scores[probes.mates < 0].max(axis=1), fpir)
        assert truth.thresholds[fpir] == pytest.approx(threshold, abs=1e-6)
        expected = {(int(probe), int(template)) for probe, template in np.argwhere(scores >= truth.thresholds[fpir])}
        assert set(zip(*(part.tolist() for part in truth.pairs(fpir)), strict=True)) == expected


def test_the_threshold_lets_that_share_of_searches_through() -> None:
    highest = np.random.default_rng(0).random(1000)

    assert (highest >= threshold_of(highest, 0.01)).sum() == 10
    assert (highest >= threshold_of(highest, 0.5)).sum() == 500


def test_the_shares_count_what_is_missing(
    gallery: GalleryFile, probes: Probes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gemm, "_rows", 700)
    truth = find_truth(gallery, probes)
    exact = Gemm(SIZE, DIMENSION, 1, tmp_path)
    exact.build(gallery.blocks())
    found = exact.search_batch(probes.embeddings, truth.thresholds[0.5])

    assert share_of_pairs(found, truth, 0.5) == 1
    assert share_of_mates(found, truth, probes, 0.5) == 1

    reached = [row for row, (mate, one) in enumerate(zip(probes.mates, found, strict=True)) if mate in one.ids]
    first = reached[0]
    kept = found[first].ids != probes.mates[first]
    found[first] = Found(found[first].ids[kept], found[first].scores[kept])

    assert share_of_mates(found, truth, probes, 0.5) == pytest.approx(1 - 1 / len(reached))
    assert share_of_pairs(found, truth, 0.5) == pytest.approx(1 - 1 / len(truth.pairs(0.5)[0]))


def test_probes_that_were_not_searched_do_not_count_as_missed(gallery: GalleryFile, probes: Probes) -> None:
    truth = find_truth(gallery, probes)
    first = gallery.rows(np.arange(SIZE)) @ probes.embeddings[:50].T
    found = [Found(np.flatnonzero(row >= -1), row) for row in first.T]

    assert share_of_pairs(found, truth, 0.5) == 1
    assert share_of_pairs([], truth, 0.5) is None


# hnswlib has no wheels and needs a compiler: it is tested where somebody installed it (`pip install .[bench]`)
COMPILED = (Hnswlib,) if importlib.util.find_spec("hnswlib") else ()
IN_PROCESS = (Gemm, Flat, FaissHnsw, FaissIvf, *COMPILED, UsearchExact, UsearchGraph, QdrantLocal)
SERVERS = [pytest.param(kind, marks=pytest.mark.postgres) for kind in (PgVectorExact, PgVectorHnsw)]


@pytest.mark.parametrize("kind", [*IN_PROCESS, *SERVERS])
def test_every_method_finds_the_pairs_of_a_small_gallery_with_their_scores(
    kind: type[Method], gallery: GalleryFile, probes: Probes, tmp_path: Path
) -> None:
    truth = find_truth(gallery, probes)
    method = kind(SIZE, DIMENSION, 2, tmp_path)
    try:
        method.build(gallery.blocks())
        method.use(method.settings[-1])
        found = method.search_batch(probes.embeddings, truth.thresholds[0.01])
        single = method.search_one(probes.embeddings[0], truth.thresholds[0.01])
    finally:
        method.close()

    assert (share_of_pairs(found, truth, 0.01) or 0) >= 0.9
    exact = probes.embeddings @ all_rows(gallery).T
    for row, one in zip(exact, found, strict=True):
        assert np.allclose(one.scores, row[one.ids], atol=1e-5)
        assert (one.scores >= truth.thresholds[0.01]).all()
    assert set(found[0].ids) <= set(single.ids)


class Forgetful(Flat):
    """Loses every candidate with an odd number."""

    name, settings, is_core = "forgetful", (1,), False

    def search_batch(self, probes: FloatArray, threshold: float) -> list[Found]:
        return [
            Found(one.ids[one.ids % 2 == 0], one.scores[one.ids % 2 == 0])
            for one in super().search_batch(probes, threshold)
        ]

    def row_name(self, setting: int | None) -> str:
        return self.name


def test_a_method_that_loses_candidates_shows_it_and_an_exact_one_does_not(tmp_path: Path) -> None:
    plan = search.Plan(SIZE, 128, 1, (Flat, Gemm, Forgetful), probes=300, one_probes=20, folder=tmp_path)

    methods = search.run(plan)["methods"]

    for name in ("flat", "flat_default", "gemm"):
        assert methods[name]["pairs_at_threshold_found"] == 1
        assert methods[name]["one_probe_pairs_found"] == 1
        assert methods[name]["mates_found"] == 1
    for key in ("pairs_at_threshold_found", "pairs_at_threshold_found_fpir_50", "mates_found"):
        assert 0.2 < methods["forgetful"][key] < 0.8


def test_the_command_writes_the_documented_figures(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    options = {"--gallery-size": 2000, "--dimension": 128, "--threads": 1, "--methods": "gemm,flat", "--json": file}
    options |= {"--probes": 100, "--one-probes": 100, "--folder": tmp_path, "--faces": tmp_path / "none"}

    result = CliRunner().invoke(speed.app, ["search", *(str(word) for pair in options.items() for word in pair)])

    assert result.exit_code == 0, result.output
    figures = json.loads(file.read_text())
    assert (figures["gallery_size"], figures["dimension"], figures["threads"]) == (2000, 128, 1)
    flat = figures["methods"]["flat"]
    assert flat["one_probe_vs_flat"] == 1
    assert figures["methods"]["gemm"]["batch_vs_gemm"] == 1
    shares = ("mates_found", "pairs_at_threshold_found", "pairs_at_threshold_found_fpir_50")
    assert [flat[key] for key in shares] == [1, 1, 1]
    assert flat["miss_bound"] is None
    assert flat["ram_bytes_per_template"] > 0
    assert flat["disk_bytes_per_template"] == 512
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.json"]


def test_graphs_are_skipped_where_the_gallery_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Forgetful, "max_size", 1000)
    plan = search.Plan(SIZE, 128, 1, (Gemm, Forgetful), probes=50, one_probes=10, folder=tmp_path)

    figures = search.run(plan)

    assert list(figures["methods"]) == ["gemm"]
    assert "1,000" in figures["skipped"]["forgetful"]


@pytest.mark.parametrize("wrong", [["--methods", "flat,quick"], ["--dimension", "64"]])
def test_an_unknown_method_or_dimension_is_refused(wrong: list[str]) -> None:
    result = CliRunner().invoke(speed.app, ["search", *wrong])

    assert result.exit_code == 2
