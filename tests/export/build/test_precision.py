"""Graphs in fp16 (no Cast inside, weights in fp16, fused activations) and int8, and their up-sampling."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from attunet.export.build.graph import tidy
from attunet.export.build.precision import to_half, to_int8
from attunet.export.build.upsampling import upsample_by_pixel_shuffle
from attunet.export.runtime.backends.gpu import DISABLED_OPTIMIZERS


@pytest.fixture(scope="module")
def half(graph: bytes) -> onnx.ModelProto:
    model = to_half(onnx.load_model_from_string(graph))
    tidy(model)
    return model


def optimised(graph: bytes, folder: Path, level: str, disabled: list[str] | None = None) -> Counter[str]:
    """Number of nodes that run by operator, at a level of optimisation and without the disabled optimizers."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    onnxruntime.InferenceSession(graph, options, providers=providers, disabled_optimizers=disabled or [])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


@pytest.fixture
def plain(logits_graph: bytes) -> onnx.ModelProto:
    """The graph with nothing but logits, which a test may change."""
    return onnx.load_from_string(logits_graph)


def run(model: onnx.ModelProto, slices: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"slices": slices})[0]


def test_casts_are_at_the_input_and_the_outputs_alone(half: onnx.ModelProto) -> None:
    ends = {value.name for value in (*half.graph.input, *half.graph.output)}
    for node in half.graph.node:
        if node.op_type == "Cast":
            assert ends.intersection([*node.input, *node.output]), node


def test_weights_are_float16(half: onnx.ModelProto) -> None:
    kinds = {weight.data_type for weight in half.graph.initializer if len(weight.dims) > 1}
    assert kinds == {onnx.TensorProto.FLOAT16}


def test_biases_stay_additions_for_cuda_and_are_joined_for_cpus(half: onnx.ModelProto, tmp_path: Path) -> None:
    """With the optimizers that the CUDA provider gets, and with all of them."""
    assert all(len(node.input) == 2 for node in half.graph.node if node.op_type in ("Conv", "ConvTranspose"))
    on_cuda, on_cpu = (
        optimised(half.SerializeToString(), tmp_path, "ORT_ENABLE_BASIC", disabled)["Add"]
        for disabled in (DISABLED_OPTIMIZERS["cuda"], [])
    )
    transposed_and_gates = 4 + 4
    assert (on_cuda, on_cpu) == (sum(node.op_type == "Add" for node in half.graph.node), transposed_and_gates)


