"""The command, from photographs to figures."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.datasets import Dataset, OpenSet, Pair, load_dataset, person_of
from benchmarks.embeddings import FaceSet, cache_path, load, save
from benchmarks.error_rates import as_json, main
from benchmarks.pack_rates import PackRates, measure, score_pairs, search_open_set
from service.face.model_packs import installed_pack

ENROLLED, STRANGERS = 20, 10


def unit(*values: float) -> list[float]:
    return [float(value) for value in np.array(values) / np.linalg.norm(values)]


PHOTOGRAPHS = ("a/a_0001.jpg", "a/a_0002.jpg", "b/b_0001.jpg", "b/b_0002.jpg", "c/c_0001.jpg", "d/d_0001.jpg")
DATASET = Dataset(
    Path("nowhere"),
    PHOTOGRAPHS,
    (Pair("a/a_0001.jpg", "a/a_0002.jpg"), Pair("a/a_0001.jpg", "b/b_0001.jpg"), Pair("c/c_0001.jpg", "d/d_0001.jpg")),
    OpenSet(("a/a_0001.jpg", "b/b_0001.jpg"), ("a/a_0002.jpg", "b/b_0002.jpg"), ("c/c_0001.jpg", "d/d_0001.jpg")),
)
FACES = FaceSet(
    np.array([unit(1, 0, 0), unit(1, 0.2, 0), unit(0, 1, 0), unit(0.9, 0.5, 0), unit(-0.3, -0.2, 1)], np.float32),
    {photograph: row for row, photograph in enumerate(PHOTOGRAPHS[:5])},
    {"d/d_0001.jpg": "no_face"},
)


def test_searches_tell_score_and_rank_of_the_right_reference() -> None:
    searches = search_open_set(DATASET, FACES)
    assert searches.own_ranks.tolist() == [1, 2]
    assert searches.own_scores == pytest.approx([unit(1, 0.2, 0)[0], unit(0.9, 0.5, 0)[1]])


def test_a_new_person_has_the_score_of_the_nearest_reference_even_a_negative_one() -> None:
    tops = search_open_set(DATASET, FACES).non_mated_tops
    assert tops[0] == pytest.approx(unit(-0.3, -0.2, 1)[1])
    assert tops[1] == -np.inf  # no usable face, nothing searched


def test_a_mate_without_a_usable_face_is_never_found() -> None:
    rows = {photograph: row for photograph, row in FACES.row_of.items() if photograph != "b/b_0001.jpg"}
    searches = search_open_set(DATASET, FaceSet(FACES.embeddings, rows, {"b/b_0001.jpg": "no_face"}))
    assert searches.own_scores[1] == -np.inf


def test_pairs_without_a_usable_face_have_no_score() -> None:
    pairs = score_pairs(DATASET, FACES, {"a": 0, "b": 1, "c": 2, "d": 3})
    assert pairs.scores == pytest.approx([unit(1, 0.2, 0)[0], 0.0, -np.inf])
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0, 0, 2], [0, 1, 3])


def test_kept_templates_come_back_as_they_were(tmp_path: Path) -> None:
    save(tmp_path / "kept" / "some.npz", FACES)
    again = load(tmp_path / "kept" / "some.npz")
    assert (again.row_of, again.rejected) == (FACES.row_of, FACES.rejected)
    assert np.array_equal(again.embeddings, FACES.embeddings)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["some.npz"]


def small_half(faces_dir: Path, folder: Path) -> Path:
    """Make a data set of a few people whose images are links to the real ones."""
    open_set = json.loads((faces_dir / "openset.json").read_text())
    mated = open_set["mated"][:ENROLLED]
    persons = [person_of(photograph) for photograph in mated]
    gallery = [photograph for photograph in open_set["gallery"] if person_of(photograph) in persons]
    non_mated = open_set["non_mated"][:STRANGERS]
    (folder / "images").mkdir(parents=True)
    for person in persons + [person_of(photograph) for photograph in non_mated]:
        (folder / "images" / person).symlink_to(faces_dir / "images" / person)
    lines = [f"{person} 1 2" for person in persons]
    lines += [f"{one} 1 {other} 2" for one, other in pairwise(persons)]
    (folder / "pairs.txt").write_text("\n".join(lines))
    (folder / "openset.json").write_text(json.dumps({"gallery": gallery, "mated": mated, "non_mated": non_mated}))
    return folder


@pytest.mark.models
@pytest.mark.faces
def test_both_packs_tell_a_few_real_people_apart(
    faces_dir: Path,
    models_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BIODEDUP_MODELS_DIR", str(models_dir))
    monkeypatch.setenv("BIODEDUP_VAR_DIR", str(tmp_path / "var"))
    half = small_half(faces_dir, tmp_path / "half")
    command = ["--dataset", str(half), "--json", str(tmp_path / "figures.json")]
    assert main(command) == 0
    first = json.loads((tmp_path / "figures.json").read_text())
    assert set(first["packs"]) >= {"opencv-zoo", "buffalo_s"}
    for figures in first["packs"].values():
        assert figures["failure_to_acquire"] == 0
        assert figures["accuracy"] > 0.95
        assert set(figures["fnir_at_fpir"]) == {"0.1", "0.03", "0.01"}
        assert figures["fnir_at_fpir"]["0.01"] <= 0.2
    capsys.readouterr()
    assert main(command) == 0
    assert json.loads((tmp_path / "figures.json").read_text()) == first
    assert capsys.readouterr().out.count("templates of an earlier run") == 2


@pytest.mark.models
@pytest.mark.faces
def test_a_pack_that_is_not_installed_is_named_and_left_out_unless_it_was_asked_for(
    faces_dir: Path,
    models_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = tmp_path / "models"
    shutil.copytree(models_dir / "opencv-zoo", models / "opencv-zoo", ignore=shutil.ignore_patterns("*.onnx"))
    monkeypatch.setenv("BIODEDUP_MODELS_DIR", str(models))
    half = small_half(faces_dir, tmp_path / "half")
    assert main(["--dataset", str(half), "--pack", "opencv-zoo"]) == 1
    assert main(["--dataset", str(half)]) == 1
    assert "Not measured: " in capsys.readouterr().out


@pytest.mark.models
@pytest.mark.faces
def test_kept_templates_are_for_one_model_and_one_setting(faces_dir: Path, models_dir: Path, tmp_path: Path) -> None:
    dataset = load_dataset(small_half(faces_dir, tmp_path / "half"))
    packs = [
        installed_pack(models_dir, pack_id, accepted_licences=frozenset({"buffalo_s"}))
        for pack_id in ("opencv-zoo", "buffalo_s")
    ]
    paths = {cache_path(tmp_path, dataset, pack, width) for pack in packs for width in (20, 40)}
    assert len(paths) == 4
    assert cache_path(tmp_path, dataset, packs[0], 20) in paths


def test_a_folder_that_is_no_data_set_ends_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dataset", str(tmp_path)]) == 1
    assert "has no folder images" in " ".join(capsys.readouterr().out.split())


def test_the_figures_have_the_documented_form() -> None:
    rates = measure(_larger(), "synthetic", "synthetic@1", _larger_faces())
    figures = json.loads(json.dumps(as_json([rates])))["packs"]["synthetic"]
    assert isinstance(rates, PackRates)
    assert figures["failure_to_acquire"] == 0.0
    assert figures["accuracy"] == 1.0
    assert figures["fnir_at_fpir"] == {"0.1": 0.0, "0.03": 0.0, "0.01": 0.0}
    assert figures["intervals"]["fnir_at_fpir"]["0.1"] == [0.0, 0.0]
    assert (figures["model_id"], figures["photographs"], figures["people"]) == ("synthetic@1", 60, 30)


def _larger() -> Dataset:
    names = [f"p{number:02d}" for number in range(30)]
    photographs = tuple(f"{name}/{name}_{number:04d}.jpg" for name in names for number in (1, 2))
    first, second = photographs[::2], photographs[1::2]
    pairs = [Pair(*both) for both in zip(first, second, strict=True)]
    pairs += [Pair(*both) for both in zip(first, second[1:] + second[:1], strict=True)]
    return Dataset(Path("nowhere"), photographs, tuple(pairs), OpenSet(first[:20], second[:20], first[20:]))


def _larger_faces() -> FaceSet:
    embeddings = np.repeat(np.eye(30, dtype=np.float32), 2, axis=0)
    return FaceSet(embeddings, {photograph: row for row, photograph in enumerate(_larger().photographs)}, {})
