"""Throughput of the loader alone:
`python -m attunet.benchmarks.speed.training.data [--slices 1000,10000] [--side 128] [--json FILE] [--plot FILE]`.

Slices per second of the resident and of the streamed tier against the size of the store, without a network, in a
process each, the tiers in turns. Files are in the system's cache as far as memory goes; a store larger than that is
read from the disk. Prints a table and one JSON line.
"""

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch

from attunet.benchmarks.speed.program import format_table, numbers, percentile_fields, program_parser, run_program
from attunet.benchmarks.speed.training.generated_store import generated_store, repeated_store
from attunet.device.accelerator import keep_freed_memory
from attunet.device.memory import synchronize
from attunet.fields import JsonObject
from attunet.loading.loader import Loader
from attunet.loading.order import Sampling
from attunet.loading.resident import ResidentLoader
from attunet.loading.streamed import StreamedLoader
from attunet.store import open_store
from attunet.system.environment import Environment, environment

TIERS: tuple[tuple[str, Callable[..., Loader]], ...] = (("resident", ResidentLoader), ("streamed", StreamedLoader))


@dataclass(frozen=True)
class Settings:
    side: int
    batch_size: int
    seconds: float
    rounds: int
    device: str


class Measured(TypedDict):
    """One tier of one store, once. Memory: of the process, in the middle and at the end of the measurement."""

    slices_per_s: float
    first_batch_s: float
    resident_mb_middle: float
    resident_mb_end: float


class Results(TypedDict):
    environment: Environment
    settings: JsonObject
    results: list[JsonObject]


COLUMNS = {
    "slices": "{num_slices:,}",
    "store MB": "{store_mb:.0f}",
    "tier": "{tier}",
    "slices/s p20": "{slices_per_s_p20:.0f}",
    "p50": "{slices_per_s_p50:.0f}",
    "p80": "{slices_per_s_p80:.0f}",
    "times resident": "{times_resident:.2f}",
    "first batch s": "{first_batch_s:.2f}",
    "memory MB: middle": "{resident_mb_middle:.0f}",
    "end": "{resident_mb_end:.0f}",
}


def benchmark(sizes: Sequence[int], settings: Settings, folder: Path) -> Results:
    """Rows of every store size and tier as JSON values; the stores are made in `folder`, one at a time."""
    small = generated_store(folder, settings.side)
    rows: list[JsonObject] = []
    for size in sizes:
        large = folder / f"store-{size}"
        store = repeated_store(small, large, size)
        measured: dict[str, list[Measured]] = {name: [] for name, _ in TIERS}
        for _ in range(settings.rounds):
            for name, _ in TIERS:
                with get_context("spawn").Pool(1) as pool:
                    measured[name].append(pool.apply(measure, (large, name, settings)))
        bytes_on_disk = sum(case.num_slices for case in store.cases) * settings.side**2 * 3
        rows += [_row(name, size, bytes_on_disk, figures, measured["resident"]) for name, figures in measured.items()]
        shutil.rmtree(large)
    return {"environment": environment(), "settings": vars(settings), "results": rows}


def measure(path: Path, tier: str, settings: Settings) -> Measured:
    """Rate of one tier, how long it took to the first batch, and the resident memory in the middle and at the end of
    the measurement.
    """
    device = torch.device(settings.device)
    if device.type == "cpu":
        keep_freed_memory()  # as training does
    store = open_store(path)
    began = time.perf_counter()
    loader = dict(TIERS)[tier](store, store.split(0)[0], device, Sampling(batch_size=settings.batch_size))
    loader.take(0)
    synchronize(device)
    first_batch_s, step, megabytes = time.perf_counter() - began, 1, []
    for _ in range(2):  # the first half brings the caches to rest and is not counted
        began, first = time.perf_counter(), step
        while time.perf_counter() - began < settings.seconds:
            loader.take(step)
            step += 1
        synchronize(device)
        rate = (step - first) * settings.batch_size / (time.perf_counter() - began)
        megabytes.append(_resident_mb())
    loader.close()
    return {
        "slices_per_s": rate,
        "first_batch_s": first_batch_s,
        "resident_mb_middle": megabytes[0],
        "resident_mb_end": megabytes[1],
    }


def _resident_mb() -> float:
    """Memory of this process that no file could give back, in 10^6 bytes."""
    resident, shared = (int(word) for word in Path("/proc/self/statm").read_text().split()[1:3])
    return (resident - shared) * resource.getpagesize() / 1e6


def _row(
    name: str, size: int, bytes_on_disk: int, measured: Sequence[Measured], resident: Sequence[Measured]
) -> JsonObject:
    rates = [m["slices_per_s"] for m in measured]
    return {
        "name": f"{name}, {size} slices",
        "tier": name,
        "num_slices": size,
        "store_mb": bytes_on_disk / 1e6,
        **percentile_fields(rates, "slices_per_s_p{}"),
        "times_resident": float(np.median(rates) / np.median([m["slices_per_s"] for m in resident])),
        "first_batch_s": float(np.median([m["first_batch_s"] for m in measured])),
        "resident_mb_middle": max(m["resident_mb_middle"] for m in measured),
        "resident_mb_end": max(m["resident_mb_end"] for m in measured),
    }


def table(results: Results) -> str:
    return format_table(results["results"], COLUMNS)


def draw(results: Results, path: Path) -> None:
    """Slices per second and memory against the size of the store, a line per tier."""
    from attunet.plots.figure import model_color, new_figure, save

    figure = new_figure(9.5, 3.6)
    rate, memory = figure.subplots(1, 2)
    for index, (tier, _) in enumerate(TIERS):
        rows = [row for row in results["results"] if row["tier"] == tier]
        sizes = [row["num_slices"] for row in rows]
        rate.plot(sizes, [row["slices_per_s_p50"] for row in rows], "o-", color=model_color(index), label=tier)
        memory.plot(sizes, [row["resident_mb_end"] for row in rows], "o-", color=model_color(index), label=tier)
    for axes, label in ((rate, "slices/s of the loader alone"), (memory, "resident memory, MB")):
        axes.set_xscale("log")
        axes.set_xlabel(f"slices of {results['settings']['side']}² in the store")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.legend()
    save(figure, path)


def _arguments() -> argparse.Namespace:
    parser = program_parser("Slices per second of the loader alone, against the size of the store.", plot=True)
    parser.add_argument(
        "--slices", type=numbers, default="1000,10000,50000,200000", help="sizes of the stores, comma-separated"
    )
    parser.add_argument("--side", type=int, default=96, help="of the slices in pixels, a multiple of 16")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="of each measurement, after as many that are not counted"
    )
    parser.add_argument("--rounds", type=int, default=3, help="each tier is measured so often, in turns")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--folder", type=Path, help="folder of the stores, the system's temporary folder by default")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    settings = Settings(arguments.side, arguments.batch_size, arguments.seconds, arguments.rounds, arguments.device)

    def measured() -> Results:
        with tempfile.TemporaryDirectory(prefix="attunet-data-", dir=arguments.folder) as folder:
            return benchmark(arguments.slices, settings, Path(folder))

    run_program("training.data", arguments, measured, table, draw)


if __name__ == "__main__":
    main()
