"""Training speed over networks, widths, batches, CUDA graph and torch.compile:
`python -m attunet.benchmarks.speed.training.sweep`.

Every row is a training as `attunet train` runs it, on generated slices that lie on the device; `--minutes` ends the
sweep after the row that is running then. With `--profile` each row also has the time of one step on the device, summed
by kind of kernel. Prints a table and one JSON line; `--json FILE` is written after every row.
"""

import argparse
import gc
import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from attunet.benchmarks.evaluation.results_table import Json, format_table
from attunet.benchmarks.speed.program import add_device, keep, numbers, program_parser, run_program
from attunet.benchmarks.speed.training.generated_store import generated_store
from attunet.benchmarks.speed.training.kernels import profile_step
from attunet.config import MODELS, load_config
from attunet.device.accelerator import make_accelerator
from attunet.device.memory import peak_memory_mb, synchronize
from attunet.errors import one_line
from attunet.loading.choose import make_loader
from attunet.models import build_model
from attunet.store import Store
from attunet.system.environment import environment
from attunet.system.private_folder import PrivateFolder
from attunet.training.trainer import Trainer

logger = logging.getLogger(__name__)

COLUMNS = {  # on the terminal and on the page
    "network": "{model}",
    "wide": "{width}",
    "batch": "{batch_size}",
    "CUDA graph": "{cuda_graph}",
    "compiled": "{compile}",
    "slices/s": "{slices_per_s:,.1f}",
    "ms a step": "{step_ms:.1f}",
    "ms to queue it": "{host_ms:.1f}",
    "of the matmul rate": "{matmul_share:.0%}",
    "memory MB": "{peak_memory_mb:,.0f}",
}


@dataclass(frozen=True)
class Row:
    model: str
    width: int
    batch_size: int
    cuda_graph: bool
    compile: bool

    @property
    def settings(self) -> list[str]:
        graph = "auto" if self.cuda_graph else "off"
        return [
            f"model.name={self.model}",
            f"optim.batch_size={self.batch_size}",
            f"run.cuda_graph={graph}",
            f"run.compile={str(self.compile).lower()}",
        ]


@dataclass(frozen=True)
class Settings:
    device: str
    size: int
    seconds: float  # of timed steps in each row
    minutes: float  # no row begins after so long
    profiled: bool


def rows_of(models: Sequence[str], widths: Sequence[int], batch_sizes: Sequence[int], device: str) -> Iterator[Row]:
    """All rows in order of worth: the default of `attunet train` before its variants, wide before narrow."""
    variants = ((True, False), (False, False), (True, True), (False, True)) if device == "cuda" else ((False, False),)
    for (graph, compiled), width, batch_size, model in itertools.product(variants, widths, batch_sizes, models):
        yield Row(model, width, batch_size, graph, compiled)


def sweep(store: Store, rows: Sequence[Row], settings: Settings, file: Path | None = None) -> Json:
    """Measures the rows in their order; one that fails has the reason in `error`. `file` is written after each."""
    results: Json = {"environment": environment(), "settings": asdict(settings), "rows": []}
    began = time.monotonic()
    for number, row in enumerate(rows):
        if number and time.monotonic() - began > 60 * settings.minutes:
            results["not_measured"] = [asdict(row) for row in rows[number:]]
            break
        try:
            measured = measure(store, row, settings)
        except Exception as error:  # of torch, CUDA or Triton, which share no other base
            measured = {"error": one_line(error)}
        results["rows"].append({**asdict(row), **measured})
        logger.info(f"{row}: {measured.get('error') or format(measured['slices_per_s'], '.0f') + ' slices/s'}")
        gc.collect()
        if settings.device == "cuda":
            torch.cuda.empty_cache()
        keep(results, file)
    return results


def measure(store: Store, row: Row, settings: Settings) -> Json:
    """Slices per second of a training, the time that the host needs to queue a step, and memory;
    with a profile where wanted.
    """
    config = load_config(None, [*row.settings, f"run.device={settings.device}"]).resolve(
        base_width=row.width, epochs=1e5, batch_size=4
    )
    accelerator = make_accelerator(config.run)
    loader = make_loader(store, store.split(0)[0], accelerator, config, tier="resident")
    torch.manual_seed(0)
    network = build_model(config.model, store.spec.in_channels, len(store.classes))
    if settings.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer = Trainer(network, loader, config, accelerator)
    try:
        return _time_steps(trainer, settings)
    finally:
        trainer.close()
        loader.close()


