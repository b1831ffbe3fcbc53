"""Checkpoints: safetensors and JSON in a folder that is whole or not there.

`checkpoints/step-0000001200/` has `model.safetensors` (the trained weights), `average.safetensors` (their moving average, the ones that
are exported), `optimizer.safetensors`, `state.json` and a manifest with the SHA-256 of each. `checkpoints/best/` has the averaged weights
at the best validation, as a diagnostic. Nothing is pickled.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn

from attunet.config import RunConfig
from attunet.errors import InputError, NotFinite, RunError
from attunet.runs.run_folder import RunFolder
from attunet.system.atomic_files import verify_folder, write_folder

logger = logging.getLogger(__name__)

SCHEMA = 1
KEEP = 2  # newest checkpoints that stay
BEST = "best"
PARTS = ("model", "average", "optimizer")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint; `tensors` has the parts that were asked for, by name."""

    path: Path
    state: dict[str, Any]
    tensors: dict[str, dict[str, torch.Tensor]]


@dataclass(frozen=True)
class TrainerState:
    """State of a trainer after a step, as it is saved. parts: tensors by part (`PARTS`) and name; scaler: that of float16 training."""

    finished: bool
    parts: Mapping[str, Mapping[str, torch.Tensor]]
    scaler: dict[str, Any] | None


class Checkpoints:
    """Writes the checkpoints of one training in a thread of its own; does nothing where `main` is false.

    Training waits only for the copy to the host, and for the write before. facts: what every `state.json` says besides the step.
    """

    def __init__(self, folder: RunFolder, facts: Mapping[str, Any], run: RunConfig, *, main: bool, best: float | None = None) -> None:
        self.folder, self.facts, self.best, self._check_held = folder.checkpoints, facts, best, folder.check_held
        self._run, self._main = run, main
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._saved_at = time.monotonic()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown()  # once what is being written is written
        if isinstance(error, NotFinite):
            last = newest_step_folder(self.folder)
            raise RunError(f"{error}. {f'The last good checkpoint: {last}' if last else 'There is no checkpoint yet'}") from None

    def due(self, step: int) -> bool:
        """Whether a checkpoint should be written after `step`, by time or by count. Raises RunError when the last one has failed."""
        if self._pending is not None and self._pending.done():
            self.finish()
        by_step = self._run.checkpoint_every_steps
        return time.monotonic() - self._saved_at >= 60 * self._run.checkpoint_every_minutes or (by_step > 0 and step % by_step == 0)

    def save(self, read_state: Callable[[], TrainerState], step: int) -> dict[str, float]:
        """Saves everything after `step`; returns once it is copied, with how long training waited and what is written.

        `stall_s` in seconds, `megabytes` of tensors; nothing where `main` is false. Raises RunError when the write before this failed.
        """
        if not self._main:
            return {}
        began = time.monotonic()
        state = read_state()
        self._submit(f"step-{step:010d}", state.parts, {"step": step, "finished": state.finished, "scaler": state.scaler})
        self._saved_at = time.monotonic()
        num_bytes = sum(tensor.nbytes for tensors in state.parts.values() for tensor in tensors.values())
        return {"stall_s": self._saved_at - began, "megabytes": num_bytes / 1e6}

    def save_if_best(self, average: nn.Module, step: int, dice: float | None) -> None:
        """Keeps the averaged weights of the best validation so far: a diagnostic, never what is exported."""
        if self._main and dice is not None and (self.best is None or dice > self.best):
            self.best = dice
            self._submit(BEST, {"average": average.state_dict()}, {"step": step, "finished": False, "scaler": None})

    def finish(self) -> None:
        """Waits until everything saved is on the disk."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except OSError as error:
            raise RunError(f"{self.folder}: the checkpoint could not be written ({error}); earlier ones are untouched") from None

    def _submit(self, name: str, parts: Mapping[str, Mapping[str, torch.Tensor]], state: Mapping[str, Any]) -> None:
        self.finish()
        copies = {part: _host_copy(tensors) for part, tensors in parts.items()}
        text = json.dumps({"schema": SCHEMA, **self.facts, **state, "best": self.best}, indent=1)
        self._pending = self._pool.submit(self._write, name, copies, text)

    def _write(self, name: str, parts: Mapping[str, dict[str, torch.Tensor]], state: str) -> None:
        files: dict[str, Callable[[Path], object]] = {f"{part}.safetensors": _tensor_writer(tensors) for part, tensors in parts.items()}
        files["state.json"] = lambda path: path.write_text(state, encoding="utf-8")
        self._check_held()
        write_folder(self.folder / name, files)
        if name != BEST:
            _prune(self.folder, self.folder / name)


def newest_checkpoint(folder: Path, parts: tuple[str, ...] = PARTS) -> Checkpoint | None:
    """The newest checkpoint under `folder` that verifies, or None when there is none at all.

    A damaged one is reported and passed over. Raises InputError when there are checkpoints and none is good.
    """
    damaged = ""
    for path in _steps(folder):
        try:
            return read_checkpoint(path, parts)
        except InputError as error:
            damaged = str(error)
            logger.warning(f"{error}; trying the checkpoint before it")
    if damaged:
        raise InputError(f"{folder}: no checkpoint can be read; the last tried: {damaged}")
    return None


def newest_step_folder(folder: Path) -> Path | None:
    """Where the newest checkpoint under `folder` lies, unread; None when there is none."""
    return next(iter(_steps(folder)), None)


def read_checkpoint(path: Path, parts: tuple[str, ...] = PARTS) -> Checkpoint:
    """Reads and verifies one checkpoint folder. Raises InputError when it is damaged or of another version."""
    verify_folder(path)
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    if state.get("schema") != SCHEMA:
        raise InputError(f"{path}: is a checkpoint of version {state.get('schema')!r}, this attunet reads version {SCHEMA}")
    return Checkpoint(path, state, {part: load_file(path / f"{part}.safetensors") for part in parts})


def optimizer_tensors(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, torch.Tensor]:
    """The optimizer's state by parameter name, e.g. `exp_avg/encoder.0.weight`."""
    named = {id(parameter): name for name, parameter in network.named_parameters()}
    return {f"{key}/{named[id(p)]}": value for p, state in optimizer.state.items() for key, value in state.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    parameters = dict(network.named_parameters())
    for name, value in tensors.items():
        key, _, parameter_name = name.partition("/")
        parameter = parameters[parameter_name]
        target = value if key == "step" else value.to(parameter.device).contiguous(memory_format=_layout(parameter))
        optimizer.state[parameter][key] = target.to(parameter.device)


def _layout(tensor: torch.Tensor) -> torch.memory_format:
    return torch.channels_last if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def _host_copy(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # A copy even where the tensor is on the host already: the next step writes into it while the thread saves.
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _tensor_writer(tensors: dict[str, torch.Tensor]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(save(tensors))  # safetensors' own save_file makes files that nobody else may read


def _prune(folder: Path, written: Path) -> None:
    """Keeps the checkpoint just written and those before it; a later one was damaged, or this training would have begun there."""
    steps = _steps(folder)
    for path in [*steps[: steps.index(written)], *steps[steps.index(written) + KEEP :]]:
        shutil.rmtree(path)


def _steps(folder: Path) -> list[Path]:
    return sorted((p for p in folder.glob("step-*") if p.is_dir() and not p.name.endswith((".partial", ".replaced"))), reverse=True)
