"""Small trainings on the CPU, which take a moment: configuration, trainer, and the command in its own processes.

Each argument `settings` is a text of one `section.field=value`, or of several with blanks between them.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from forked import Forked

from attunet.config import Config, DataConfig, load_config
from attunet.device.accelerator import make_accelerator
from attunet.loading.order import Sampling
from attunet.loading.resident import ResidentLoader
from attunet.models import build_model
from attunet.preparation.prepare import prepare
from attunet.sources.find_cases import find_cases
from attunet.store import Store
from attunet.training.trainer import Trainer

SETTINGS = ("model.base_width=4", "model.depth=2", "optim.batch_size=4", "run.mixed_precision=no", "run.device=cpu")
CONFIGS = Path(__file__).parents[2] / "launch/configs"
TWO_PROCESSES = ("--config_file", CONFIGS / "cpu.yaml", "--num_processes", 2, "--main_process_port", 0)


def small_config(*settings: str) -> Config:
    return load_config(None, [*SETTINGS, *" ".join(settings).split()])


def make_trainer(store: Store, *settings: str, cases: Sequence[str] | None = None) -> Trainer:
    """A trainer of the same network each time, with the slices of some cases, or all."""
    config = small_config("optim.epochs=3", *settings).resolve(base_width=4, epochs=3, batch_size=4)
    accelerator = make_accelerator(config.run)
    names = [case.name for case in store.cases] if cases is None else cases
    sampling = Sampling(0, config.optim.batch_size, accelerator.process_index, accelerator.num_processes)
    loader = ResidentLoader(store, names, accelerator.device, sampling)
    torch.manual_seed(0)
    return Trainer(build_model(config.model, 1, 5), loader, config, accelerator)


def organ_names(source: Path) -> list[str]:
    """Names of the classes that `write_case` draws."""
    return list(find_cases(source).codings[0].names[1:])


def partly_labelled_store(folder: Path, write_case: Callable[..., object], num_cases: int, folds: int) -> Store:
    """Cases of which the first has no drawn spleen (4), and the second a drawn liver (1) alone."""
    for number in range(1, num_cases + 1):
        values = {1: (0, 1, 2, 3, 0), 2: (0, 1, 0, 0, 0)}.get(number, (0, 1, 2, 3, 4))
        write_case(folder / "source", f"{number:02d}-T2SPIR", seed=number, values=values)
    names, file = organ_names(folder / "source"), folder / "labelled.json"
    file.write_text(json.dumps({"01-T2SPIR": names[:3], "02-T2SPIR": names[:1]}))
    return prepare(folder / "source", folder / "store", DataConfig(), folds=folds, labelled_file=file)


def set_options(*settings: str) -> list[str]:
    """The settings of a small training and others, as options of a command."""
    return [f"--set={setting}" for setting in (*SETTINGS, *" ".join(settings).split())]


def train_arguments(store: Store, run: Path, *options: str) -> list[str]:
    return [str(store.path), str(run), "--fold=0", *options]


def train_command(store: Store, run: Path, *options: str, launcher: Sequence[object] = ()) -> list[str]:
    """The command that trains; launcher: options of `accelerate launch`, for several processes."""
    launch = ["-m", "accelerate.commands.launch", *map(str, launcher)] if launcher else []
    return [sys.executable, *launch, "-m", "attunet.launch.train", *train_arguments(store, run, *options)]


def start(command: Sequence[object], **options: object) -> subprocess.Popen[str]:
    """Start a program; what it prints, errors too, is in `stdout`."""
    # Users do not set PYTHONUNBUFFERED: what is printed has to be passed on without it
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}  # for programs of tests
    options = {"env": environment, **options}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([str(word) for word in command], **pipes, **options)  # type: ignore[call-overload,no-any-return]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str] | Forked) -> None:
    """Wait for something that a program does; an error if it ends before that."""
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def read_until(text: str, process: subprocess.Popen[str] | Forked) -> str:
    """The first line with this text that a program prints; an error if it ends without."""
    assert process.stdout is not None
    while text not in (line := process.stdout.readline()):
        assert line, f"ended without {text!r}"
    return line
