"""Training speed beside a plain script, MONAI and nnU-Net:
`python -m attunet.benchmarks.speed.training.comparison [--model] [--width] [--size] [--json FILE]`.

All train on the same store, each in a process of its own, in turns, so that a machine that drifts hurts all alike. What
each does is written in `programs`. With `--limit S` none runs longer than S seconds, and its row says what it reached.
Prints a table and one JSON line; `--json FILE` is written after every training.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from attunet.benchmarks.evaluation.results_table import Json
from attunet.benchmarks.nnunet.trainer import PACKAGE
from attunet.benchmarks.program import add_settings
from attunet.benchmarks.speed.program import keep, last_line, program_parser, run_program
from attunet.benchmarks.speed.training.comparison_rows import results_of, table
from attunet.benchmarks.speed.training.generated_store import generated_store
from attunet.benchmarks.speed.training.nnunet import write_slices
from attunet.benchmarks.speed.training.others import PART, Task
from attunet.config import MODELS
from attunet.errors import InputError, RunError
from attunet.store import Store, open_store
from attunet.system.private_folder import PrivateFolder
from attunet.system.workers import usable_cores

PROGRAMS = ("attunet", "attunet-streamed", "plain", "monai", "nnunet")
PACKAGES = {"monai": "monai", "nnunet": PACKAGE}  # that are not installed with attunet
GRACE_S = 10  # beyond the limit, in which no timed step begins; then the training is ended


def compare(store: Store, task: Task, *, programs: Sequence[str], rounds: int, file: Path | None = None) -> Json:
    """Trains every program `rounds` times, in turns. `task` is what they have in common; `file` is written after each.

    Raises RunError when a training fails.

    Example:
        >>> compare(store, task, programs=["attunet", "plain"], rounds=3)  # doctest: +SKIP
    """
    measured: dict[str, list[Json]] = {name: [] for name in programs}
    with PrivateFolder() as temporary:
        folder = temporary.path
        if {"plain", "monai"} & set(programs):
            _write_slices(store, store.split(task.fold)[0], folder)
        if "nnunet" in programs:
            write_slices(store, task.fold, folder / "nnunet")
        for _ in range(rounds):
            for name in programs:
                one = dataclasses.replace(task, program=name, store=str(store.path), slices=str(folder))
                measured[name].append(_in_own_process(one))
                keep(results_of(store, task, measured, rounds), file)
    return results_of(store, task, measured, rounds)


def _write_slices(store: Store, cases: Sequence[str], folder: Path) -> None:
    """The store's slices as a plain script keeps them: a compressed NIfTI for each image and each label."""
    for case in cases:
        for index, (image, label) in enumerate(zip(store.image(case), store.label(case), strict=True)):
            for array, kind in ((image[0].astype(np.float32), "image"), (np.array(label), "label")):
                nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{case}-{index:04d}-{kind}.nii.gz")


def _in_own_process(task: Task) -> Json:
    """Runs one training, which is ended with all its processes `GRACE_S` after its limit."""
    task_json = json.dumps(dataclasses.asdict(task))
    command = [sys.executable, "-P", "-m", "attunet.benchmarks.speed.training.programs", task_json]
    limit = None if task.limit_s is None else task.limit_s + GRACE_S
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        is_late = False
        try:
            printed, errors = child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            is_late = True
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        if is_late:
            printed, errors = child.communicate()
    lines = printed.splitlines()
    starts = [json.loads(line) for line in lines if line.startswith(f'{{"{PART}"')]
    parts = {one[PART]: one["seconds"] for one in starts}
    if is_late:
        reached = f"after {list(parts)[-1]}" if parts else "in its imports"
        note = f"out of time ({task.limit_s:g} s) {reached}"
        unknown = dict.fromkeys(("num_parameters", "device", "peak_memory_mb"))
        return {"steps": 0, "seconds": 0.0, "waiting_s": 0.0, "start_s": parts, "note": note, **unknown}
    if child.returncode:
        raise RunError(f"{task.program}: the training failed: {last_line(errors)}")
    answer: Json = {**json.loads(lines[-1]), "start_s": parts}
    if answer["steps"] < task.steps:
        answer["note"] += f"{'; ' * bool(answer['note'])}{answer['steps']} of {task.steps} steps in {task.limit_s:g} s"
    return answer


def main() -> None:
    parser = program_parser("Training speed of attunet, a plain script, MONAI and nnU-Net on the same store.")
    parser.add_argument("--store", type=Path, help="a prepared data set; generated cases by default")
    parser.add_argument("--model", choices=list(MODELS), default="attention_unet", help="of attunet and plain")
    parser.add_argument("--width", type=int, default=64, help="channels of the first level, 64 by default")
    parser.add_argument("--size", type=int, default=256, help="side of the generated slices, 256 by default")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each training and round")
    parser.add_argument("--warm-up-steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="each is measured so often, in turns")
    parser.add_argument(
        "--workers",
        type=int,
        default=max(0, min(8, usable_cores() - 2)),
        help="worker processes of the others' loaders",
    )
    parser.add_argument(
        "--only", action="append", choices=PROGRAMS, help="may be repeated; all that are installed by default"
    )
    parser.add_argument("--limit", dest="limit_s", type=float, metavar="SECONDS", help="of each training and round")
    parser.add_argument("--fold", type=int, default=0, help="whose cases are left out")
    add_settings(parser, "for attunet")
    run_program("training.comparison", parser, _compare_installed, table)


def _compare_installed(options: argparse.Namespace) -> Json:
    if min(options.steps, options.rounds, options.batch_size) < 1:
        raise InputError("--steps, --rounds and --batch-size must be at least 1")
    programs = installed(options.only or PROGRAMS)
    if not programs:
        raise InputError("none of the programs of --only is installed: there is nothing to compare")
    shared = ("fold", "model", "width", "batch_size", "steps", "warm_up_steps", "workers", "settings", "limit_s")
    task = Task(**{name: getattr(options, name) for name in shared})
    with PrivateFolder() as folder:
        store = open_store(options.store) if options.store else generated_store(folder.path, options.size)
        return compare(store, task, programs=programs, rounds=options.rounds, file=options.json)


def installed(programs: Sequence[str]) -> list[str]:
    """The programs whose packages are installed, each once; a line on stderr for each that is left out."""
    kept = []
    for name in dict.fromkeys(programs):
        package = PACKAGES.get(name)
        if package is None or importlib.util.find_spec(package):
            kept.append(name)
        else:
            print(f"{package} is not installed, so {name} is left out (pip install {package})", file=sys.stderr)
    return kept


if __name__ == "__main__":
    main()
