"""Throughput of the loader alone:
`python -m attunet.benchmarks.speed.training.data [--slices 1000,10000] [--side 128] [--json FILE]`.

Slices per second of the resident and of the streamed tier against the size of the store, without a network, in a
process each, the tiers in turns. Files are in the system's cache as far as memory goes; a store larger than that is
read from the disk. Prints a table and one JSON line.
"""

import argparse
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import torch

from attunet.benchmarks.evaluation.results_table import Json, format_table
from attunet.benchmarks.speed.program import add_device, numbers, percentile_fields, program_parser, run_program
from attunet.benchmarks.speed.training.generated_store import generated_store, repeated_store
from attunet.device.accelerator import keep_freed_memory
from attunet.device.memory import synchronize
from attunet.loading.loader import Loader
from attunet.loading.order import Sampling
from attunet.loading.resident import ResidentLoader
from attunet.loading.streamed import StreamedLoader
from attunet.store import open_store
from attunet.system.environment import environment
from attunet.system.private_folder import PrivateFolder
from attunet.system.workers import safe_path

TIERS: dict[str, Callable[..., Loader]] = {"resident": ResidentLoader, "streamed": StreamedLoader}


@dataclass(frozen=True)
class Settings:
    side: int
    batch_size: int
    seconds: float
    rounds: int
    device: str


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


def benchmark(sizes: Sequence[int], settings: Settings, folder: Path) -> Json:
    """Rows of every store size and tier as JSON values; the stores are made in `folder`, one at a time."""
    small = generated_store(folder, settings.side)
    rows: list[Json] = []
    for size in sizes:
        large = folder / f"store-{size}"
        store = repeated_store(small, large, size)
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in TIERS}
        for _ in range(settings.rounds):
            for name in TIERS:
                with safe_path(), get_context("spawn").Pool(1) as pool:
                    measured[name].append(pool.apply(measure, (large, name, settings)))
        bytes_on_disk = sum(case.num_slices for case in store.cases) * settings.side**2 * 3
        rows += [_row(name, size, bytes_on_disk, figures, measured["resident"]) for name, figures in measured.items()]
        shutil.rmtree(large)
    return {"environment": environment(), "settings": vars(settings), "results": rows}


def measure(path: Path, tier: str, settings: Settings) -> dict[str, float]:
    """Rate of one tier, how long it took to the first batch, and the resident memory in the middle and at the end of
    the measurement.
    """
    device = torch.device(settings.device)
    if device.type == "cpu":
        keep_freed_memory()  # as training does
    store = open_store(path)
    began = time.perf_counter()
    loader = TIERS[tier](store, store.split(0)[0], device, Sampling(batch_size=settings.batch_size))
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
    memory = psutil.Process().memory_info()
    return float(memory.rss - memory.shared) / 1e6


def _row(
    name: str, size: int, bytes_on_disk: int, measured: Sequence[dict[str, float]], resident: Sequence[dict[str, float]]
) -> Json:
    rates = [m["slices_per_s"] for m in measured]
    return {
        "tier": name,
        "num_slices": size,
        "store_mb": bytes_on_disk / 1e6,
        **percentile_fields(rates, "slices_per_s_p{}"),
        "times_resident": float(np.median(rates) / np.median([m["slices_per_s"] for m in resident])),
        "first_batch_s": float(np.median([m["first_batch_s"] for m in measured])),
        "resident_mb_middle": max(m["resident_mb_middle"] for m in measured),
        "resident_mb_end": max(m["resident_mb_end"] for m in measured),
    }


def table(results: Json) -> str:
    return format_table(results["results"], COLUMNS)


def main() -> None:
    parser = program_parser("Slices per second of the loader alone, against the size of the store.")
    parser.add_argument(
        "--slices", type=numbers, default="1000,10000,50000,200000", help="sizes of the stores, comma-separated"
    )
    parser.add_argument("--side", type=int, default=96, help="of the slices in pixels, a multiple of 16")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="of each measurement, after as many that are not counted"
    )
    parser.add_argument("--rounds", type=int, default=3, help="each tier is measured so often, in turns")
    add_device(parser)
    parser.add_argument("--folder", type=Path, help="folder of the stores, the system's temporary folder by default")

    def measured(chosen: argparse.Namespace) -> Json:
        settings = Settings(chosen.side, chosen.batch_size, chosen.seconds, chosen.rounds, chosen.device)
        with PrivateFolder(chosen.folder) as folder:
            return benchmark(chosen.slices, settings, folder.path)

    run_program("training.data", parser, measured, table)


if __name__ == "__main__":
    main()
