"""Builds small ONNX graphs with the faults of published ones, and wheels and packs around them."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.errors import BiodedupError
from service.face.model_packs import InstalledPack, fetch_pack

DIMENSION = 16
DETECTOR_MEMBER = "tiny_faces/models/tiny_detector.onnx"
RECOGNISER_MEMBER = "tiny_faces/models/tiny_recogniser.onnx"
NOBODY: frozenset[str] = frozenset()


def tiny_recogniser(*, fixed_batch: bool = False, weights_as_inputs: bool = True, random: bool = False) -> bytes:
    """112 x 112 crop -> 16 numbers: block-quantised Conv, PRelu, dense; weights listed as inputs, as in SFace."""
    numbers = np.random.default_rng(7)
    tensors = [
        numpy_helper.from_array(numbers.integers(-90, 90, (4, 27)).astype(np.int8), "conv_quantised"),
        numpy_helper.from_array(numbers.uniform(0.001, 0.002, (4, 3)).astype(np.float32), "conv_scales"),
        numpy_helper.from_array(numbers.integers(-9, 9, (4, 3)).astype(np.int8), "conv_zero"),
        numpy_helper.from_array(np.array([4, 3, 3, 3], np.int64), "conv_shape"),
        numpy_helper.from_array(numbers.uniform(-0.5, 0.5, (4, 1, 1)).astype(np.float32), "slope"),
        numpy_helper.from_array(numbers.normal(0, 0.05, (4 * 7 * 7, DIMENSION)).astype(np.float32), "dense"),
    ]
    nodes = [
        helper.make_node(
            "DequantizeLinear", ["conv_quantised", "conv_scales", "conv_zero"], ["flat"], axis=1, block_size=9
        ),
        helper.make_node("Reshape", ["flat", "conv_shape"], ["conv_weight"]),
        helper.make_node("Conv", ["data", "conv_weight"], ["edges"], strides=[16, 16], pads=[1, 1, 1, 1]),
        helper.make_node("PRelu", ["edges", "slope"], ["bent"]),
    ]
    if fixed_batch:
        tensors.append(numpy_helper.from_array(np.array([1, 4 * 7 * 7], np.int64), "one_row"))
        nodes.append(helper.make_node("Reshape", ["bent", "one_row"], ["rows"]))
    else:
        nodes.append(helper.make_node("Flatten", ["bent"], ["rows"]))
    nodes.append(helper.make_node("MatMul", ["rows", "dense"], ["sum" if random else "fc1"]))
    if random:
        nodes.append(helper.make_node("RandomUniformLike", ["sum"], ["noise"]))
        nodes.append(helper.make_node("Add", ["sum", "noise"], ["fc1"]))
    inputs = [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 112, 112])]
    if weights_as_inputs:
        inputs += [helper.make_tensor_value_info(item.name, item.data_type, item.dims) for item in tensors]
        # The name that a weight had before it was quantised: no node reads it, ONNX Runtime asks for it.
        inputs.append(helper.make_tensor_value_info("conv_weight_before", TensorProto.FLOAT, [4, 3, 3, 3]))
    outputs = [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, DIMENSION])]
    return _serialise(nodes, inputs, outputs, tensors)


def tiny_detector(*, one_list: bool = False) -> bytes:
    """A 64 x 64 image -> a score for each 8 x 8 cell: fixed sizes and one-image reshapes, as in YuNet.

    With `one_list` the cells are rows (cells, 1) without a batch dimension, as in the SCRFD of 2021.
    """
    weight = np.random.default_rng(8).normal(0, 0.01, (1, 3, 8, 8)).astype(np.float32)
    tensors = [
        numpy_helper.from_array(weight, "kernel"),
        numpy_helper.from_array(np.array([-1, 1] if one_list else [1, -1, 1], np.int64), "cells"),
    ]
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["map"], strides=[8, 8]),
        helper.make_node("Sigmoid", ["map"], ["score"]),
        helper.make_node("Transpose", ["score"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["last", "cells"], ["cls_8"]),
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 64, 64])]
    outputs = [helper.make_tensor_value_info("cls_8", TensorProto.FLOAT, [64, 1] if one_list else [1, 64, 1])]
    return _serialise(nodes, inputs, outputs, tensors)


def whole_number_graph(content: bytes) -> bytes:
    """The same graph reading uint8 pixels, as InsightFace's `embedded` packages do."""
    model = onnx.load_model_from_string(content)
    entry = model.graph.input[0]
    nodes = list(model.graph.node)
    for node in nodes:
        node.input[:] = ["pixels" if name == entry.name else name for name in node.input]
    cast = helper.make_node("Cast", [entry.name], ["pixels"], to=TensorProto.FLOAT)
    entry.type.tensor_type.elem_type = TensorProto.UINT8
    return _serialise([cast, *nodes], list(model.graph.input), list(model.graph.output), list(model.graph.initializer))