def test_the_optimised_graph_has_no_activation_of_its_own(graph: bytes, tmp_path: Path) -> None:
    """Each convolution has its ReLU, and only the gates' sums have one behind an addition."""
    before, after = (optimised(graph, tmp_path, level) for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_EXTENDED"))
    assert before["Relu"] == 22
    assert after["Relu"] <= 4
    assert sum(after.values()) < sum(before.values())


def test_pixel_shuffle_is_the_transposed_convolution(plain: onnx.ModelProto) -> None:
    slices = np.random.default_rng(0).standard_normal((2, 1, 32, 48), dtype=np.float32)
    expected = run(plain, slices)
    assert [node.op_type for node in plain.graph.node].count("ConvTranspose") == 4
    upsample_by_pixel_shuffle(plain)
    onnx.checker.check_model(plain, full_check=True)
    assert "ConvTranspose" not in {node.op_type for node in plain.graph.node}
    np.testing.assert_allclose(run(plain, slices), expected, atol=1e-5)


def test_fp16_keeps_input_and_outputs_and_halves_the_weights(graph: bytes, half: onnx.ModelProto) -> None:
    model = onnx.load_from_string(graph)
    kinds, before = ([o.type.tensor_type.elem_type for o in one.graph.output] for one in (half, model))
    assert kinds == before
    assert half.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert half.ByteSize() < 0.7 * model.ByteSize()
    slices = np.random.default_rng(0).standard_normal((2, 1, 32, 48), dtype=np.float32)
    np.testing.assert_allclose(run(half, slices), run(model, slices), atol=0.02)


def test_int8_is_close_and_made_of_u8_activations_and_s8_weights_per_channel(plain: onnx.ModelProto) -> None:
    slices = np.random.default_rng(0).standard_normal((8, 1, 64, 64), dtype=np.float32)
    upsample_by_pixel_shuffle(plain)
    expected = run(plain, slices)
    quantized = to_int8(plain, slices)
    got = run(quantized, slices)
    assert np.abs(got - expected).mean() < 0.05 * np.abs(expected).max()
    kinds = {i.name: i for i in quantized.graph.initializer}
    weights = [n for n in quantized.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in kinds]
    assert sum(list(kinds[n.input[1]].dims) > [1] for n in weights) > 20, "weights have a scale per channel"
    zero_points = {kinds[n.input[2]].data_type for n in quantized.graph.node if n.op_type == "QuantizeLinear"}
    assert zero_points == {onnx.TensorProto.UINT8}


def test_int8_graph_has_nothing_left_to_convert_on_the_way(plain: onnx.ModelProto, tmp_path: Path) -> None:
    """ONNX Runtime computes all between the ends in int8 with channels last; otherwise int8 is hardly faster."""
    upsample_by_pixel_shuffle(plain)
    quantised = to_int8(plain, np.random.default_rng(0).standard_normal((4, 1, 64, 64), dtype=np.float32))
    kinds = optimised(quantised.SerializeToString(), tmp_path, "ORT_ENABLE_ALL")
    assert (kinds["Conv"], kinds["DepthToSpace"]) == (2, 0), "the first and the last convolution in float32"
    assert (kinds["QuantizeLinear"], kinds["DequantizeLinear"]) == (1, 1)
    assert kinds["Transpose"] <= 4 + 2, "one exchange of axes for each up-sampling, and those after and before the ends"


def chain(first: np.ndarray, head_bias: float = 0.0) -> onnx.ModelProto:
    """Three 1x1 convolutions with ReLU between, from two channels to three classes. first: kernels of the first one."""
    rng = np.random.default_rng(1)
    widths = (2, len(first), 8, 3)
    kernels = [rng.standard_normal((b, a), dtype=np.float32) for a, b in pairwise(widths)]
    kernels[0] = first.astype(np.float32)
    nodes, weights, name = [], [], "slices"
    for step, (kernel, result) in enumerate(zip(kernels, ("a", "b", "logits"), strict=True)):
        bias = np.full(len(kernel), head_bias if result == "logits" else 0, np.float32)
        weights += [
            numpy_helper.from_array(kernel[..., None, None], f"w{step}"),
            numpy_helper.from_array(bias, f"b{step}"),
        ]
        nodes.append(helper.make_node("Conv", [name, f"w{step}", f"b{step}"], [result], name=f"conv{step}"))
        if result != "logits":
            nodes.append(helper.make_node("Relu", [result], [f"{result}.relu"], name=f"relu{step}"))
        name = f"{result}.relu"
    ends = [helper.make_tensor_value_info(n, 1, ["n", c, "h", "w"]) for n, c in (("slices", 2), ("logits", 3))]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def same_labels(model: onnx.ModelProto, calibration: np.ndarray, slices: np.ndarray) -> float:
    """Fraction of pixels that get the same label after quantisation."""
    expected = run(model, slices).argmax(axis=1)
    return float((run(to_int8(model, calibration), slices).argmax(axis=1) == expected).mean())


KERNELS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])


def test_int8_keeps_small_differences_of_channels() -> None:
    """Such as of two echoes: in 256 steps of the input's range they would be lost before anything is computed."""
    rng = np.random.default_rng(0)
    slices = np.repeat(rng.normal(0, 10, (4, 1, 64, 64)), 2, axis=1) + rng.normal(0, 0.02, (4, 2, 64, 64))
    slices = slices.astype(np.float32)
    assert same_labels(chain(np.array([[30, -30], [-30, 30], [20, -20], [-20, 20]])), slices, slices) > 0.97


def test_int8_keeps_differences_of_logits_that_have_a_large_part_in_common() -> None:
    slices = np.random.default_rng(0).standard_normal((4, 2, 64, 64), dtype=np.float32)
    assert same_labels(chain(KERNELS, head_bias=500), slices, slices) > 0.97


def test_int8_ranges_leave_out_rare_outliers() -> None:
    """One pixel of half a million, a hundred times as bright, does not set the scale of all others."""
    slices = np.random.default_rng(0).standard_normal((8, 2, 256, 256), dtype=np.float32)
    calibration = slices.copy()
    calibration[3, :, 100, 100] = 500
    assert same_labels(chain(KERNELS), calibration, slices[:1]) > 0.97
