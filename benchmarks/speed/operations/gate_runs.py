"""Measurements of `attunet.benchmarks.speed.operations.gate`: single gates, the whole network,
and the memory of its training step.
"""

from typing import Any

import torch
from torch import Tensor, nn

from attunet.benchmarks.evaluation.results_table import Json
from attunet.benchmarks.speed.operations.levels import DTYPES, MODES, Settings, measure_level
from attunet.benchmarks.speed.operations.measures import Call, held_bytes, measure_calls, peak_bytes
from attunet.models import AttentionGate, AttentionUNet
from attunet.ops.attention_gate import choose_backend

DEPTH, NUM_CLASSES = 4, 5
TENSORS_MOVED = {"inference": 2, "training": 5}  # as large as the output; see `measure_gate`


def fused_backend(settings: Settings) -> str:
    return choose_backend(torch.empty(0, device=settings.device, dtype=DTYPES[settings.dtype]))


def measure_gate(settings: Settings, level: int, compiled: bool) -> list[Json]:
    """Rows of one level: inference and training, each for eager, compiled, fused and the copy.

    The copy moves the bytes that the gate must: inference reads x and g and writes the output, two tensors as large as
    the output; the backward pass reads x, g and the gradient of the output, and writes the gradients of x and g, three
    more.
    """
    x, g, half = (settings.noise(level) for _ in range(3))
    channels, grad_out = x.shape[1], torch.cat((half, half), dim=1)
    rows = []
    for mode in MODES:
        torch._dynamo.reset()
        calls = {}
        for name, backend in {"eager": "reference", "compile": "reference", "fused": fused_backend(settings)}.items():
            if name != "compile" or compiled:
                gate = AttentionGate(channels, channels, backend=backend).to(settings.device)
                computed = _compiled(gate) if name == "compile" else gate
                calls[name] = _gate_call(computed, x, g, grad_out if mode == "training" else None)
        rows += measure_level(calls, settings, level, mode, TENSORS_MOVED[mode] * grad_out.nbytes)
    return rows


def measure_network(settings: Settings, compiled: bool) -> list[Json]:
    """Rows of inference and of a training step (forward, cross entropy, backward) of the whole network."""
    variants = {"eager": ("reference", False), "fused": (fused_backend(settings), False)}
    if compiled:
        variants |= {"compile": ("reference", True), "compile with fused": (fused_backend(settings), True)}
    rows = []
    for mode in MODES:
        torch._dynamo.reset()
        calls = {}
        for name, (backend, compiling) in variants.items():
            network = _network(settings, backend).train(mode == "training")
            calls[name] = _network_call(settings, _compiled(network) if compiling else network, mode == "training")
        rows += [
            {"mode": mode, **row, "slices_per_s": 1000 * settings.batch_size / row["ms_p50"]}
            for row in measure_calls(calls, settings.device, settings.seconds)
        ]
    return rows


def measure_memory(settings: Settings) -> dict[str, float]:
    """Memory of a training step, eager and fused: kept after the forward pass, peak,
    and both savings beside the calculated one.
    """
    memory = {"expected_saving_mb": expected_saving_bytes(settings) / 1e6}
    for name, backend in {"eager": "reference", "fused": fused_backend(settings)}.items():
        network = _network(settings, backend)
        step = _network_call(settings, network, training=True)
        step()
        memory[f"{name}_held_mb"] = held_bytes(step, network) / 1e6
        memory[f"{name}_peak_mb"] = peak_bytes(step, settings.device) / 1e6
    for figure in ("held", "peak"):
        memory[f"{figure}_saving_mb"] = memory[f"eager_{figure}_mb"] - memory[f"fused_{figure}_mb"]
    return memory


def expected_saving_bytes(settings: Settings) -> int:
    """Bytes that eager gates save besides their inputs: hidden features (half as many as the skip's channels) and
    alpha; under autocast also the 16-bit copies of the weights.
    """
    total, element_size = 0, DTYPES[settings.dtype].itemsize
    for level in range(DEPTH):
        batch_size, channels, height, width = settings.shape(level)
        pixels = batch_size * height * width
        weights = channels * channels + channels // 2 if element_size < 4 else 0
        total += (pixels * (channels // 2 + 1) + weights) * element_size
    return total


def _gate_call(gate: nn.Module, x: Tensor, g: Tensor, grad_out: Tensor | None) -> Call:
    """Inference, or with `grad_out` forward and backward to x, g and the parameters.
    Parameters are float32, as under autocast.
    """
    if grad_out is None:
        return torch.no_grad()(lambda: gate(x, g))
    inputs = [x.detach().requires_grad_(), g.detach().requires_grad_(), *gate.parameters()]
    return lambda: torch.autograd.grad(gate(*inputs[:2])[0], inputs, grad_out)


def _compiled(module: nn.Module) -> Any:
    return torch.compile(module, fullgraph=True, dynamic=False)


def _network(settings: Settings, backend: str) -> nn.Module:
    network = AttentionUNet(in_channels=1, num_classes=NUM_CLASSES, base_width=settings.width, gate_backend=backend)
    return network.to(settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _network_call(settings: Settings, network: nn.Module, training: bool) -> Call:
    dtype = DTYPES[settings.dtype]
    shape = (settings.batch_size, 1, settings.size, settings.size)
    x = torch.randn(shape, device=settings.device).to(memory_format=torch.channels_last)
    target = torch.randint(NUM_CLASSES, (shape[0], *shape[2:]), device=settings.device)

    def forward() -> Tensor:
        with torch.autocast(settings.device, dtype, enabled=dtype != torch.float32):
            return network(x)

    def train() -> None:
        nn.functional.cross_entropy(forward().float(), target).backward()
        network.zero_grad(set_to_none=True)  # so that the call ends with the memory that it began with

    return train if training else torch.no_grad()(forward)
