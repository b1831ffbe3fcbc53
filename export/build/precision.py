"""Conversion of fp32 graphs to fp16 for GPUs and to int8 for CPUs."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from attunet.export.artefact.graph_tensors import INPUT
from attunet.export.build.graph import drop_unused_initializers, replace_items, without_notes
from attunet.export.build.upsampling import shapes_of_quantised_tensors
from attunet.system.private_folder import PrivateFolder


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with weights and arithmetic in float16; biases become additions.

    Input, outputs and what follows the last convolution stay float32: logarithms of small probabilities, which the
    members of an ensemble have, need its range, and it costs no time.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    end = _cut_behind_convolutions(model)
    half: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=False)
    half.graph.node.extend(end.node)
    half.graph.initializer.extend(end.initializer)
    replace_items(half.graph.output, end.output)
    biases_as_additions(half)
    return half


def _cut_behind_convolutions(model: onnx.ModelProto) -> onnx.GraphProto:
    """Remove the nodes that no convolution follows, in place; what the others give them becomes the graph's outputs.
    Gives the removed nodes, their weights under names of their own, and the outputs that the model had.
    """
    graph, end, last = model.graph, onnx.GraphProto(), set(_not_reached(model.graph.node, backwards=True))
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    values = {value.name: value for value in (*inferred, *graph.output)}
    weights = {weight.name: weight for weight in graph.initializer}
    end.output.extend(graph.output)
    end.node.extend(node for node in graph.node if node.name in last and node.op_type != "Conv")
    removed = {node.name for node in end.node}
    replace_items(graph.node, [node for node in graph.node if node.name not in removed])
    wanted = dict.fromkeys([*(v.name for v in end.output), *(name for node in end.node for name in node.input)])
    for name in wanted.keys() & weights.keys():
        end.initializer.append(numpy_helper.from_array(numpy_helper.to_array(weights[name]), f"{name}.float32"))
    for node in end.node:
        replace_items(node.input, [f"{name}.float32" if name in weights else name for name in node.input])
    made = {name for node in graph.node for name in node.output}
    replace_items(graph.output, [values[name] for name in wanted if name in made])
    drop_unused_initializers(model)
    return end


def biases_as_additions(model: onnx.ModelProto) -> None:
    """Move the bias of every convolution into an `Add` behind it, in place.

    ONNX Runtime's CUDA provider adds a convolution's bias by a kernel of cuDNN that takes a third of the time of a
    batch on an H200; its own `Add` takes less than half of that. Where convolutions add their bias at no cost, on CPUs,
    the runtime joins both again.
    """
    weights = {weight.name: weight for weight in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type in ("Conv", "ConvTranspose") and len(node.input) > 2 and node.input[2] in weights:
            out, bias = node.output[0], numpy_helper.to_array(weights[node.input[2]])
            model.graph.initializer.append(numpy_helper.from_array(bias.reshape(1, -1, 1, 1), f"{out}.bias"))
            del node.input[2]
            node.output[0] = f"{out}.unbiased"
            nodes.append(helper.make_node("Add", [node.output[0], f"{out}.bias"], [out], name=f"{out}.add"))
    replace_items(model.graph.node, nodes)
    drop_unused_initializers(model)


def to_int8(model: onnx.ModelProto, slices: np.ndarray) -> onnx.ModelProto:
    """Static quantisation in QDQ form: U8 activations per tensor, S8 weights per channel, both ends in float32.

    The range of an activation leaves out 1 value in 100,000, half at each end, so that outliers do not coarsen the
    steps of all others.

    Args:
        model: with up-sampling as pixel shuffles (`attunet.export.build.upsampling`).
        slices: float32 (N, C, H, W), for the ranges of the activations. The first one must be no blank one: it sets
            the width of the bins of the histograms.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def __len__(self) -> int:
            return len(slices)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.left = iter(slices[start_index:end_index])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({INPUT: one[None]} for one in self.left), None)

    with PrivateFolder() as folder, without_notes(""):
        plain, before, after = (folder.path / name for name in ("plain.onnx", "before.onnx", "after.onnx"))
        onnx.save(model, plain)  # the quantiser empties a model that it gets in memory
        quant_pre_process(plain, before, skip_symbolic_shape=True)
        # In float32 both ends cost no time. Few channels come in, so the errors of the first kernels do not average
        # out, and all that follows depends on them. Logits in 256 steps have ties, and probabilities do not sum to 1.
        nodes = onnx.load(before).graph.node
        ends = [*_not_reached(nodes), *_not_reached(nodes, backwards=True)]
        quantize_static(
            before,
            after,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            nodes_to_exclude=ends,
            # Despite its name: one slice after the other, so that memory holds the activations of one alone
            extra_options={"CalibPercentile": 99.999, "CalibStridedMinMax": 1},
        )
        quantised = onnx.load(after)
    shapes_of_quantised_tensors(quantised)
    return quantised


def _not_reached(nodes: Sequence[onnx.NodeProto], *, backwards: bool = False) -> list[str]:
    """Names of the nodes, in topological order, with no convolution before them, or none after them."""
    names = []
    reached: set[str] = set()  # tensors with a convolution before them, or after them
    for node in nodes[::-1] if backwards else nodes:
        sources, results = (node.output, node.input) if backwards else (node.input, node.output)
        if is_end := reached.isdisjoint(sources):
            names.append(node.name)
        if node.op_type == "Conv" or not is_end:
            reached.update(results)
    return names