def write_wheel(folder: Path, members: dict[str, bytes], *, project: str = "tiny_faces", version: str = "1.0") -> Path:
    """A wheel that pip accepts, holding `members`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{project}-{version}-py3-none-any.whl"
    info = f"{project}-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def wheel_source(wheel: Path) -> str:
    content = wheel.read_bytes()
    return (
        '[source]\nkind = "wheel"\nproject = "tiny-faces"\nversion = "1.0"\n'
        f'size = {len(content)}\nsha256 = "{hashlib.sha256(content).hexdigest()}"\n'
    )


def write_manifest(
    models_dir: Path,
    source: str,
    *,
    pack_id: str = "tiny",
    detector: bytes | None = None,
    recogniser: bytes | None = None,
    restricted: bool = False,
    pinned: bool = True,
) -> Path:
    """A manifest for the tiny pack; `detector` and `recogniser` are what it promises."""
    folder = models_dir / pack_id
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.toml"
    path.write_text(
        f'pack_id = "{pack_id}"\ntitle = "Tiny"\ndimension = {DIMENSION}\n'
        '[licence]\nname = "MIT"\nlink = "https://example.org/licence"\n'
        f'restricted = {str(restricted).lower()}\nplain_words = "Only for tests."\n'
        f"{source}\n"
        '[detector]\nkind = "yunet"\nfile = "detector.onnx"\n'
        f"{_pin(DETECTOR_MEMBER, detector or tiny_detector(), pinned)}"
        '[recogniser]\nfile = "recogniser.onnx"\n'
        f"{_pin(RECOGNISER_MEMBER, recogniser or tiny_recogniser(), pinned)}"
        'input_name = "data"\nlayout = "NCHW"\ninput_size = 112\ncolour = "RGB"\nmean = 0.0\nscale = 1.0\n',
        encoding="utf-8",
    )
    return path


def fetch_tiny(models_dir: Path, folder: Path | None) -> InstalledPack:
    return fetch_pack(models_dir, "tiny", accepted_licences=NOBODY, from_folder=folder)


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} | {
        str(path.relative_to(folder)): b"" for path in folder.rglob("*") if path.is_dir()
    }


def assert_refused(models_dir: Path, folder: Path, error: type[BiodedupError], message: str) -> None:
    """The fetch fails with this error and leaves every file and folder as it was."""
    before = everything_in(models_dir.parent)
    with pytest.raises(error, match=message):
        fetch_tiny(models_dir, folder)
    assert everything_in(models_dir.parent) == before


def _pin(member: str, content: bytes, pinned: bool) -> str:
    if not pinned:
        return ""
    return f'member = "{member}"\nsize = {len(content)}\nsha256 = "{hashlib.sha256(content).hexdigest()}"\n'


def _serialise(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    tensors: list[onnx.TensorProto],
) -> bytes:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


GOOD_MEMBERS = {DETECTOR_MEMBER: tiny_detector(), RECOGNISER_MEMBER: tiny_recogniser()}
