"""Repairs of published ONNX graphs, done once at install: same outputs, readable by ONNX Runtime, and faster."""

from dataclasses import dataclass

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types
from onnx import helper, numpy_helper

from service.errors import PackGraphUnsupported
from service.face.graph_comparison import (
    Images,
    Outputs,
    largest_difference,
    noise_images,
    reference_outputs,
    run_graph,
)
from service.face.weight_folding import fold_constants, replace_content

REPAIR_VERSION = 1
"""Raised when the repairs change, so that an installed pack is repaired again."""

TOLERANCE = 1e-4
"""Largest difference of an output, relative to its largest magnitude (or 1). Measured: 2e-6 for the packs we ship."""


@dataclass(frozen=True, slots=True)
class RepairedGraph:
    """A graph ready for ONNX Runtime and what was learnt of it."""

    content: bytes
    input_name: str
    output_shapes: dict[str, tuple[int, ...]]  # for one image
    takes_batches: bool  # false: the first dimension must be 1
    largest_difference: float  # to the outputs of the published graph, relative


def repair_recogniser(original: bytes, *, input_size: int, mean: float, scale: float) -> RepairedGraph:
    """Return the recogniser with one free batch dimension, after comparing its outputs with the original's.

    Args:
        original: the published ONNX file.
        input_size: side of the square crop in pixels.
        mean: subtracted from each pixel value (0..255) before the graph sees it.
        scale: divisor after the subtraction.

    Raises:
        PackGraphUnsupported: not ONNX, weights outside the file, or the repaired graph does not answer the same.
    """
    return _repair(original, [noise_images(2, input_size, input_size, mean, scale)], spatial=False)


def repair_detector(original: bytes, *, mean: float = 0.0, scale: float = 1.0) -> RepairedGraph:
    """Return the detector with free batch, height and width, after comparing its outputs with the original's.

    Height and width may then be any multiple of 32. Arguments and errors as `repair_recogniser`.
    """
    probes = [noise_images(2, height, width, mean, scale) for height, width in ((96, 160), (160, 96))]
    fixed = _fixed_spatial_size(_load(original))
    if fixed is not None:
        probes.append(noise_images(2, *fixed, mean, scale))
    return _repair(original, probes, spatial=True)


def repair_graph(model: onnx.ModelProto) -> None:
    """Change `model` in place: plain float32 weights, PRelu by Relu. Shapes stay as they are."""
    fold_constants(model.graph)
    _replace_prelu(model.graph)
    _drop_unused_weights(model.graph)
    # Inferred shapes of values that no longer exist, or that are about to become free.
    del model.graph.value_info[:]


def free_batch(model: onnx.ModelProto, *, spatial: bool) -> None:
    """Rename the first dimension of inputs and outputs to `batch`; with `spatial` height and width become free too."""
    shape = model.graph.input[0].type.tensor_type.shape
    shape.dim[0].dim_param = "batch"
    if spatial:
        shape.dim[2].dim_param = "height"
        shape.dim[3].dim_param = "width"
    for output in model.graph.output:
        dims = output.type.tensor_type.shape.dim
        # A detector that lists its cells in dimension 0 (SCRFD of 2021) has no batch dimension to name.
        if dims and dims[0].dim_value == 1:
            dims[0].dim_param = "batch"
        if spatial and len(dims) == 3 and dims[1].dim_value > 0:
            dims[1].dim_param = f"cells_{output.name}"
    _free_reshapes(model.graph)


def free_spatial(model: onnx.ModelProto) -> None:
    """Let height and width be free and leave the batch as it was published."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[2].dim_param, dims[3].dim_param = "height", "width"
    for output in model.graph.output:
        for position, dim in enumerate(output.type.tensor_type.shape.dim):
            if dim.dim_value > 16:  # the number of cells; scores, boxes and landmarks have 1, 4 and 10
                dim.dim_param = f"cells_{output.name}_{position}"


def accept_pixels(original: bytes, *, given: tuple[float, float], wanted: tuple[float, float]) -> bytes:
    """Return the graph with operators in front that turn our preprocessing into its own.

    InsightFace's newer packages prepare the image inside the graph, some from whole numbers 0..255 (uint8).

    Args:
        original: the published ONNX file.
        given: (mean, scale) by which our images are prepared: (x - mean) / scale.
        wanted: (mean, scale) that the graph expects.
    """
    model = _load(original)
    entry = next(value for value in model.graph.input if value.name == _real_inputs(model)[0].name)
    is_whole = entry.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    if given == wanted and not is_whole:
        return original
    name = entry.name
    gain = np.array(given[1] / wanted[1], np.float32)
    offset = np.array((given[0] - wanted[0]) / wanted[1], np.float32)
    weights = [numpy_helper.from_array(gain, f"{name}_gain"), numpy_helper.from_array(offset, f"{name}_offset")]
    nodes = [
        helper.make_node("Mul", [f"{name}_given", f"{name}_gain"], [f"{name}_scaled"]),
        helper.make_node("Add", [f"{name}_scaled", f"{name}_offset"], [f"{name}_moved" if is_whole else name]),
    ]
    if is_whole:
        nodes.append(helper.make_node("Round", [f"{name}_moved"], [f"{name}_whole"]))
        nodes.append(helper.make_node("Cast", [f"{name}_whole"], [name], to=onnx.TensorProto.UINT8))
    entry.name, entry.type.tensor_type.elem_type = f"{name}_given", onnx.TensorProto.FLOAT
    replace_content(model.graph, [*nodes, *model.graph.node], [*model.graph.initializer, *weights])
    return bytes(model.SerializeToString())


def input_name(content: bytes) -> str:
    """Return the name of the graph's one real input."""
    return str(_real_inputs(_load(content))[0].name)


