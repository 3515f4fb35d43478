"""Runs two forms of one ONNX graph on the same images and compares what they answer."""

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from service.errors import PackGraphUnsupported

# The exceptions of ONNX Runtime have no common base but Exception.
ORT_REFUSALS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
    ValueError,
)

Images = npt.NDArray[np.float32]
"""(n, 3, height, width) float32, prepared as the graph expects it."""

Outputs = dict[str, npt.NDArray[np.float32]]


def largest_difference(expected: Outputs, actual: Outputs) -> float:
    """Return the largest absolute difference of any output, relative to the larger of 1 and its largest magnitude."""
    if expected.keys() != actual.keys():
        raise PackGraphUnsupported("the repaired graph has other outputs than the published one")
    worst = 0.0
    for name, wanted in expected.items():
        got = actual[name]
        if got.shape != wanted.shape or not np.isfinite(got).all():
            return float("inf")
        scale = max(1.0, float(np.abs(wanted).max()))
        worst = max(worst, float(np.abs(got - wanted).max()) / scale)
    return worst


def noise_images(count: int, height: int, width: int, mean: float, scale: float) -> Images:
    """Return reproducible noise, (count, 3, height, width) float32, prepared as the graph expects it."""
    pixels = np.random.default_rng(2026).uniform(0, 255, (count, 3, height, width))
    return ((pixels - mean) / scale).astype(np.float32)


def reference_outputs(model: onnx.ModelProto, original: bytes, probes: list[Images]) -> tuple[Images, Outputs]:
    """Return what the published graph answers for the first image of one of the probes, and that probe.

    ONNX Runtime runs it where it can; else the evaluator of ONNX, which is slow (so the first and smallest probe) but
    reads every graph.

    Args:
        model: the published graph with only its real input listed.
        original: the published file.
        probes: images of several sizes, the smallest first.

    Raises:
        PackGraphUnsupported: neither can run it.
    """
    for probe in reversed(probes):
        try:
            return probe, run_graph(original, probe[:1])
        except PackGraphUnsupported:
            continue
    names = [value.name for value in model.graph.output]
    try:
        arrays = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: probes[0][:1]})
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise PackGraphUnsupported("the published graph cannot be run, so nothing can be compared") from error
    return probes[0], {name: np.asarray(array, np.float32) for name, array in zip(names, arrays, strict=True)}


def run_graph(content: bytes, images: Images) -> Outputs:
    """Return every output of the graph by name, float32.

    Raises:
        PackGraphUnsupported: ONNX Runtime refuses the graph or the images.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what ONNX Runtime refuses is reported by the exception
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        arrays = session.run(names, {session.get_inputs()[0].name: images})
    except ORT_REFUSALS as error:
        raise PackGraphUnsupported("ONNX Runtime cannot run the graph") from error
    return {name: np.asarray(array, np.float32) for name, array in zip(names, arrays, strict=True)}
