"""Speed and memory of batch norm with ReLU:
`python -m attunet.benchmarks.speed.operations.norm_relu [--json FILE] [--device cuda]`.

The normalisations of the 64-wide network at 256², one for each level, in inference and in training, each computed by
torch's own batch norm and ReLU (eager), by torch.compile of the reference, and by the fused backend of the device. The
baseline, from the same run, is a
copy of as many bytes as the operation must move: each input read once for each pass that needs it, each result written
once.
"""

import argparse
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attunet.benchmarks.evaluation.results_table import aligned
from attunet.benchmarks.speed.operations.measures import Call, copy_call, measure_calls
from attunet.benchmarks.speed.program import add_output_options, keep, run_program
from attunet.device.accelerator import keep_freed_memory
from attunet.errors import InputError
from attunet.ops import batch_norm_relu
from attunet.ops.norm_relu import choose_backend
from attunet.system.environment import environment

LEVELS = 5
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Tensors of x's size that are read or written. Training: statistics 1, normalise 2, sums of gradients 2, gradient 3.
TENSORS_MOVED = {"inference": 2, "training": 8}
HEAD = ["norm", "mode", "by", "ms p20", "p50", "p80", "x eager", "peak MB", "GB/s", "of copy"]


@dataclass(frozen=True)
class Settings:
    """The network is `width` wide at its finest level; `seconds` is the time for each measurement."""

    device: str
    width: int
    size: int
    batch_size: int
    dtype: str
    seconds: float


def benchmark(settings: Settings, *, compiled: bool, file: Path | None = None) -> dict[str, Any]:
    """Rows of every level, mode and implementation as JSON values; `file` is written again after every level."""
    torch.manual_seed(0)
    if settings.device == "cpu":
        keep_freed_memory()  # as training does
    x = torch.empty((1, 2, 2, 2), device=settings.device, dtype=DTYPES[settings.dtype]).to(
        memory_format=torch.channels_last
    )
    fused = choose_backend(x)
    rows: list[dict[str, Any]] = []
    results = {"environment": environment(), "settings": {**asdict(settings), "fused_backend": fused}, "norms": rows}
    for level in range(LEVELS):
        for mode in TENSORS_MOVED:
            rows += _measure(settings, level, mode, fused, compiled)
        keep(results, file)
    return results


def _measure(settings: Settings, level: int, mode: str, fused: str, compiled: bool) -> list[dict[str, Any]]:
    channels, side = settings.width * 2**level, settings.size // 2**level
    shape = (settings.batch_size, channels, side, side)
    x, grad_out = (
        torch.randn(shape, device=settings.device, dtype=DTYPES[settings.dtype]).to(memory_format=torch.channels_last)
        for _ in range(2)
    )
    torch._dynamo.reset()
    calls = {"eager": _call(x, grad_out, mode, "torch", compiled=False)}
    if compiled:
        calls["compile"] = _call(x, grad_out, mode, "torch", compiled=True)
    calls["fused"] = _call(x, grad_out, mode, fused, compiled=False)
    moved = TENSORS_MOVED[mode] * x.nbytes
    calls["copy"] = copy_call(moved, settings.device)
    rows = measure_calls(calls, settings.device, settings.seconds)
    copy_ms = rows[-1]["ms_p50"]
    about = {"level": level, "channels": channels, "shape": list(shape), "mode": mode, "bytes": moved}
    return [
        {**about, **row, "gb_per_s": moved / 1e6 / row["ms_p50"], "share_of_copy": copy_ms / row["ms_p50"]}
        for row in rows
    ]


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


def table(results: dict[str, Any]) -> str:
    cells = [HEAD]
    for row in results["norms"]:
        times = [f"{row[key]:.3f}" for key in ("ms_p20", "ms_p50", "ms_p80")]
        peak = "" if row["peak_mb"] is None else f"{row['peak_mb']:.1f}"
        name = f"{row['channels']} at {row['shape'][-1]}²"
        speed = [f"{row['times_as_fast_as_eager']:.2f}", peak, f"{row['gb_per_s']:.1f}", f"{row['share_of_copy']:.0%}"]
        cells.append([name, row["mode"], row["by"], *times, *speed])
    return aligned(cells)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--width", type=int, default=64, help="channels of the first level")
    parser.add_argument("--size", type=int, default=256, help="height and width of a slice, a multiple of 16")
    parser.add_argument("--batch-size", type=int, help="slices; 16 on a GPU, 2 on the CPU")
    parser.add_argument("--dtype", choices=DTYPES, help="of x; bfloat16 on a GPU, float32 on the CPU")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    add_output_options(parser)
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    on_gpu = arguments.device == "cuda"

    def measured() -> dict[str, Any]:
        if arguments.size % 16 or arguments.size < 16:
            raise InputError(f"--size: must be a multiple of 16, got {arguments.size}")
        if on_gpu and not torch.cuda.is_available():
            raise InputError("--device: must be cpu where torch finds no CUDA device, got cuda")
        settings = Settings(
            device=arguments.device,
            width=arguments.width,
            size=arguments.size,
            batch_size=arguments.batch_size or (16 if on_gpu else 2),
            dtype=arguments.dtype or ("bfloat16" if on_gpu else "float32"),
            seconds=arguments.seconds,
        )
        return benchmark(settings, compiled=not arguments.no_compile, file=arguments.json)

    run_program("operations.norm_relu", arguments, measured, table)


if __name__ == "__main__":
    main()
