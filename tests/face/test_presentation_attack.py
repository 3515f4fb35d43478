"""Presentation attack detection: what a liveness model says is told, and what it cannot say is told too."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.domain import NO_ATTACK_MODEL, AttackFinding, FacePolicy, Image, NotAssessed, PresentationAttack
from service.errors import PackDigestMismatch, PackGraphUnsupported, PackManifestInvalid
from service.face.alignment import Landmarks
from service.face.extractor import Extractor
from service.face.image import ImageLimits
from service.face.model_packs import InstalledPack, verify_pack
from service.face.pack_manifest import PresentationAttackEntry, load_manifest
from service.face.presentation_attack import LivenessModel, NoDetector, detector_of
from tests.face.tiny_packs import fetch_tiny

LANDMARKS = np.array([[130, 140], [190, 138], [161, 175], [137, 208], [187, 207]], np.float32)


def liveness_graph(path: Path, *, side: int = 80, factor: float = 1.0, rows: bool = False) -> Path:
    """Write a graph of the model's form: `factor` times a weighted mean of the channels, red first."""
    weights = np.array([0.5, 0.375, 0.125], np.float32).reshape(1, 3, 1, 1) * np.float32(factor)
    tensors = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([2, 3]), "sides"),
               numpy_helper.from_array(np.array([1]), "channels")]  # fmt: skip
    nodes = [
        helper.make_node("Mul", ["face", "weights"], ["weighted"]),
        helper.make_node("ReduceMean", ["weighted", "sides"], ["means"], keepdims=0),
        helper.make_node("ReduceSum", ["means", "channels"], ["live"], keepdims=int(rows)),
    ]
    taken = [helper.make_tensor_value_info("face", TensorProto.FLOAT, ["batch", 3, side, side])]
    given = [helper.make_tensor_value_info("live", TensorProto.FLOAT, ["batch", 1] if rows else ["batch"])]
    graph = helper.make_graph(nodes, "liveness", taken, given, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path))
    return path


def plain(grey: int) -> Image:
    return np.full((320, 320, 3), grey, np.uint8)


def test_a_face_at_or_above_the_threshold_is_bona_fide(tmp_path: Path) -> None:
    model = LivenessModel(liveness_graph(tmp_path / "m.onnx"), 0.8)
    assert model.assess(plain(255), LANDMARKS) == PresentationAttack(None, AttackFinding.BONA_FIDE, 1.0, 0.8)
    assert model.assess(plain(230), LANDMARKS).finding is AttackFinding.BONA_FIDE


def test_a_face_below_the_threshold_is_an_attack(tmp_path: Path) -> None:
    model = LivenessModel(liveness_graph(tmp_path / "m.onnx"), 0.8)
    found = model.assess(plain(51), LANDMARKS)
    assert found == PresentationAttack(None, AttackFinding.ATTACK, 0.2, 0.8)
    assert found.is_attack


def test_the_score_is_the_one_of_insightfaces_own_class(tmp_path: Path, t1_image: Image) -> None:
    """Alignment, colour order and scaling are theirs: the same file gives the same number."""
    from insightface.addons.liveness import Liveness  # noqa: PLC0415  (seconds to import)

    path = liveness_graph(tmp_path / "m.onnx")
    landmarks = np.array([[395, 285], [440, 290], [415, 315], [397, 335], [432, 338]], np.float32)
    theirs = Liveness(str(path), providers=["CPUExecutionProvider"]).predict(
        np.ascontiguousarray(t1_image[:, :, ::-1]), landmarks
    )
    ours = LivenessModel(path, 0.8).assess(t1_image, landmarks)
    assert ours.score == pytest.approx(theirs["live_score"], abs=2e-4)


def test_a_face_at_the_edge_is_not_assessed(tmp_path: Path) -> None:
    model = LivenessModel(liveness_graph(tmp_path / "m.onnx"), 0.8)
    shifted: Landmarks = LANDMARKS - np.array([125, 100], np.float32)
    assert model.assess(plain(255), shifted) == PresentationAttack(NotAssessed.NOT_ENOUGH_IMAGE)


