"""A network as an ONNX graph: traced by torch, with batch norm folded and without the exporter's debug information."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, MutableSequence, Sequence
from copy import deepcopy
from typing import TypeVar

import onnx
import torch
from torch import Tensor, nn

from attunet.errors import RunError
from attunet.export.artefact.graph_tensors import DISAGREEMENT, INPUT
from attunet.models import SegmentationNetwork
from attunet.volumes.spec import MULTIPLE

OPSET, IR_VERSION = 20, 10  # ONNX Runtime 1.18 is the first that reads IR 10; `attunet.export.artefact.card` names it
TRACE_SIDE = 4 * MULTIPLE

Item = TypeVar("Item")


class _WithOutputs(nn.Module):
    """Slices float32 (N, C, H, W) -> the named outputs, in their order."""

    def __init__(self, network: SegmentationNetwork, outputs: Sequence[str], temperature: float) -> None:
        super().__init__()
        self.network, self.outputs, self.temperature = network, tuple(outputs), temperature

    def forward(self, slices: Tensor) -> tuple[Tensor, ...]:
        results = {}
        if DISAGREEMENT in self.outputs:
            logits, results[DISAGREEMENT], maps = self.network.with_disagreement(slices)  # type: ignore[operator]
        else:
            logits, maps = self.network.with_attention(slices)
        results |= {f"attention_{i}": alpha for i, alpha in enumerate(maps)} | {"logits": logits}
        if "labels" in self.outputs:
            results["labels"] = logits.argmax(dim=1).to(torch.uint8)
        if "probabilities" in self.outputs:
            results["probabilities"] = (logits / self.temperature if self.temperature != 1 else logits).softmax(dim=1)
        return tuple(results[name] for name in self.outputs)


def export_graph(
    network: SegmentationNetwork,
    in_channels: int,
    outputs: Sequence[str],
    size: tuple[int, int] | None = None,
    *,
    temperature: float = 1.0,
) -> onnx.ModelProto:
    """Trace a network, in eval mode, float32, on the CPU, as an ONNX model with any batch size. Raises RunError where a
    batch normalisation could not be folded into a convolution.

    Args:
        outputs: names of the graph's outputs, in their order.
        size: height and width of the slices in pixels; None for any multiples of 16.
        temperature: divisor of the logits for the output `probabilities`.

    Example:
        >>> export_graph(run.network, 1, ("labels", "logits", "probabilities"), temperature=1.3)  # doctest: +SKIP
    """
    height, width = size or (TRACE_SIDE, TRACE_SIDE + MULTIPLE)
    dims: dict[int, torch.export.Dim] = {0: torch.export.Dim("batch")}
    if size is None:
        dims |= {
            axis: MULTIPLE * torch.export.Dim(name, min=1, max=4096) for axis, name in ((2, "rows"), (3, "columns"))
        }
    example = torch.zeros(2, in_channels, height, width)  # torch specialises a batch of 1 to a constant
    with without_notes("torch.onnx"):
        program = torch.onnx.export(
            _WithOutputs(network, outputs, temperature).eval(),
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
    tidy(model)
    return model


def tidy(model: onnx.ModelProto) -> None:
    """Simplify a graph in place: nodes in topological order, no unused opset domain, no debug information.

    Converters append casts at the end and declare every domain that they know, which strict readers refuse. Stack
    traces contain the exporting machine's paths. Readers infer intermediate shapes.
    """
    graph = model.graph
    for owner in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del owner.metadata_props[:]
        owner.doc_string = ""
    del graph.value_info[:]
    replace_items(graph.node, _topological(graph.node))
    used = {node.domain for node in graph.node}
    replace_items(model.opset_import, [opset for opset in model.opset_import if opset.domain in used])


def replace_items(field: MutableSequence[Item], items: Sequence[Item]) -> None:
    """Give a repeated field of a protobuf message other items."""
    del field[:]
    field.extend(items)


def _topological(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Copies of the nodes, each after those that compute its inputs; a sorted graph stays as it is."""
    waiting, order = [deepcopy(node) for node in nodes], []
    missing = {name for node in waiting for name in node.output if name}
    while waiting:
        later = []
        for node in waiting:
            if missing.isdisjoint(node.input):
                order.append(node)
                missing.difference_update(node.output)
            else:
                later.append(node)
        assert len(later) < len(waiting), "the graph has a circle"
        waiting = later
    return order


def drop_unused_initializers(model: onnx.ModelProto) -> None:
    """Remove the weights that no node of the graph takes, in place."""
    used = {name for node in model.graph.node for name in node.input}
    replace_items(model.graph.initializer, [weight for weight in model.graph.initializer if weight.name in used])


@contextlib.contextmanager
def without_notes(library: str) -> Iterator[None]:
    """Silence a library's warnings, log messages below errors and printed text. library: name of its logger."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
