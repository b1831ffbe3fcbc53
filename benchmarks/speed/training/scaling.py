"""One training on 1, 2, ... processes of this machine:
`python -m attunet.benchmarks.speed.training.scaling [--processes 1,2] [--json FILE]`.

Strong scaling: the global batch stays, each process takes its share. Every number of processes is measured twice, in
turns: as one training, whose processes reduce the loss and the gradients together, and as so many trainings at once
that know nothing of each other and take the same share each. The second is what the hardware gives; what the first
takes longer is communication, and waiting for it.
Efficiency is per process: on a CPU one process has all the cores, and n share them, so 1/n is as fast as one.
The checkpoint's cost is what training waited for it, and its size. Prints a table and one JSON line.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attunet.benchmarks.evaluation.commands import repeated
from attunet.benchmarks.evaluation.results_table import Json, format_table
from attunet.benchmarks.program import add_settings
from attunet.benchmarks.speed.program import choices, last_line, numbers, percentile_fields, program_parser, run_program
from attunet.benchmarks.speed.training.generated_store import generated_store
from attunet.config import load_config
from attunet.errors import InputError, RunError
from attunet.metrics.results import MetricsRow
from attunet.models import build_model
from attunet.runs.run_folder import read_metrics
from attunet.store import Store, open_store
from attunet.system.environment import environment
from attunet.system.private_folder import PrivateFolder
from attunet.system.workers import usable_cores

COLUMNS = {
    "processes": "{processes}",
    "ms/step": "{p50_step_ms:.0f}",
    "without communication": "{compute_ms:.0f}",
    "slices/s": "{slices_per_s:.1f}",
    "efficiency": "{efficiency:.0%}",
    "communication": "{communication_share:.1%}",
    "MB sent a step": "{sent_mb_per_step:.1f}",
}
LOG_EVERY = 5
WARM_UP_LINES = 1  # the first line of the log has the libraries' first calls in it
TIMEOUT_S = 3600


def measure(
    store: Store, *, processes: Sequence[int], settings: Sequence[str], batch_size: int, steps: int, rounds: int
) -> Json:
    """Seconds a step for each number of processes, as one training and as independent ones, `rounds` times in turns.
    Raises InputError for a batch that the processes do not divide, and RunError when a training fails. steps: of each
    training, 10 at least.

    Example:
        >>> measure(store, processes=[1, 2], settings=[], batch_size=8, steps=40, rounds=2)["results"]  # doctest: +SKIP
    """
    if odd := [count for count in processes if batch_size % count]:
        raise InputError(
            f"--batch-size: must be a multiple of every number of processes, got {batch_size} for {odd[0]}"
        )
    seconds: dict[tuple[int, bool], list[float]] = {}
    saves: list[MetricsRow] = []
    for _ in range(rounds):
        for count in processes:
            for together in (True, False) if count > 1 else (True,):
                times, saved = _train(store, count, together, settings, batch_size, steps)
                seconds.setdefault((count, together), []).extend(times)
                saves += saved
    rows = [
        _row(count, seconds[count, True], seconds.get((count, False), seconds[count, True]), batch_size)
        for count in processes
    ]
    fastest_alone = rows[0]["slices_per_s"] / rows[0]["processes"]
    for row in rows:
        row["efficiency"] = row["slices_per_s"] / row["processes"] / fastest_alone
        row["sent_mb_per_step"] = _sent_mb_per_step(store, settings, row["processes"])
    stall_ms = 1000 * float(np.median([save["stall_s"] for save in saves]))
    checkpoint = {"saves": len(saves), "stall_ms_p50": stall_ms, "megabytes": saves[0]["megabytes"]}
    about = {"store_slices": _num_slices(store), "settings": list(settings)}
    about |= {"batch_size": batch_size, "steps": steps, "rounds": rounds}
    return {"environment": environment(), "settings": about, "results": rows, "checkpoint": checkpoint}


def _num_slices(store: Store) -> int:
    return sum(store.case(case).num_slices for case in store.split("all")[0])


def _row(count: int, together: list[float], apart: list[float], batch_size: int) -> Json:
    step, compute = float(np.median(together)), float(np.median(apart))
    return {
        "processes": count,
        "lines": len(together),
        **percentile_fields([1000 * value for value in together], "p{}_step_ms"),
        "compute_ms": 1000 * compute,
        "slices_per_s": batch_size / step,
        "communication_share": max(0.0, 1 - compute / step),
    }


def _sent_mb_per_step(store: Store, settings: Sequence[str], count: int) -> float:
    """A ring all-reduce sends from each process twice (n - 1) / n of the gradients and batch-norm statistics."""
    network = build_model(load_config(None, settings).model, store.spec.in_channels, len(store.classes))
    gradients = sum(p.nbytes for p in network.parameters())
    statistics = sum(b.nbytes for b in network.buffers() if b.is_floating_point())
    return 2 * (count - 1) / count * (gradients + statistics) / 1e6


def _train(
    store: Store, count: int, together: bool, settings: Sequence[str], batch_size: int, steps: int
) -> tuple[list[float], list[MetricsRow]]:
    """Seconds a step of each line of the log after the first ones, and the checkpoints' lines."""
    trainings = 1 if together else count
    share = batch_size if together else batch_size // count
    every = [
        f"optim.batch_size={share}",
        f"optim.epochs={(steps - 0.5) * share / _num_slices(store)}",
        f"run.log_every={LOG_EVERY}",
        f"run.checkpoint_every_steps={max(1, steps // 2)}",
    ]
    options = repeated("--set", [*settings, *every])
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    program = [*(launcher if together and count > 1 else []), "-m", "attunet.launch.train", str(store.path)]
    start = [sys.executable, "-P", *program]
    threads = str(max(1, usable_cores() // count))
    variables = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONSAFEPATH": "1"}  # as -P, for the launcher's children
    with PrivateFolder() as folder:
        runs = [folder.path / str(number) for number in range(trainings)]
        children = [
            subprocess.Popen(
                [*start, str(run), "--fold", "all", *options],
                env=variables,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for run in runs
        ]
        errors = [child.communicate(timeout=TIMEOUT_S)[1] for child in children]
        for child, error in zip(children, errors, strict=True):
            if child.returncode:
                raise RunError(f"{count} processes: the training failed: {last_line(error)}")
        logs = [read_metrics(run) for run in runs]
    timed = [line for log in logs for line in [line for line in log if line["event"] == "train"][WARM_UP_LINES:]]
    saves = [line for log in logs for line in log if line["event"] == "checkpoint"]
    return [share / line["slices_per_s"] for line in timed], saves


def table(results: Json) -> str:
    save = results["checkpoint"]
    waits = f"checkpoint: training waits {save['stall_ms_p50']:.0f} ms for {save['megabytes']:.1f} MB"
    return f"{format_table(results['results'], COLUMNS)}\n{waits}"


def main() -> None:
    parser = program_parser("Scaling of one training over processes of this machine, and a checkpoint's cost.")
    parser.add_argument("--store", type=Path, help="a prepared data set; generated cases by default")
    parser.add_argument(
        "--processes",
        type=numbers,
        default="1,2",
        help="comma-separated, the first is what the others are compared with",
    )
    parser.add_argument("--batch-size", type=int, default=8, help="the global batch, 8 by default")
    parser.add_argument("--steps", type=int, default=40, help="steps of each training, 40 by default")
    parser.add_argument("--rounds", type=int, default=2, help="each is measured so often, in turns")
    add_settings(parser)

    def measured(arguments: argparse.Namespace) -> Json:
        if arguments.steps < 2 * LOG_EVERY or arguments.rounds < 1:
            raise InputError(f"--rounds must be at least 1, --steps at least {2 * LOG_EVERY}")
        with PrivateFolder() as folder:
            store = open_store(arguments.store) if arguments.store else generated_store(folder.path, 192)
            settings = ["model.base_width=16", *arguments.settings]
            return measure(**choices(arguments) | {"store": store, "settings": settings})

    run_program("training.scaling", parser, measured, table)


if __name__ == "__main__":
    main()
