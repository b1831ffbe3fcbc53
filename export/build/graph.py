"""A network as an ONNX graph: traced by torch, with batch norm folded and without the exporter's debug information."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import onnx
import torch
from torch import Tensor, nn

from attunet.errors import RunError
from attunet.export.runtime.cpu import INPUT
from attunet.models import SegmentationNetwork
from attunet.volumes.spec import MULTIPLE

OPSET = 20
TRACE_SIDE = 4 * MULTIPLE


class _WithOutputs(nn.Module):
    """Slices float32 (N, C, H, W) -> the named outputs, in their order."""

    def __init__(self, network: SegmentationNetwork, outputs: Sequence[str]) -> None:
        super().__init__()
        self.network, self.outputs = network, tuple(outputs)

    def forward(self, slices: Tensor) -> tuple[Tensor, ...]:
        logits, maps = self.network.with_attention(slices)
        results = {f"attention_{i}": alpha for i, alpha in enumerate(maps)} | {"logits": logits}
        if "labels" in self.outputs:
            results["labels"] = logits.argmax(dim=1).to(torch.uint8)
        if "probabilities" in self.outputs:
            results["probabilities"] = logits.softmax(dim=1)
        return tuple(results[name] for name in self.outputs)


def export_graph(
    network: SegmentationNetwork, in_channels: int, outputs: Sequence[str], size: tuple[int, int] | None = None
) -> onnx.ModelProto:
    """Traces a network.

    Args:
        network: in eval mode, float32, on the CPU.
        outputs: names of the graph's outputs, in their order.
        size: height and width of the slices in pixels; None for any multiples of 16.

    Returns:
        An ONNX model with any batch size.

    Raises:
        RunError: if a batch normalisation could not be folded into a convolution.
    """
    height, width = size or (TRACE_SIDE, TRACE_SIDE + MULTIPLE)
    dims: dict[int, torch.export.Dim] = {0: torch.export.Dim("batch")}
    if size is None:
        dims |= {2: MULTIPLE * torch.export.Dim("rows", min=1, max=4096), 3: MULTIPLE * torch.export.Dim("columns", min=1, max=4096)}
    example = torch.zeros(2, in_channels, height, width)  # torch specialises a batch of 1 to a constant
    with without_notes("torch.onnx"):
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
    """Removes stack traces, which contain the exporting machine's paths, and intermediate shapes, which readers infer."""
    for owner in (model, model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del owner.metadata_props[:]
        owner.doc_string = ""
    del model.graph.value_info[:]


@contextlib.contextmanager
def without_notes(library: str) -> Iterator[None]:
    """Silences a library's warnings, log messages below errors and printed text, none of which concern a user of `attunet export`.

    Args:
        library: name of its logger; "" for the root logger.
    """
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