def test_landmarks_that_are_no_face_are_not_assessed(tmp_path: Path) -> None:
    model = LivenessModel(liveness_graph(tmp_path / "m.onnx"), 0.8)
    assert model.assess(plain(255), LANDMARKS * 0).reason is NotAssessed.NOT_ENOUGH_IMAGE


@pytest.mark.parametrize("factor", [2.0, -1.0, float("nan")])
def test_a_model_that_gives_no_probability_accuses_nobody(tmp_path: Path, factor: float) -> None:
    model = LivenessModel(liveness_graph(tmp_path / "m.onnx", factor=factor), 0.8)
    assert model.assess(plain(255), LANDMARKS) == PresentationAttack(NotAssessed.MODEL_FAILED)


@pytest.mark.parametrize("form", [{"side": 112}, {"rows": True}])
def test_a_graph_of_another_form_is_refused(tmp_path: Path, form: dict[str, bool]) -> None:
    with pytest.raises(PackGraphUnsupported, match="no liveness model"):
        LivenessModel(liveness_graph(tmp_path / "m.onnx", **form), 0.8)


def test_without_a_file_the_answer_says_so() -> None:
    assert isinstance(detector_of(None, 0.0), NoDetector)
    assert detector_of(None, 0.0).assess(plain(0), LANDMARKS).reason is NotAssessed.NO_MODEL


def _promise(models_dir: Path, content: bytes, file: str = "liveness.onnx") -> None:
    manifest = models_dir / "tiny" / "manifest.toml"
    digest = hashlib.sha256(content).hexdigest()
    manifest.write_text(
        manifest.read_text()
        + f'\n[presentation_attack]\nfile = "{file}"\nsize = {len(content)}\nsha256 = "{digest}"\nthreshold = 0.7\n'
    )


def test_the_file_is_used_where_it_lies_beside_the_pack(models_dir: Path, wheel: Path, tmp_path: Path) -> None:
    content = liveness_graph(tmp_path / "m.onnx").read_bytes()
    _promise(models_dir, content)
    assert fetch_tiny(models_dir, wheel.parent).attack_model_path is None
    file = models_dir / "tiny" / "liveness.onnx"
    file.write_bytes(content)
    assert verify_pack(models_dir, "tiny").attack_model_path == file
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(PackDigestMismatch, match="not the one that its manifest names"):
        verify_pack(models_dir, "tiny")


def test_the_model_id_does_not_depend_on_it(models_dir: Path, wheel: Path) -> None:
    before = fetch_tiny(models_dir, wheel.parent).model_id
    _promise(models_dir, b"later")
    assert verify_pack(models_dir, "tiny").model_id == before


def test_its_file_needs_a_name_of_its_own(models_dir: Path, wheel: Path) -> None:
    _promise(models_dir, b"x", file="recogniser.onnx")
    with pytest.raises(PackManifestInvalid, match="different file names"):
        load_manifest(models_dir, "tiny")


@pytest.mark.models
def test_a_template_carries_what_the_model_says(pack: InstalledPack, t1_image: Image, tmp_path: Path) -> None:
    path = liveness_graph(tmp_path / "m.onnx")
    entry = PresentationAttackEntry(file="m.onnx", size=1, sha256="0" * 64, threshold=0.99)
    manifest = pack.manifest.model_copy(update={"presentation_attack": entry})
    portrait = np.ascontiguousarray(t1_image[220:520, 380:680])
    phases: list[str] = []

    def extract(asked: InstalledPack) -> PresentationAttack:
        extractor = Extractor(
            asked, limits=ImageLimits(), min_face_width_px=20, observe=lambda phase, _: phases.append(phase)
        )
        return extractor.extract_image(portrait, FacePolicy.REFUSE).presentation_attack

    assert extract(pack) == NO_ATTACK_MODEL
    found = extract(replace(pack, manifest=manifest, attack_model_path=path))
    assert found.is_attack
    assert found.threshold == 0.99
    assert found.score is not None
    assert 0 < found.score < 0.99
    assert phases.count("attack") == 2
