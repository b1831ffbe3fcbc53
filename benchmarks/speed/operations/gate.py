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

import torch

from attunet.benchmarks.evaluation.results_table import Json, aligned
from attunet.benchmarks.speed.operations.gate_runs import (
    DEPTH,
    fused_backend,
    measure_gate,
    measure_memory,
    measure_network,
)
from attunet.benchmarks.speed.operations.levels import HEAD, MODES, Settings, level_cells, settings_of, settings_parser
from attunet.benchmarks.speed.operations.measures import call_cells
from attunet.benchmarks.speed.program import keep, run_program
from attunet.device.accelerator import keep_freed_memory
from attunet.system.environment import environment


def benchmark(settings: Settings, *, compiled: bool, network: bool, file: Path | None = None) -> Json:
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
    network = [["whole network", *call_cells(row), "", ""] for row in results["network"]]
    text = aligned([["gate", *HEAD], *level_cells(results["gates"]), *network])
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


def main() -> None:
    parser = settings_parser(__doc__, plot=True)
    parser.add_argument("--no-network", action="store_true", help="the gates alone")

    def measured(chosen: argparse.Namespace) -> Json:
        compiled, network = not chosen.no_compile, not chosen.no_network
        return benchmark(settings_of(chosen), compiled=compiled, network=network, file=chosen.json)

    run_program("operations.gate", parser, measured, table, draw)


if __name__ == "__main__":
    main()