def _time_steps(trainer: Trainer, settings: Settings) -> Json:
    device, batch_size = trainer.accelerator.device, trainer.batch_size
    began = time.perf_counter()
    for number in range(trainer.warm_up_steps):
        trainer.step(number)
    synchronize(device)
    first_s = time.perf_counter() - began
    began, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - began < settings.seconds:
        trainer.step(trainer.warm_up_steps + count)
        count += 1
        if count % 10 == 0:
            synchronize(device)  # else the host runs far ahead, and the last steps are not waited for
    host_s = time.perf_counter() - began
    synchronize(device)
    seconds = time.perf_counter() - began
    rate = count * batch_size / seconds
    flops = rate * trainer.telemetry.flops_per_slice
    return {
        "slices_per_s": rate,
        "step_ms": 1000 * seconds / count,
        "host_ms": 1000 * host_s / count,
        "warm_up_s": first_s,
        "steps": count,
        "teraflop_per_s": flops / 1e12,
        "matmul_share": flops / trainer.telemetry.matmul_flops_per_s,
        "graph_captured": trainer._graph is not None and trainer._graph.is_captured,
        "peak_memory_mb": peak_memory_mb(device),
        "kinds_ms": profile_step(trainer, count + trainer.warm_up_steps) if settings.profiled else None,
    }


def table(results: Json) -> str:
    measured = [row for row in results["rows"] if "error" not in row]
    lines = [format_table(map(shown, measured), COLUMNS)] if measured else []
    lines += [f"{_name(row)}: {row['error']}" for row in results["rows"] if "error" in row]
    profiled = next((row for row in measured if row["kinds_ms"]), None)
    if profiled is not None:
        kinds = sorted(profiled["kinds_ms"].items(), key=lambda item: -item[1])
        parts = ", ".join(f"{kind} {ms:.1f}" for kind, ms in kinds[:8])
        lines.append(f"{_name(profiled)}: ms of one step: {parts}")
    return "\n".join(lines)


def shown(row: Json) -> Json:
    """A measured row as its table shows it: with a CUDA graph where the step was captured."""
    captured, compiled = ("yes" if row[key] else "no" for key in ("graph_captured", "compile"))
    return {**row, "cuda_graph": captured, "compile": compiled}


def _name(row: Json) -> str:
    variants = [word for key, word in (("cuda_graph", "CUDA graph"), ("compile", "compiled")) if row[key]]
    return ", ".join([f"{row['model']} {row['width']} wide", f"batch {row['batch_size']}", *variants])


def main() -> None:
    parser = program_parser(__doc__)
    add_device(parser)
    parser.add_argument(
        "--model", dest="models", choices=list(MODELS), action="append", help="may be repeated; all by default"
    )
    parser.add_argument("--widths", type=numbers, default=[64, 32], help="comma-separated, 64,32 by default")
    parser.add_argument(
        "--batch-sizes", type=numbers, default=[16, 64, 128], help="comma-separated, 16,64,128 by default"
    )
    parser.add_argument("--size", type=int, default=256, help="side of the generated slices, 256 by default")
    parser.add_argument("--seconds", type=float, default=3.0, help="of timed steps in each row")
    parser.add_argument("--minutes", type=float, default=10.0, help="no row begins after so long")
    parser.add_argument("--profile", action="store_true", help="one more step of each row, summed by kind of kernel")

    def measured(arguments: argparse.Namespace) -> Json:
        settings = Settings(arguments.device, arguments.size, arguments.seconds, arguments.minutes, arguments.profile)
        models = arguments.models or list(MODELS)
        rows = list(rows_of(models, arguments.widths, arguments.batch_sizes, arguments.device))
        with PrivateFolder() as folder:
            return sweep(generated_store(folder.path, arguments.size), rows, settings, arguments.json)

    run_program("training.sweep", parser, measured, table)


if __name__ == "__main__":
    main()
