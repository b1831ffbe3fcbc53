"""Training speed beside a plain script and MONAI:
`python -m attunet.benchmarks.speed.training.comparison [--model] [--width] [--size] [--json FILE]`.

All train on the same store, each in a process of its own, in turns, so that a machine that drifts hurts all alike. What
each does is written in `programs`. With `--dice D` each goes on until its validation Dice (store's grid, cases
left out) is D. Prints a table and one JSON line; `--plot FILE` draws it.
"""

import argparse
import dataclasses
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

import nibabel as nib
import numpy as np

from attunet.benchmarks.speed.program import format_table, last_line, percentile_fields, program_parser, run_program
from attunet.benchmarks.speed.training.generated_store import generated_store
from attunet.benchmarks.speed.training.others import Task
from attunet.benchmarks.speed.training.programs import Measured, ToDice
from attunet.config import MODELS
from attunet.errors import RunError
from attunet.store import Store, open_store
from attunet.system.environment import Environment, environment
from attunet.system.workers import usable_cores

PROGRAMS = ("attunet", "attunet-streamed", "plain", "monai")


COLUMNS = {
    "training": "{name}",
    "slices/s": "{slices_per_s:.2f}",
    "ms/step": "{step_ms_p50:.0f}",
    "waiting": "{waiting_share:.2%}",
    "memory MB": "{peak_memory_mb:.0f}",
    "parameters": "{num_parameters:,}",
    "times plain": "{times_plain:.2f}",
    "times monai": "{times_monai:.2f}",
    "to Dice": "{reached}",
}


class Row(TypedDict):
    """One program, besides `step_ms_p20`, p50 and p80. `times_plain`, `times_monai`: its rate over theirs, None where
    they were not measured.
    """

    name: str
    device: str
    num_parameters: int
    slices_per_s: float
    steps_per_s: float
    waiting_share: float
    peak_memory_mb: float | None
    to_dice: ToDice | None
    times_plain: float | None
    times_monai: float | None


class Settings(TypedDict):
    """The task without names of programs and folders. `shape`: of a batch."""

    model: str
    width: int
    rounds: int
    shape: list[int]


class Results(TypedDict):
    environment: Environment
    settings: Settings
    results: list[Row]


