"""Commands run in forked children of one process that has imported everything, on a few small cases;
and what each of them makes.
"""

import hashlib
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch._dynamo  # noqa: F401  # which optimizers import at their first step
from commands import PREPARATION, SHORTLY, TRAINING, Command, commands_of  # type: ignore[import-not-found]

from attunet.export.build import export_run as _export  # noqa: F401  # imported before the forks, as torch is
from attunet.launch.cli import cli
from attunet.launch.exit_codes import run_command
from attunet.plots import curves as _curves  # noqa: F401
from attunet.training import loop as _loop  # noqa: F401

SMALL = [
    f"--set={setting}"
    for setting in ("model.base_width=4", "model.depth=2", "optim.batch_size=4", "run.mixed_precision=no")
]
BUG = 70  # exit code of a child that ended in a traceback
TIMEOUT_S = 300


@dataclass(frozen=True)
class Reference:
    """An undisturbed call: SHA-256 of its files by path, their bytes together, and its seconds."""

    files: dict[str, str]
    size: int
    seconds: float


class Workplace:
    """A folder with generated scans, a store, a run, an artefact and an evaluation,
    and the commands that make them once more.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        scans, self.store, run, self.model = (folder / name for name in ("scans", "store", "run", "model.onnx"))
        self.scans, results = scans, folder / "evaluation"
        train = ["--fold", 0, *SMALL, *TRAINING]
        setup: list[list[object]] = [
            ["prepare", scans, self.store, *PREPARATION],
            ["train", self.store, run, *train],
            ["export", run, self.model],
            ["evaluate", self.store, self.model, "--out", results, *SHORTLY],
        ]
        write_scans(scans, 4)
        for arguments in setup:
            code, text = finished(started(arguments, folder / "log"), folder / "log")
            assert code == 0, text
        self.commands = commands_of(folder, SMALL)
        self._references: dict[str, Reference] = {}

    def reference(self, command: Command) -> Reference:
        """The outcome of an undisturbed call, which is made when it is first needed."""
        if command.name not in self._references:
            out = self.empty(f"reference-{command.name}")
            began = time.monotonic()
            code, text = finished(started(command.arguments(out), self.folder / "log"), self.folder / "log")
            assert code == 0, (command.name, text)
            sizes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
            self._references[command.name] = Reference(contents(out, command), sizes, time.monotonic() - began)
        return self._references[command.name]

    def empty(self, name: str) -> Path:
        """An empty folder of this name."""
        out = self.folder / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return out

    def differences(self, command: Command, out: Path) -> list[str]:
        """Files that are not those of an undisturbed call."""
        here, reference = contents(out, command), self.reference(command).files
        return sorted(name for name in {*here, *reference} if here.get(name) != reference.get(name))


def write_scans(folder: Path, count: int) -> None:
    """Small labelled scans, named like those of CHAOS."""
    folder.mkdir()
    for number in range(count):
        noise = np.random.default_rng(number)
        grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 36, 6)), indexing="ij"))
        labels = ((grid**2).sum(axis=0) < 0.3 + 0.02 * number).astype(np.uint8)
        image = (300.0 * labels + noise.normal(100, 15, labels.shape)).astype(np.int16)
        for name, array in (("src", image), ("mask", labels)):
            nib.save(nib.Nifti1Image(array, np.diag([-2.0, 2.0, 8.0, 1.0])), folder / f"{number:02d}-{name}.nii.gz")


def contents(out: Path, command: Command) -> dict[str, str]:
    """SHA-256 of every file below a folder, empty for those that vary."""
    hashes = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        varies = path.name.endswith(command.varies) if command.varies else False
        hashes[str(path.relative_to(out))] = "" if varies else hashlib.sha256(path.read_bytes()).hexdigest()
    return hashes


def started(arguments: Sequence[object], log: Path, *, file_limit: int | None = None) -> int:
    """Process id of a child in a group of its own that runs a command.

    Args:
        arguments: of the command line.
        log: gets what it prints.
        file_limit: bytes beyond which the system lets no file grow.
    """
    child = os.fork()
    if child:
        return child
    code = BUG
    try:
        os.setsid()
        descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        code = run_command(cli, "attunet", [str(argument) for argument in arguments])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def finished(child: int, log: Path, timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
    """Exit code of a child, negative for a signal, and what it printed; a child that hangs is killed."""
    end = time.monotonic() + timeout_s
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), log.read_text(errors="replace") if log.exists() else ""
        if time.monotonic() > end:
            kill(child)
        time.sleep(0.005)


def kill(child: int) -> None:
    """Kills a child and all that it has started."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(child, signal.SIGKILL)
