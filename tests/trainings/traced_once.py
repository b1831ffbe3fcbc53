"""Graphs of networks that are built alike, traced once: tracing takes seconds, and other weights do not change it."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch
from onnxscript import ir, optimizer
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

trace = torch.onnx.export


@contextmanager
def traced_once(folder: Path) -> Iterator[None]:
    """Where torch.onnx.export is called, the second network that is built like an earlier one gets that one's graph
    with its own weights, simplified as torch does it, by folding batch norm into convolutions for one.

    Args:
        folder: for graphs, which processes with the same folder trace once for all.
    """
    traced: dict[str, tuple[onnx.ModelProto, nn.Module]] = {}  # networks stay, so that no other gets their addresses

    def export(network: nn.Module, arguments: tuple[torch.Tensor, ...], **options: object) -> object:
        key = f"{_structure(network)}{[tuple(one.shape) for one in arguments]}{options}"
        if not options.get("optimize"):
            return trace(network, arguments, **options)
        if key not in traced:
            untouched = {**options, "optimize": False}
            traced[key] = _kept(folder, key, lambda: trace(network, arguments, **untouched).model_proto), network
        model, weights = ir.from_proto(traced[key][0]), dict(_weights(network))
        for name, initializer in model.graph.initializers.items():
            if name in weights:
                initializer.const_value = ir.tensor(weights[name].detach().numpy().copy(), name=name)
        optimizer.optimize_ir(model)
        return SimpleNamespace(model_proto=ir.to_proto(model))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", export)
        # The table of operators, which each trace reads and none changes
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield


def _kept(folder: Path, key: str, make: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
    """A graph that another process has kept, or a new one; it is kept where no process has a function or an object
    of its own in the key.
    """
    if re.search("<locals>|<lambda>|object at 0x", key):
        return make()
    path = folder / hashlib.sha256(re.sub(" at 0x[0-9a-f]+", "", key).encode()).hexdigest()
    if path.exists():
        return onnx.load_model(path)
    model, partial = make(), path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(model.SerializeToString())
    partial.rename(path)
    return model


def _structure(network: nn.Module) -> str:
    """All that a trace depends on: types, what they compute, their attributes, and shapes of weights."""
    parts: list[object] = []
    for name, module in network.named_modules():
        own = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        parts.append((name, type(module), type(module).forward, own))
    return f"{parts}{[(name, weight.dtype, tuple(weight.shape)) for name, weight in _weights(network)]}"


def _weights(network: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*network.named_parameters(), *network.named_buffers()]
