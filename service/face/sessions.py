"""Opens ONNX Runtime sessions so that concurrent calls share the cores without fighting."""

from pathlib import Path

import cv2
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from service.errors import PackGraphUnsupported
from service.face.graph_comparison import ORT_REFUSALS

# cv2's own threads would fight with the callers' threads for the same cores
cv2.setNumThreads(1)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open a graph for use by many threads at once, each call computing on its caller's thread.

    Raises:
        PackGraphUnsupported: ONNX Runtime cannot load the file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # notes about unused initialisers are not for operators
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (*ORT_REFUSALS, ort_errors.NoSuchFile) as error:
        raise PackGraphUnsupported(f"ONNX Runtime cannot load {path.name}") from error
