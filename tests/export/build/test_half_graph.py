"""The fp16 graph: no Cast inside, weights in the type that they are used in, activations fused into convolutions."""

from collections import Counter
from pathlib import Path

import onnx
import onnxruntime

from attunet.export.build.graph import tidy
from attunet.export.build.precision import to_half
from attunet.export.runtime.gpu import DISABLED_OPTIMIZERS


def half(graph: bytes) -> onnx.ModelProto:
    model = to_half(onnx.load_model_from_string(graph))
    tidy(model)
    return model


def test_casts_are_at_the_input_and_the_outputs_alone(graph: bytes) -> None:
    model = half(graph)
    makers = {name: node for node in model.graph.node for name in node.output}
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    for node in model.graph.node:
        if node.op_type == "Cast":
            assert node.input[0] in ends or node.output[0] in ends, f"{makers.get(node.input[0])} -> {node.output[0]}"


def test_weights_are_float16(graph: bytes) -> None:
    assert {weight.data_type for weight in half(graph).graph.initializer if len(weight.dims) > 1} == {
        onnx.TensorProto.FLOAT16
    }


def test_biases_stay_additions_for_cuda_and_are_joined_for_cpus(graph: bytes, tmp_path: Path) -> None:
    """The nodes that run with the optimizers that the CUDA provider gets, and with all of them."""
    model, counts = half(graph), {}
    assert all(len(node.input) == 2 for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose"))
    for provider, disabled in {"cuda": DISABLED_OPTIMIZERS["cuda"], "cpu": []}.items():
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(tmp_path / f"{provider}.onnx")
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
        )
        counts[provider] = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)[
            "Add"
        ]
    additions = sum(node.op_type == "Add" for node in model.graph.node)
    transposed_and_gates = 4 + 4
    assert counts == {"cuda": additions, "cpu": transposed_and_gates}


def test_the_optimised_graph_has_no_activation_of_its_own(graph: bytes, tmp_path: Path) -> None:
    """Of the nodes that run: each convolution has its ReLU, and only the gates' sums have one behind an addition."""
    counts = {}
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_EXTENDED"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(tmp_path / f"{level}.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        counts[level] = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    before, after = counts["ORT_DISABLE_ALL"], counts["ORT_ENABLE_EXTENDED"]
    assert before["Relu"] == 22
    assert after["Relu"] <= 4
    assert sum(after.values()) < sum(before.values())
