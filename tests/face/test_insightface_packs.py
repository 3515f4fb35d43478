"""InsightFace folders are read by its own rules; the packs that are really installed work."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from service.errors import (
    PackDigestMismatch,
    PackDownloadFailed,
    PackGraphUnsupported,
    PackManifestInvalid,
    PackNotInstalled,
)
from service.face.graph_comparison import run_graph
from service.face.model_packs import (
    InstalledPack,
    verify_pack,
)
from tests.face.tiny_packs import (
    DIMENSION,
    assert_refused,
    fetch_tiny,
    tiny_detector,
    tiny_recogniser,
    whole_number_graph,
    write_manifest,
)

MODELS_DIR = Path(__file__).parents[2] / "models"


def _insightface_package(folder: Path, *, detector: bytes, tasks: dict[str, object] | None = None) -> None:
    folder.mkdir()
    (folder / "d.onnx").write_bytes(detector)
    (folder / "r.onnx").write_bytes(tiny_recogniser())
    described: dict[str, object] = {
        "detection": {"file": "d.onnx", "preprocessing": "embedded", "sha256": hashlib.sha256(detector).hexdigest()},
        "recognition": {"file": "r.onnx", "preprocessing": {"mean": 100, "std": 50}, "embedding_dimension": DIMENSION},
    }
    document = {"manifest_version": 2, "model_id": "mine", "license": "MODEL.LICENSE", "tasks": tasks or described}
    (folder / "manifest.json").write_text(json.dumps(document), "utf-8")


def test_an_insightface_package_is_read_by_its_manifest(models_dir: Path, tmp_path: Path) -> None:
    path = write_manifest(models_dir, '[source]\nkind = "insightface"', pinned=False)
    path.write_text(path.read_text("utf-8").replace('"yunet"', '"scrfd"'), "utf-8")
    _insightface_package(tmp_path / "mine", detector=whole_number_graph(tiny_detector()))
    pixels = np.random.default_rng(4).integers(0, 256, (1, 3, 64, 64)).astype(np.float32)

    pack = fetch_tiny(models_dir, tmp_path / "mine")

    assert (pack.manifest.recogniser.mean, pack.manifest.recogniser.scale) == (100, 50)
    assert pack.manifest.recogniser.input_name == "data"
    prepared = ((pixels - 127.5) / 128).astype(np.float32)  # as for every `scrfd` detector
    answer = run_graph(pack.detector_path.read_bytes(), prepared)
    np.testing.assert_allclose(answer["cls_8"], run_graph(tiny_detector(), pixels)["cls_8"], atol=1e-6)


def test_an_insightface_package_can_be_held_to_one_file(models_dir: Path, tmp_path: Path) -> None:
    path = write_manifest(models_dir, '[source]\nkind = "insightface"', pinned=False)
    pin = f'file = "detector.onnx"\nsha256 = "{hashlib.sha256(b"another").hexdigest()}"'
    path.write_text(path.read_text("utf-8").replace('file = "detector.onnx"', pin), "utf-8")
    _insightface_package(tmp_path / "mine", detector=tiny_detector())
    assert_refused(models_dir, tmp_path / "mine", PackDigestMismatch, r"detector\.onnx is not the file")


def test_an_insightface_package_with_another_file_is_refused(models_dir: Path, tmp_path: Path) -> None:
    write_manifest(models_dir, '[source]\nkind = "insightface"', pinned=False)
    _insightface_package(tmp_path / "mine", detector=tiny_detector())
    (tmp_path / "mine" / "d.onnx").write_bytes(b"another")
    assert_refused(models_dir, tmp_path / "mine", PackDigestMismatch, r"manifest\.json")


def test_an_insightface_package_without_a_recogniser_is_refused(models_dir: Path, tmp_path: Path) -> None:
    write_manifest(models_dir, '[source]\nkind = "insightface"', pinned=False)
    _insightface_package(tmp_path / "mine", detector=tiny_detector(), tasks={"detection": {"file": "d.onnx"}})
    assert_refused(models_dir, tmp_path / "mine", PackGraphUnsupported, "no model for recognition")


def test_an_insightface_package_of_another_form_is_refused(models_dir: Path, tmp_path: Path) -> None:
    write_manifest(models_dir, '[source]\nkind = "insightface"', pinned=False)
    _insightface_package(tmp_path / "mine", detector=tiny_detector(), tasks={"detection": {"file": "../d.onnx"}})
    assert_refused(models_dir, tmp_path / "mine", PackManifestInvalid, "InsightFace's form")


def test_an_insightface_pack_is_never_downloaded(models_dir: Path) -> None:
    write_manifest(models_dir, '[source]\nkind = "insightface"', pinned=False)
    with pytest.raises(PackDownloadFailed, match="--from"):
        fetch_tiny(models_dir, None)


def _really_installed(pack_id: str) -> InstalledPack:
    try:
        return verify_pack(MODELS_DIR, pack_id)
    except PackNotInstalled:
        pytest.skip(f"the model pack {pack_id} is not installed (make models)")


@pytest.mark.models
@pytest.mark.parametrize("pack_id", ["opencv-zoo", "buffalo_s"])
def test_an_installed_pack_takes_batches_and_has_no_slow_or_unreadable_operator(pack_id: str) -> None:
    pack = _really_installed(pack_id)
    entry = pack.manifest.recogniser

    graph = onnx.load(pack.recogniser_path).graph
    faces = np.random.default_rng(3).uniform(-1, 1, (2, 3, entry.input_size, entry.input_size)).astype(np.float32)
    (embeddings,) = run_graph(pack.recogniser_path.read_bytes(), faces).values()

    assert [value.name for value in graph.input] == [entry.input_name]
    assert not {node.op_type for node in graph.node} & {"PRelu", "DequantizeLinear"}
    assert embeddings.shape == (2, pack.manifest.dimension)


@pytest.mark.models
def test_a_folder_of_insightface_models_is_sorted_by_the_shapes_of_the_graphs(models_dir: Path, tmp_path: Path) -> None:
    installed = _really_installed("buffalo_s")
    folder = tmp_path / "mine"
    folder.mkdir()
    for path in (installed.detector_path, installed.recogniser_path):
        shutil.copy(path, folder / path.name)
    (folder / "a_stray.onnx").write_bytes(b"not a graph")
    path = write_manifest(models_dir, '[source]\nkind = "insightface"', pinned=False)
    content = path.read_text("utf-8").replace("dimension = 16", "dimension = 512").replace('"yunet"', '"scrfd"')
    path.write_text(content, "utf-8")

    pack = fetch_tiny(models_dir, folder)

    assert (pack.manifest.recogniser.mean, pack.manifest.recogniser.scale) == (127.5, 127.5)
    assert pack.manifest.recogniser.input_name == installed.manifest.recogniser.input_name
    assert pack.detector_path.stat().st_size < pack.recogniser_path.stat().st_size