def _repair(original: bytes, probes: list[Images], *, spatial: bool) -> RepairedGraph:
    """Repair and compare. Each probe is a batch of two images; the sizes differ where `spatial` sizes shall be free."""
    fixed = _load(original)
    _drop_weight_inputs(fixed)
    probe, expected = reference_outputs(fixed, original, probes)
    repair_graph(fixed)
    batched = onnx.ModelProto()
    batched.CopyFrom(fixed)
    free_batch(batched, spatial=spatial)
    content = batched.SerializeToString()
    takes_batches = _answers_batches(content, probe, expected)
    if not takes_batches:
        if spatial:
            free_spatial(fixed)
        content = fixed.SerializeToString()
    outputs = run_graph(content, probe[:1])
    difference = largest_difference(expected, outputs)
    if difference > TOLERANCE:
        raise PackGraphUnsupported(
            f"The repaired graph does not answer like the published one (difference {difference:.1g})."
        )
    for other in probes:
        run_graph(content, other[:1])
    shapes = {name: tuple(array.shape) for name, array in outputs.items()}
    return RepairedGraph(content, _real_inputs(batched)[0].name, shapes, takes_batches, difference)


def _answers_batches(content: bytes, images: Images, expected: Outputs) -> bool:
    """Say whether the first answer for several images is the answer for the first image alone."""
    try:
        outputs = run_graph(content, images)
    except PackGraphUnsupported:
        return False
    if any(array.shape[0] != len(images) for array in outputs.values()):
        return False
    return largest_difference(expected, {name: array[:1] for name, array in outputs.items()}) <= TOLERANCE


def _load(content: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise PackGraphUnsupported("the file is not an ONNX graph") from error
    graph = model.graph
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        # Such a file names other files to read: a path that we did not check.
        raise PackGraphUnsupported("the ONNX graph keeps its weights outside the file")
    inputs = _real_inputs(model)
    if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) != 4 or not graph.output:
        raise PackGraphUnsupported("the ONNX graph must take one image tensor (batch, 3, height, width)")
    return model


def _real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    # SFace lists as inputs its weights, and the names that weights had before they were quantised: no node reads those.
    weights = {tensor.name for tensor in model.graph.initializer}
    read = {name for node in model.graph.node for name in node.input}
    return [value for value in model.graph.input if value.name in read - weights]


def _fixed_spatial_size(model: onnx.ModelProto) -> tuple[int, int] | None:
    height, width = (dim.dim_value for dim in _real_inputs(model)[0].type.tensor_type.shape.dim[2:4])
    return (height, width) if height > 0 and width > 0 else None


def _drop_weight_inputs(model: onnx.ModelProto) -> None:
    inputs = _real_inputs(model)
    kept = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    # Before version 4 every initialiser had to be listed as an input.
    model.ir_version = max(model.ir_version, 4)


def _replace_prelu(graph: onnx.GraphProto) -> None:
    """PRelu(x, a) = a x + (1 - a) Relu(x): three vectorised operators where ONNX Runtime has one slow one."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        slope = weights.get(node.input[1]) if node.op_type == "PRelu" else None
        if slope is None:
            nodes.append(node)
            continue
        source, target = node.input[0], node.output[0]
        values = numpy_helper.to_array(slope)
        rest = numpy_helper.from_array((1 - values).astype(values.dtype), f"{target}_rest")
        graph.initializer.append(rest)
        nodes += [
            helper.make_node("Relu", [source], [f"{target}_positive"], name=f"{target}_positive"),
            helper.make_node("Mul", [source, slope.name], [f"{target}_sloped"], name=f"{target}_sloped"),
            helper.make_node("Mul", [f"{target}_positive", rest.name], [f"{target}_gain"], name=f"{target}_gain"),
            helper.make_node("Add", [f"{target}_sloped", f"{target}_gain"], [target], name=f"{target}_sum"),
        ]
    replace_content(graph, nodes, graph.initializer)


def _drop_unused_weights(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    replace_content(graph, graph.node, kept)


def _free_reshapes(graph: onnx.GraphProto) -> None:
    """Reshapes to (1, -1, ...) keep the first dimension of their input instead of insisting on one image."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        shape = weights.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None:
            continue
        sizes = numpy_helper.to_array(shape).tolist()
        if sizes[:2] == [1, -1]:
            shape.CopyFrom(numpy_helper.from_array(np.array([0, *sizes[1:]], np.int64), shape.name))
