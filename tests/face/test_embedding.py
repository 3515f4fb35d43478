"""Embedding: unit vectors, equal to the reference library, whatever the number of crops or threads."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from service.domain import Image
from service.errors import PackGraphUnsupported, TemplateUnusable
from service.face.alignment import Crop, align
from service.face.embedding import Recogniser
from service.face.model_packs import InstalledPack

GOLDEN = Path(__file__).parent.parent / "golden"


def recogniser_of(pack: InstalledPack, dimension: int | None = None, centre: Sequence[float] = ()) -> Recogniser:
    entry = pack.manifest.recogniser
    return Recogniser(
        pack.recogniser_path,
        dimension=dimension or pack.manifest.dimension,
        mean=entry.mean,
        scale=entry.scale,
        colour=entry.colour,
        input_name=entry.input_name,
        centre=centre,
    )


@pytest.fixture(scope="module")
def recogniser(pack: InstalledPack) -> Recogniser:
    return recogniser_of(pack)


@pytest.fixture(scope="module")
def golden_crops(pack: InstalledPack, t1_image: Image) -> tuple[list[Crop], np.ndarray]:
    faces = json.loads((GOLDEN / f"t1_half_{pack.manifest.pack_id}.json").read_text())
    image = np.asarray(cv2.resize(t1_image, (640, 443), interpolation=cv2.INTER_AREA), np.uint8)
    crops = [align(image, np.array(face["landmarks"], np.float32)) for face in faces]
    return crops, np.array([face["embedding"] for face in faces], np.float32)


@pytest.mark.models
def test_embeddings_equal_those_of_the_reference_library(
    recogniser: Recogniser, golden_crops: tuple[list[Crop], np.ndarray]
) -> None:
    crops, wanted = golden_crops
    assert ((recogniser.embed(crops) * wanted).sum(axis=1) >= 0.9999).all()


@pytest.mark.models
def test_embeddings_are_unit_vectors_of_the_packs_dimension(
    recogniser: Recogniser, pack: InstalledPack, golden_crops: tuple[list[Crop], np.ndarray]
) -> None:
    embeddings = recogniser.embed(golden_crops[0])
    assert embeddings.shape == (6, pack.manifest.dimension)
    assert embeddings.dtype == np.float32
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


@pytest.mark.models
def test_a_centre_is_subtracted_from_embeddings_of_length_one(
    pack: InstalledPack, recogniser: Recogniser, golden_crops: tuple[list[Crop], np.ndarray]
) -> None:
    plain = recogniser.embed(golden_crops[0])
    centre = plain[:3].mean(axis=0)
    centred = recogniser_of(pack, centre=centre.tolist()).embed(golden_crops[0])
    wanted = plain - centre
    assert np.allclose(centred, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)
    assert np.allclose(np.linalg.norm(centred, axis=1), 1, atol=1e-6)


@pytest.mark.models
def test_no_crops_give_no_embeddings(recogniser: Recogniser) -> None:
    assert recogniser.embed([]).shape == (0, recogniser.dimension)


@pytest.mark.models
def test_four_threads_embed_what_one_embeds(
    recogniser: Recogniser, golden_crops: tuple[list[Crop], np.ndarray]
) -> None:
    alone = recogniser.embed(golden_crops[0])
    with ThreadPoolExecutor(4) as threads:
        for together in threads.map(lambda _: recogniser.embed(golden_crops[0]), range(8)):
            assert np.array_equal(together, alone)


@pytest.mark.models
def test_a_graph_of_another_dimension_is_refused(pack: InstalledPack) -> None:
    with pytest.raises(PackGraphUnsupported, match="shape"):
        recogniser_of(pack, dimension=64)


@pytest.mark.parametrize("factor", [0.0, float("nan"), 3e38], ids=["nothing", "not-a-number", "overflow"])
def test_a_graph_that_makes_nothing_finite_of_a_face_enrols_nobody(tmp_path: Path, factor: float) -> None:
    nodes = [
        onnx.helper.make_node("GlobalAveragePool", ["data"], ["mean"]),
        onnx.helper.make_node("Flatten", ["mean"], ["flat"]),
        onnx.helper.make_node("Mul", ["flat", "factor"], ["out"]),
    ]
    data = onnx.helper.make_tensor_value_info("data", onnx.TensorProto.FLOAT, [1, 3, 112, 112])
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1, 3])
    constant = onnx.numpy_helper.from_array(np.array([factor], np.float32), "factor")
    graph = onnx.helper.make_graph(nodes, "broken", [data], [out], [constant])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "broken.onnx")
    broken = Recogniser(tmp_path / "broken.onnx", dimension=3, mean=0, scale=1)
    with np.errstate(all="ignore"), pytest.raises(TemplateUnusable):
        broken.embed([np.full((112, 112, 3), 200, np.uint8)])
