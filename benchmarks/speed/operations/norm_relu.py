"""Speed and memory of batch norm with ReLU:
`python -m attunet.benchmarks.speed.operations.norm_relu [--json FILE] [--device cuda]`.

The normalisations of the 64-wide network at 256², one for each level, in inference and in training, each computed by
torch's own batch norm and ReLU (eager), by torch.compile of the reference, and by the fused backend of the device. The
baseline, from the same run, is a copy of as many bytes as the operation must move: each input read once for each pass
that needs it, each result written once.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attunet.benchmarks.evaluation.results_table import Json, format_table
from attunet.benchmarks.speed.operations.measures import (
    COLUMNS,
    Call,
    Settings,
    measure_level,
    settings_of,
    settings_parser,
)
from attunet.benchmarks.speed.program import keep, run_program
from attunet.device.accelerator import keep_freed_memory
from attunet.ops import batch_norm_relu
from attunet.ops.norm_relu import choose_backend
from attunet.system.environment import environment

LEVELS = 5
# Tensors of x's size that are read or written. Training: statistics 1, normalise 2, sums of gradients 2, gradient 3.
TENSORS_MOVED = {"inference": 2, "training": 8}


def benchmark(settings: Settings, *, compiled: bool, file: Path | None = None) -> Json:
    """Rows of every level, mode and implementation as JSON values; `file` is written again after every level."""
    torch.manual_seed(0)
    if settings.device == "cpu":
        keep_freed_memory()  # as training does
    fused = choose_backend(settings.noise(LEVELS - 1))
    rows: list[Json] = []
    results = {"environment": environment(), "settings": {**asdict(settings), "fused_backend": fused}, "norms": rows}
    for level in range(LEVELS):
        for mode, moved in TENSORS_MOVED.items():
            x, grad_out = settings.noise(level), settings.noise(level)
            torch._dynamo.reset()
            calls = {"eager": _call(x, grad_out, mode, "torch", compiled=False)}
            if compiled:
                calls["compile"] = _call(x, grad_out, mode, "torch", compiled=True)
            calls["fused"] = _call(x, grad_out, mode, fused, compiled=False)
            rows += measure_level(calls, settings, level, mode, moved * x.nbytes)
        keep(results, file)
    return results


def _call(x: Tensor, grad_out: Tensor, mode: str, backend: str, *, compiled: bool) -> Call:
    """Inference, or forward and backward to x, weight and bias. Vectors are float32, as under autocast."""
    weight, bias, mean, var = (torch.full((x.shape[1],), value, device=x.device) for value in (1.0, 0.1, 0.0, 1.0))
    norm: Any = partial(
        batch_norm_relu, running_mean=mean, running_var=var, training=mode == "training", backend=backend
    )
    if compiled:
        norm = torch.compile(norm, fullgraph=True, dynamic=False)
    if mode == "inference":
        return torch.no_grad()(lambda: norm(x, weight, bias))
    inputs = [t.detach().requires_grad_() for t in (x, weight, bias)]
    return lambda: torch.autograd.grad(norm(*inputs), inputs, grad_out)


def table(results: Json) -> str:
    return format_table(results["norms"], COLUMNS)


def main() -> None:
    run_program(
        "operations.norm_relu",
        settings_parser(__doc__),
        lambda chosen: benchmark(settings_of(chosen), compiled=not chosen.no_compile, file=chosen.json),
        table,
    )


if __name__ == "__main__":
    main()
