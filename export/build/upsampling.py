"""Up-sampling for int8: a 2x2, stride-2 transposed convolution is a 1x1 convolution and a pixel shuffle.

ONNX Runtime's CPU provider has no int8 transposed convolution, and its int8 convolutions compute with channels last.
`DepthToSpace` needs channels first, so each shuffle would need two transpositions. As reshapes around one transposition
with channels last, the shuffle is a single copy of contiguous rows: 81 ms instead of 94 for the 64-wide attention U-Net
at 256 x 256 on two cores.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from attunet.export.build.graph import drop_unused_initializers, replace_items
from attunet.export.build.whole.builder import GraphBuilder


def upsample_by_pixel_shuffle(model: onnx.ModelProto) -> None:
    """Replace every 2x2, stride-2 transposed convolution of the graph, in place; results differ by rounding alone."""
    initializers = {i.name: i for i in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if _is_upsampling(node, initializers):
            weight, *bias = (numpy_helper.to_array(initializers[name]) for name in node.input[1:])
            made = _pixel_shuffle(node, weight, bias[0] if bias else np.zeros(weight.shape[1], weight.dtype))
            nodes.extend(made.nodes)
            model.graph.initializer.extend(made.constants)
        else:
            nodes.append(node)
    replace_items(model.graph.node, nodes)
    drop_unused_initializers(model)


def shapes_of_quantised_tensors(model: onnx.ModelProto) -> None:
    """Read shapes from quantised tensors, in place, so that no DequantizeLinear is computed for a Shape node alone."""
    quantised = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.op_type == "Shape" and node.input[0] in quantised:
            node.input[0] = quantised[node.input[0]]


def _pixel_shuffle(node: onnx.NodeProto, weight: np.ndarray, bias: np.ndarray) -> GraphBuilder:
    """Nodes and constants in place of the transposed convolution `node` with weight (C_in, C, 2, 2)."""
    source, (out,) = node.input[0], node.output
    inner, outer = weight.shape[:2]
    build = GraphBuilder(f"{out}.")
    by_place = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).reshape(
        4 * outer, inner, 1, 1
    )  # row, column, C first
    weights = (build.constant(values, weight.dtype) for values in (by_place, np.tile(bias, 4)))
    deep = build("Conv", source, *weights, kernel_shape=[1, 1])  # (N, 4 C, H, W)
    rows = build("Reshape", build("Transpose", deep, perm=[0, 2, 3, 1]), [0, 0, 0, 2, 2 * outer])  # 0: unchanged
    shuffled = build("Transpose", rows, perm=[0, 1, 3, 2, 4])  # (N, H, row, W, column and C)
    doubled = build("Mul", build("Shape", source, start=2, end=4), [2])
    wide = build("Reshape", shuffled, build.vector([0], doubled, [outer]))  # (N, 2 H, 2 W, C)
    build("Transpose", wide, perm=[0, 3, 1, 2], name=out)
    return build


def _is_upsampling(node: onnx.NodeProto, initializers: dict[str, onnx.TensorProto]) -> bool:
    if node.op_type != "ConvTranspose" or not set(node.input[1:]) <= set(initializers):
        return False
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    two_by_two = initializers[node.input[1]].dims[2:] == [2, 2] == settings.get("strides")
    padding = [*settings.get("pads", []), *settings.get("output_padding", [])]
    return two_by_two and settings.get("group", 1) == 1 and not any(padding)
