"""Published graphs become runnable and fast, and answer as before."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from service.errors import PackGraphUnsupported
from service.face.graph_comparison import largest_difference, run_graph
from service.face.graph_repairs import accept_pixels, repair_detector, repair_recogniser
from service.face.weight_folding import dequantise
from tests.face.tiny_packs import tiny_detector, tiny_recogniser, whole_number_graph


def _pixels(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(1).integers(0, 256, shape).astype(np.float32)


def _repaired_recogniser(content: bytes) -> onnx.ModelProto:
    return onnx.load_model_from_string(repair_recogniser(content, input_size=112, mean=0, scale=1).content)


def test_block_quantised_weights_are_scaled_block_by_block() -> None:
    quantised = np.array([[1, 2, 3, 4]], np.int8)
    scales = np.array([[10, 100]], np.float32)
    zeros = np.array([[0, 1]], np.int8)

    assert dequantise(quantised, scales, zeros, 1, 2).tolist() == [[10, 20, 200, 300]]


def test_a_last_block_may_be_short() -> None:
    scales = np.array([1, 10], np.float32)
    assert dequantise(np.array([1, 1, 1], np.int8), scales, np.zeros(2, np.int8), 0, 2).tolist() == [1, 1, 10]


def test_weights_quantised_by_row_are_scaled_by_row() -> None:
    quantised = np.array([[1, 2], [3, 4]], np.uint8)
    scales = np.array([1, 10], np.float32)
    assert dequantise(quantised, scales, np.array([0, 1], np.uint8), 0, 0).tolist() == [[1, 2], [20, 30]]


def test_weights_quantised_as_a_whole_are_scaled_as_a_whole() -> None:
    quantised = np.array([1, 2, 3], np.uint8)  # one dimension: the operator's default axis, 1, does not exist
    scaled = dequantise(quantised, np.array([2], np.float32), np.array([1], np.uint8), 1, 0)
    assert scaled.tolist() == [0, 2, 4]


def test_a_graph_that_asks_for_its_own_weights_runs_after_repair() -> None:
    content = tiny_recogniser()
    with pytest.raises(PackGraphUnsupported):
        run_graph(content, _pixels(1, 3, 112, 112))

    repaired = repair_recogniser(content, input_size=112, mean=0, scale=1)

    session = onnxruntime.InferenceSession(repaired.content, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["data"]
    assert repaired.input_name == "data"


def test_the_repaired_recogniser_answers_like_the_published_one() -> None:
    image = _pixels(1, 3, 112, 112)
    published = onnx.load_model_from_string(tiny_recogniser(weights_as_inputs=False))
    expected = next(iter(ReferenceEvaluator(published).run(None, {"data": image})))

    actual = run_graph(repair_recogniser(tiny_recogniser(), input_size=112, mean=0, scale=1).content, image)["fc1"]

    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-3)


def test_no_prelu_and_no_quantised_weight_is_left() -> None:
    model = _repaired_recogniser(tiny_recogniser())

    assert {node.op_type for node in model.graph.node} == {"Conv", "Relu", "Mul", "Add", "Flatten", "MatMul"}
    assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.FLOAT}


def test_a_batch_of_faces_is_answered_like_each_face_alone() -> None:
    repaired = repair_recogniser(tiny_recogniser(), input_size=112, mean=0, scale=1)
    images = _pixels(3, 3, 112, 112)

    together = run_graph(repaired.content, images)["fc1"]

    alone = [run_graph(repaired.content, images[i : i + 1])["fc1"][0] for i in range(3)]
    assert repaired.takes_batches
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-4, atol=1e-3)


def test_a_graph_that_can_only_take_one_face_says_so_and_keeps_its_first_dimension() -> None:
    repaired = repair_recogniser(tiny_recogniser(fixed_batch=True), input_size=112, mean=0, scale=1)

    assert not repaired.takes_batches
    model = onnx.load_model_from_string(repaired.content)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_a_detector_of_fixed_size_takes_other_sizes_and_several_images() -> None:
    repaired = repair_detector(tiny_detector())

    assert run_graph(repaired.content, _pixels(2, 3, 32, 96))["cls_8"].shape == (2, 48, 1)


def test_a_detector_that_lists_its_cells_without_a_batch_takes_other_sizes_one_image_at_a_time() -> None:
    repaired = repair_detector(tiny_detector(one_list=True))

    assert not repaired.takes_batches
    assert run_graph(repaired.content, _pixels(1, 3, 32, 96))["cls_8"].shape == (48, 1)


def test_the_repaired_detector_answers_like_the_published_one() -> None:
    image = _pixels(1, 3, 64, 64)
    expected = run_graph(tiny_detector(), image)
    assert largest_difference(expected, run_graph(repair_detector(tiny_detector()).content, image)) < 1e-6


def test_a_graph_whose_answers_change_is_refused() -> None:
    with pytest.raises(PackGraphUnsupported, match="does not answer like the published one"):
        repair_recogniser(tiny_recogniser(random=True), input_size=112, mean=0, scale=1)


def test_the_difference_is_relative_to_the_largest_number_expected() -> None:
    expected = {"a": np.array([[200.0, 0.0]], np.float32)}
    assert largest_difference(expected, {"a": np.array([[200.0, 2.0]], np.float32)}) == pytest.approx(0.01)


@pytest.mark.parametrize("answer", [[[float("nan"), 0.0]], [[1.0]]], ids=["not a number", "another shape"])
def test_answers_that_cannot_be_compared_differ_without_end(answer: list[list[float]]) -> None:
    assert largest_difference({"a": np.array([[1.0, 0.0]], np.float32)}, {"a": np.array(answer, np.float32)}) == float(
        "inf"
    )


def test_other_outputs_than_published_are_refused() -> None:
    with pytest.raises(PackGraphUnsupported, match="other outputs"):
        largest_difference({"a": np.array([1], np.float32)}, {"b": np.array([1], np.float32)})


def test_a_file_that_is_no_graph_is_refused() -> None:
    with pytest.raises(PackGraphUnsupported, match="not an ONNX graph"):
        repair_detector(b"<html>not found</html>")


def test_weights_outside_the_file_are_refused() -> None:
    model = onnx.load_model_from_string(tiny_recogniser())
    model.graph.initializer[-1].data_location = TensorProto.EXTERNAL
    with pytest.raises(PackGraphUnsupported, match="outside the file"):
        repair_recogniser(model.SerializeToString(), input_size=112, mean=0, scale=1)


def test_a_graph_without_an_image_input_is_refused() -> None:
    model = onnx.load_model_from_string(tiny_recogniser())
    del model.graph.input[0].type.tensor_type.shape.dim[1:]
    with pytest.raises(PackGraphUnsupported, match="one image"):
        repair_recogniser(model.SerializeToString(), input_size=112, mean=0, scale=1)


def test_a_graph_that_reads_whole_pixels_takes_prepared_images() -> None:
    pixels = _pixels(1, 3, 64, 64)
    expected = run_graph(tiny_detector(), pixels)

    adapted = accept_pixels(whole_number_graph(tiny_detector()), given=(127.5, 128.0), wanted=(0.0, 1.0))

    prepared = (pixels - np.float32(127.5)) / np.float32(128)
    assert largest_difference(expected, run_graph(adapted, prepared)) < 1e-6


def test_a_graph_with_another_preprocessing_takes_ours() -> None:
    pixels = _pixels(1, 3, 64, 64)
    expected = run_graph(tiny_detector(), (pixels - np.float32(10)) / np.float32(20))

    adapted = accept_pixels(tiny_detector(), given=(127.5, 128.0), wanted=(10.0, 20.0))

    prepared = (pixels - np.float32(127.5)) / np.float32(128)
    assert largest_difference(expected, run_graph(adapted, prepared)) < 1e-5


def test_a_graph_that_takes_our_images_already_stays_as_it_is() -> None:
    content = tiny_detector()
    assert accept_pixels(content, given=(0.0, 1.0), wanted=(0.0, 1.0)) is content
