"""Computes once what a graph would compute from its weights at every run: dequantisation and the reshape after it."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Array = npt.NDArray[np.generic]


def fold_constants(graph: onnx.GraphProto) -> None:
    """Replace dequantisation of weights, and the reshape that follows it, by plain float32 initialisers."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        value = _constant_value(node, weights)
        if value is None:
            kept.append(node)
        else:
            weights[node.output[0]] = numpy_helper.from_array(value, node.output[0])
    replace_content(graph, kept, weights.values())


def _constant_value(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> Array | None:
    if node.op_type not in ("DequantizeLinear", "Reshape") or any(name not in weights for name in node.input if name):
        return None
    values = [numpy_helper.to_array(weights[name]) for name in node.input if name]
    if node.op_type == "DequantizeLinear":
        attributes = {item.name: item.i for item in node.attribute if item.type == onnx.AttributeProto.INT}
        zero = values[2] if len(values) > 2 else np.zeros_like(values[1])
        return dequantise(values[0], values[1], zero, attributes.get("axis", 1), attributes.get("block_size", 0))
    shape = [int(size) for size in values[1]]
    return values[0].reshape(shape) if 0 not in shape else None


def dequantise(quantised: Array, scales: Array, zero_points: Array, axis: int, block_size: int) -> Array:
    """Return (quantised - zero point) * scale as float32.

    Args:
        quantised: integers of any shape.
        scales: one number, one for each index along `axis`, or one for each block of `block_size` along `axis`.
        zero_points: as `scales`.

    Source: ONNX operator DequantizeLinear-21.
    """
    spread = [scales.astype(np.float32), zero_points.astype(np.float32)]
    if block_size > 0:
        length = quantised.shape[axis]
        spread = [np.repeat(part, block_size, axis=axis).take(range(length), axis=axis) for part in spread]
    elif scales.size == 1:
        spread = [part.reshape(()) for part in spread]
    else:
        shape = [1] * quantised.ndim
        shape[axis] = -1
        spread = [part.reshape(shape) for part in spread]
    scale, zero = spread
    return (quantised.astype(np.float32) - zero) * scale


def replace_content(
    graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto], weights: Iterable[onnx.TensorProto]
) -> None:
    """Give the graph these nodes and weights; they may be its own."""
    # Copied first: clearing the graph empties messages that belong to it.
    copies = onnx.GraphProto()
    copies.node.extend(nodes)
    copies.initializer.extend(weights)
    del graph.node[:]
    del graph.initializer[:]
    graph.node.extend(copies.node)
    graph.initializer.extend(copies.initializer)
