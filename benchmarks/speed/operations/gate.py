"""Speed and memory of the attention gate:
`python -m attunet.benchmarks.speed.operations.gate [--json FILE] [--plot FILE]`.

The four gates of the 64-wide network at 256², and the whole network's inference and training step, each computed by the
eager reference, by torch.compile of the reference, and by the fused backend of the device. Every gate has its own
baseline from the same run: a copy that moves as many bytes as the gate must, reading each input once and writing each
result once. On a GPU times are the device's own, with an empty cache. On the CPU torch.compile is left out of the whole
network, where it would compile for minutes.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attunet.benchmarks.evaluation.results_table import Json, format_table
from attunet.benchmarks.speed.operations.measures import (
    COLUMNS,
    DTYPES,
    MODES,
    Call,
    Settings,
    held_bytes,
    measure_calls,
    measure_level,
    peak_bytes,
    settings_of,
    settings_parser,
)
from attunet.benchmarks.speed.program import keep, run_program
from attunet.device.accelerator import keep_freed_memory
from attunet.models import AttentionGate, AttentionUNet
from attunet.ops.attention_gate import choose_backend
from attunet.system.environment import environment

DEPTH, NUM_CLASSES = 4, 5
TENSORS_MOVED = {"inference": 2, "training": 5}  # as large as the output; see `measure_gate`


def benchmark(settings: Settings, *, compiled: bool, network: bool, file: Path | None = None) -> Json:
    """Rows of single gates and of the whole network, and the memory of a training step; `file` is written again after
    every level.
    """
    torch.manual_seed(0)
    if settings.device == "cpu":
        keep_freed_memory()  # as training does
    torch.backends.cudnn.benchmark = True
    about = {**asdict(settings), "fused_backend": fused_backend(settings)}
    results: Json = {"environment": environment(), "settings": about, "gates": [], "network": [], "memory": None}
    for level in range(DEPTH):
        results["gates"] += measure_gate(settings, level, compiled)
        keep(results, file)
    if network:
        results["network"] = measure_network(settings, compiled and settings.device == "cuda")
        results["memory"] = measure_memory(settings)
    return results


def table(results: Json) -> str:
    text = format_table([*results["gates"], *results["network"]], COLUMNS)
    if memory := results["memory"]:
        text += "\n\nmemory of a training step, MB: " + "; ".join(
            f"{what} {memory[f'eager_{key}_mb']:.2f} eager, {memory[f'fused_{key}_mb']:.2f} fused, "
            f"{memory[f'{key}_saving_mb']:.2f} saved"
            for key, what in (("held", "kept by the forward pass"), ("peak", "peak"))
        )
        text += f"; saved by hand {memory['expected_saving_mb']:.2f}"
    return text


def draw(results: Json, path: Path) -> None:
    """Bars of the time of each gate in eager time, a panel per mode, with the bandwidth reached, as a share of a copy,
    above.
    """
    from attunet.plots.figure import model_color, new_figure, save

    names = list(dict.fromkeys(row["by"] for row in results["gates"]))
    figure = new_figure(9.5, 3.8)
    for panel, (axes, mode) in enumerate(zip(figure.subplots(1, 2), MODES, strict=True)):
        for index, name in enumerate(names):
            rows = [row for row in results["gates"] if row["mode"] == mode and row["by"] == name]
            places = [row["level"] + (index - len(names) / 2 + 0.5) * 0.8 / len(names) for row in rows]
            times = [1 / row["times_as_fast_as_eager"] for row in rows]
            bars = axes.bar(places, times, 0.75 / len(names), color=model_color(index), label=name)
            axes.bar_label(bars, [f"{row['share_of_copy']:.0%}" for row in rows], fontsize=7)
        axes.set_xticks(range(DEPTH), [f"{row['channels']} at {row['shape'][-1]}²" for row in rows])
        axes.set_title(f"{mode} (above: share of copy bandwidth)", fontsize=10)
        axes.set_ylabel("time, eager = 1" if panel == 0 else "")
    figure.legend(names, loc="outside lower center", ncols=len(names), frameon=False)
    save(figure, path)


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
                gate = AttentionGate(channels, channels).to(settings.device)
                gate.backend = backend
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
        about = {"name": "whole network", "mode": mode, "gb_per_s": None, "share_of_copy": None}
        rows += [{**about, **row} for row in measure_calls(calls, settings.device, settings.seconds)]
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
    network = AttentionUNet(in_channels=1, num_classes=NUM_CLASSES, base_width=settings.width)
    for module in network.modules():
        if isinstance(module, AttentionGate):
            module.backend = backend
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


def main() -> None:
    parser = settings_parser(__doc__)
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="also draws a picture")
    parser.add_argument("--no-network", action="store_true", help="the gates alone")

    def measured(chosen: argparse.Namespace) -> Json:
        compiled, network = not chosen.no_compile, not chosen.no_network
        return benchmark(settings_of(chosen), compiled=compiled, network=network, file=chosen.json)

    options, results = run_program("operations.gate", parser, measured, table)
    if options.plot:
        draw(results, options.plot)


if __name__ == "__main__":
    main()