def compare(store: Store, task: Task, *, programs: Sequence[str], rounds: int) -> Results:
    """Trains every program `rounds` times, in turns. `task` is what they have in common.

    Raises RunError when a training fails.
    """
    measured: dict[str, list[Measured]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory(prefix="attunet-slices-") as folder:
        if {"plain", "monai"} & set(programs):
            _write_slices(store, store.split(task.fold)[0], Path(folder))
        for number in range(rounds):
            for name in programs:
                dice = task.dice if number == rounds - 1 else None
                one = dataclasses.replace(task, program=name, store=str(store.path), slices=folder, dice=dice)
                measured[name].append(_in_own_process(one, Path(folder)))
    rates = {name: task.batch_size / _median_step(rows, task) for name, rows in measured.items()}
    settings = {k: v for k, v in dataclasses.asdict(task).items() if k not in ("program", "store", "slices")}
    shape = [task.batch_size, store.spec.in_channels, *store.spec.size]
    return {
        "environment": environment(),
        "settings": cast(Settings, settings | {"rounds": rounds, "shape": shape}),
        "results": [_row(name, rows, task, rates) for name, rows in measured.items()],
    }


def _median_step(rows: Sequence[Measured], task: Task) -> float:
    return float(np.median([row["seconds"] for row in rows])) / task.steps


def _row(name: str, rows: Sequence[Measured], task: Task, rates: Mapping[str, float]) -> Row:
    memory = [row["peak_memory_mb"] for row in rows if row["peak_memory_mb"] is not None]
    row: Row = {
        "name": name,
        "device": rows[0]["device"],
        "num_parameters": rows[0]["num_parameters"],
        "slices_per_s": rates[name],
        "steps_per_s": 1 / _median_step(rows, task),
        "waiting_share": sum(row["waiting_s"] for row in rows) / sum(row["seconds"] for row in rows),
        "peak_memory_mb": max(memory, default=None),
        "to_dice": rows[-1]["to_dice"],
        "times_plain": rates[name] / rates["plain"] if "plain" in rates else None,
        "times_monai": rates[name] / rates["monai"] if "monai" in rates else None,
    }
    steps = percentile_fields([1000 * row["seconds"] / task.steps for row in rows], "step_ms_p{}")
    return cast(Row, {**row, **steps})


def _write_slices(store: Store, cases: Sequence[str], folder: Path) -> None:
    """The store's slices as a plain script keeps them: a compressed NIfTI for each image and each label."""
    for case in cases:
        for index, (image, label) in enumerate(zip(store.image(case), store.label(case), strict=True)):
            for array, kind in ((image[0].astype(np.float32), "image"), (np.array(label), "label")):
                nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{case}-{index:04d}-{kind}.nii.gz")


def _in_own_process(task: Task, folder: Path) -> Measured:
    written = folder / "task.json"
    written.write_text(json.dumps(dataclasses.asdict(task)), encoding="utf-8")
    command = [sys.executable, "-P", "-m", "attunet.benchmarks.speed.training.programs", str(written)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"{task.program}: the training failed: {last_line(done.stderr)}")
    answer: Measured = json.loads(done.stdout.splitlines()[-1])
    return answer


def table(results: Results) -> str:
    return format_table(({**row, "reached": _reached(row["to_dice"])} for row in results["results"]), COLUMNS)


def _reached(to_dice: ToDice | None) -> str:
    if to_dice is None:
        return "-"
    if to_dice["minutes"] is None:
        return f"best {to_dice['best_dice']:.3f} in {to_dice['trained_minutes']:.1f} min"
    return f"{to_dice['dice']:.2f} in {to_dice['minutes']:.1f} min"


def draw(results: Results, path: Path) -> None:
    """Slices per second as bars, the share of waiting hatched."""
    from attunet.plots.figure import model_color, new_figure, save

    rows = results["results"]
    figure = new_figure(8, 1.4 + 0.6 * len(rows))
    axes = figure.subplots()
    for index, row in enumerate(rows):
        rate = row["slices_per_s"]
        axes.barh([row["name"]], [rate], color=model_color(index), height=0.6)
        axes.text(rate, index, f" {rate:.3g} slices/s, waiting {row['waiting_share']:.1%}", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.45 * max(row["slices_per_s"] for row in rows))
    batch, _, height, width = results["settings"]["shape"]
    model, base = results["settings"]["model"], results["settings"]["width"]
    axes.set_xlabel(f"training, slices per second ({model} {base} wide, {height} × {width}, batch {batch})")
    save(figure, path)


def _arguments() -> argparse.Namespace:
    cores = usable_cores()
    parser = program_parser("Training speed of attunet, of a plain script and of MONAI on the same store.", plot=True)
    parser.add_argument("--store", type=Path, help="a prepared data set; generated cases by default")
    parser.add_argument("--model", choices=list(MODELS), default="attention_unet", help="of attunet and plain")
    parser.add_argument("--width", type=int, default=64, help="channels of the first level, 64 by default")
    parser.add_argument("--size", type=int, default=256, help="side of the generated slices, 256 by default")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each training and round")
    parser.add_argument("--warm-up-steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="each is measured so often, in turns")
    parser.add_argument(
        "--workers", type=int, default=max(0, min(8, cores - 2)), help="worker processes of the others' loaders"
    )
    parser.add_argument(
        "--only", action="append", choices=PROGRAMS, help="may be repeated; all that are installed by default"
    )
    parser.add_argument("--dice", type=float, help="also the minutes to this validation Dice")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training at most, with --dice")
    parser.add_argument("--fold", type=int, default=0, help="whose cases are left out")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="for attunet"
    )
    arguments = parser.parse_args()
    if min(arguments.steps, arguments.rounds, arguments.batch_size) < 1:
        parser.error("--steps, --rounds and --batch-size must be at least 1")
    return arguments


def main() -> None:
    arguments = _arguments()
    programs = list(dict.fromkeys(arguments.only or PROGRAMS))
    if "monai" in programs and importlib.util.find_spec("monai") is None:
        print("monai is not installed, so it is left out (pip install monai)", file=sys.stderr)
        programs.remove("monai")
    shared = ("fold", "model", "width", "batch_size", "steps", "warm_up_steps", "workers", "dice", "minutes")
    chosen = {name: getattr(arguments, name) for name in shared}
    task = Task(program="", store="", slices="", settings=tuple(arguments.settings), **chosen)

    def measured() -> Results:
        with tempfile.TemporaryDirectory(prefix="attunet-training-") as folder:
            store = open_store(arguments.store) if arguments.store else generated_store(Path(folder), arguments.size)
            return compare(store, task, programs=programs, rounds=arguments.rounds)

    run_program("training.comparison", arguments, measured, table, draw)


if __name__ == "__main__":
    main()
