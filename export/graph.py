"""A network as a serialised ONNX graph: traced by torch, cleaned of what it need not tell, with batch norm folded."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from attunet.errors import RunError
from attunet.export.fields import MULTIPLE
from attunet.export.session import INPUT

OPSET = 20
TRACE_SIDE = 4 * MULTIPLE


class _WithOutputs(nn.Module):
    """slices (N, C, H, W) float32 -> the named outputs, in their order."""

    def __init__(self, network: nn.Module, outputs: Sequence[str]) -> None:
        super().__init__()
        self.network, self.outputs = network, tuple(outputs)

    def forward(self, slices: Tensor) -> tuple[Tensor, ...]:
        logits, maps = self.network(slices, return_attention=True)
        results = {f"attention_{i}": alpha for i, alpha in enumerate(maps)} | {"logits": logits}
        if "labels" in self.outputs:
            results["labels"] = logits.argmax(dim=1).to(torch.uint8)
        if "probabilities" in self.outputs:
            results["probabilities"] = logits.softmax(dim=1)
        return tuple(results[name] for name in self.outputs)


def export_graph(network: nn.Module, in_channels: int, outputs: Sequence[str], size: tuple[int, int] | None = None) -> onnx.ModelProto:
    """The network (eval mode, float32, CPU) as an ONNX model with dynamic batch; H and W are any multiples of 16, or `size`.

    Raises RunError if a batch normalisation is left, which would be computed at every run.
    """
    height, width = size or (TRACE_SIDE, TRACE_SIDE + MULTIPLE)
    dims: dict[int, torch.export.Dim] = {0: torch.export.Dim("batch")}
    if size is None:
        dims |= {2: MULTIPLE * torch.export.Dim("rows", min=1, max=4096), 3: MULTIPLE * torch.export.Dim("columns", min=1, max=4096)}
    example = torch.zeros(2, in_channels, height, width)  # a batch of 1 would be taken for a constant
    with _quiet():
        program = torch.onnx.export(
            _WithOutputs(network, outputs).eval(),
            (example,),
            dynamo=True,
            external_data=False,
            optimize=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(outputs),
            dynamic_shapes={"slices": dims},
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    left = sorted({node.op_type for node in model.graph.node if "Normalization" in node.op_type})
    if left or model.functions:
        raise RunError(f"export: batch norm must be folded into the convolutions, the graph still has {left}")
    strip_provenance(model)
    return model


def strip_provenance(model: onnx.ModelProto) -> None:
    """Removes stack traces with the exporting machine's paths, and shapes that every reader infers again."""
    for owner in (model, model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del owner.metadata_props[:]
        owner.doc_string = ""
    del model.graph.value_info[:]


def upsample_by_pixel_shuffle(model: onnx.ModelProto) -> int:
    """Rewrites each 2x2, stride-2 transposed convolution as a 1x1 convolution to four times the channels and a pixel shuffle.

    The result is the same: no output pixel of such a convolution gets more than one product per channel. Returns how many there were.
    """
    initializers = {i.name: i for i in model.graph.initializer}
    nodes, count = [], 0
    for node in model.graph.node:
        if not _is_upsampling(node, initializers):
            nodes.append(node)
            continue
        weight = numpy_helper.to_array(initializers[node.input[1]])  # (C_in, C_out, 2, 2)
        inner, outer = weight.shape[:2]
        deep = np.ascontiguousarray(weight.transpose(1, 2, 3, 0).reshape(4 * outer, inner, 1, 1))  # (C_out, row, column) first
        names = [node.input[0], f"{node.input[1]}.1x1"]
        added = [numpy_helper.from_array(deep, names[1])]
        if len(node.input) > 2:
            names.append(f"{node.input[2]}.1x1")
            added.append(numpy_helper.from_array(np.repeat(numpy_helper.to_array(initializers[node.input[2]]), 4), names[2]))
        model.graph.initializer.extend(added)
        middle = f"{node.output[0]}.deep"
        nodes.append(helper.make_node("Conv", names, [middle], name=f"{node.name}.1x1", kernel_shape=[1, 1]))
        nodes.append(helper.make_node("DepthToSpace", [middle], node.output, name=f"{node.name}.shuffle", blocksize=2, mode="CRD"))
        count += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_unused_initializers(model)
    return count


def _is_upsampling(node: onnx.NodeProto, initializers: dict[str, onnx.TensorProto]) -> bool:
    if node.op_type != "ConvTranspose" or node.input[1] not in initializers:
        return False
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    shape = tuple(initializers[node.input[1]].dims[2:])
    plain = settings.get("group", 1) == 1 and not any(settings.get("pads", [])) and not any(settings.get("output_padding", []))
    return shape == (2, 2) and list(settings.get("strides", [])) == [2, 2] and plain


def _drop_unused_initializers(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [i for i in model.graph.initializer if i.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's notes about torchvision and its own deprecated calls say nothing to a user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
