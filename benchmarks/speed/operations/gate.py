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

from attunet.benchmarks.evaluation.results_table import aligned
from attunet.benchmarks.speed.operations.gate_runs import (
    DEPTH,
    DTYPES,
    MODES,
    Settings,
    measure_gate,
    measure_memory,
    measure_network,
)
from attunet.benchmarks.speed.program import add_output_options, keep, run_program
from attunet.device.accelerator import keep_freed_memory
from attunet.errors import InputError
from attunet.system.environment import environment

HEAD = ["gate", "mode", "by", "ms p20", "p50", "p80", "x eager", "peak MB", "GB/s", "of copy"]


def benchmark(settings: Settings, *, compiled: bool, network: bool, file: Path | None = None) -> dict[str, Any]:
    """All measurements as JSON values: rows of single gates, rows of the whole network,
    and the memory of a training step.

    Args:
        settings: of all measurements.
        compiled: whether torch.compile is measured too.
        network: whether the whole network is.
        file: is written again after every level.
    """
    torch.manual_seed(0)
    if settings.device == "cpu":
        keep_freed_memory()  # as training does
    torch.backends.cudnn.benchmark = True
    about = {**asdict(settings), "fused_backend": settings.fused_backend}
    results: dict[str, Any] = {
        "environment": environment(),
        "settings": about,
        "gates": [],
        "network": [],
        "memory": None,
    }
    for level in range(DEPTH):
        results["gates"] += measure_gate(settings, level, compiled)
        keep(results, file)
    if network:
        results["network"] = measure_network(settings, compiled and settings.device == "cuda")
        results["memory"] = measure_memory(settings)
    return results


def table(results: dict[str, Any]) -> str:
    cells = [HEAD]
    for row in results["gates"]:
        name = f"{row['channels']} at {row['shape'][-1]}²"
        cells.append([name, *_cells(row), f"{row['gb_per_s']:.1f}", f"{row['share_of_copy']:.0%}"])
    cells += [["whole network", *_cells(row), "", ""] for row in results["network"]]
    text = aligned(cells)
    if memory := results["memory"]:
        text += "\n\nmemory of a training step, MB: " + "; ".join(
            f"{what} {memory[f'eager_{key}_mb']:.2f} eager, {memory[f'fused_{key}_mb']:.2f} fused, "
            f"{memory[f'{key}_saving_mb']:.2f} saved"
            for key, what in (("held", "kept by the forward pass"), ("peak", "peak"))
        )
        text += f"; saved by hand {memory['expected_saving_mb']:.2f}"
    return text


def _cells(row: dict[str, Any]) -> list[str]:
    times = [f"{row[key]:.3f}" for key in ("ms_p20", "ms_p50", "ms_p80")]
    peak = "" if row["peak_mb"] is None else f"{row['peak_mb']:.1f}"
    return [row["mode"], row["by"], *times, f"{row['times_as_fast_as_eager']:.2f}", peak]


def draw(results: dict[str, Any], path: Path) -> None:
    """Bars of the time of each gate in eager time, a panel per mode, with the bandwidth reached, as a share of a copy,
    above.
    """
    from attunet.plots.figure import model_color, new_figure, save

    names = [
        name for name in ("eager", "compile", "fused", "copy") if any(row["by"] == name for row in results["gates"])
    ]
    figure = new_figure(9.5, 3.8)
    for panel, (axes, mode) in enumerate(zip(figure.subplots(1, 2), MODES, strict=True)):
        for index, name in enumerate(names):
            rows = [row for row in results["gates"] if row["mode"] == mode and row["by"] == name]
            places = [row["level"] + (index - len(names) / 2 + 0.5) * 0.8 / len(names) for row in rows]
            bars = axes.bar(
                places,
                [1 / row["times_as_fast_as_eager"] for row in rows],
                0.75 / len(names),
                color=model_color(index),
                label=name,
            )
            axes.bar_label(bars, [f"{row['share_of_copy']:.0%}" for row in rows], fontsize=7)
        axes.set_xticks(range(DEPTH), [f"{row['channels']} at {row['shape'][-1]}²" for row in rows])
        axes.set_title(f"{mode} (above: share of copy bandwidth)", fontsize=10)
        axes.set_ylabel("time, eager = 1" if panel == 0 else "")
    figure.legend(names, loc="outside lower center", ncols=len(names), frameon=False)
    save(figure, path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--width", type=int, default=64, help="channels of the first level")
    parser.add_argument("--size", type=int, default=256, help="height and width of a slice, a multiple of 16")
    parser.add_argument("--batch-size", type=int, help="slices; 16 on a GPU, 2 on the CPU")
    parser.add_argument("--dtype", choices=DTYPES, help="of the pixels; bfloat16 on a GPU, float32 on the CPU")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--no-network", action="store_true", help="the gates alone")
    add_output_options(parser, plot=True)
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    on_gpu = arguments.device == "cuda"

    def measured() -> dict[str, Any]:
        if arguments.size % 2**DEPTH or arguments.size < 2**DEPTH:
            raise InputError(f"--size: must be a multiple of {2**DEPTH}, got {arguments.size}")
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
        return benchmark(
            settings, compiled=not arguments.no_compile, network=not arguments.no_network, file=arguments.json
        )

    run_program("operations.gate", arguments, measured, table, draw)


if __name__ == "__main__":
    main()
