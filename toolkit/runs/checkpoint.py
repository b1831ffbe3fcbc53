"""Checkpoints: safetensors and JSON in a folder that is either complete or absent.

`checkpoints/step-0000001200/` has `model.safetensors` (the trained weights), `average.safetensors` (their moving
average, which is exported), `optimizer.safetensors`, `state.json` and a manifest with the SHA-256 of each.
`checkpoints/best/` has the averaged weights at the best validation, as a diagnostic; `snapshots/step-0000001000/`,
beside `checkpoints`, has averaged weights for an ensemble. Nothing is pickled. Accelerate's `save_state` writes in
place, without hashes or fsync.
"""

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypedDict

import torch
from safetensors.torch import save
from torch import nn

from attunet.config import ResolvedConfig
from attunet.errors import NotFinite, RunError
from attunet.runs.read_checkpoint import step_folders
from attunet.runs.run_folder import BEST, RunFolder, step_name
from attunet.runs.run_state import RunState
from attunet.system.atomic_files import write_folder

logger = logging.getLogger(__name__)

KEEP = 2  # newest checkpoints that are kept
SNAPSHOT_SHARE = 0.1  # of all steps, between two snapshots


@dataclass(frozen=True)
class TrainerState:
    """State of a trainer after a step: tensors by part (`PARTS`) and name, and the gradient scaler's in float16."""

    parts: Mapping[str, Mapping[str, torch.Tensor]]
    scaler: dict[str, float] | None


class SaveCost(TypedDict, total=False):
    """Seconds that training waited for a checkpoint, and its megabytes of tensors."""

    stall_s: float
    megabytes: float


class Checkpoints:
    """Writes the checkpoints of one training in a thread; training waits for the previous write and the copy alone.

    `state` is the run at its start or at the checkpoint that it continues. Processes without `main` write nothing.
    """

    def __init__(self, folder: RunFolder, state: RunState, *, main: bool) -> None:
        self.folder, self._state, self._check_held = folder.checkpoints, state, folder.check_held
        self._snapshots = folder.snapshots
        self._run, self._main = state.config.run, main
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._saved_at = time.monotonic()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown()  # waits for the current write
        if isinstance(error, NotFinite):
            steps = step_folders(self.folder)
            hint = f"The last good checkpoint: {steps[0]}" if steps else "There is no checkpoint yet"
            raise RunError(f"{error}. {hint}") from None

    def set_config(self, config: ResolvedConfig) -> None:
        """Set the configuration that later checkpoints have."""
        self._state = dataclasses.replace(self._state, config=config)

    def due(self, step: int) -> bool:
        """Return True if a checkpoint should be written after `step`. Raises RunError when the last one failed."""
        if self._pending is not None and self._pending.done():
            self.finish()
        if self._run.checkpoint_every_steps and step % self._run.checkpoint_every_steps == 0:
            return True
        return time.monotonic() - self._saved_at >= 60 * self._run.checkpoint_every_minutes

    def save(self, read_state: Callable[[], TrainerState], step: int, *, finished: bool = False) -> SaveCost:
        """Save the state after `step` and return the cost once it is copied to the host. Raises RunError when the
        previous write failed. finished: nothing of the training is left, such as arrays to be compared.
        """
        if not self._main:
            return {}
        began = time.monotonic()
        state = read_state()
        about = dataclasses.replace(self._state, step=step, finished=finished, scaler=state.scaler)
        self._submit(self.folder / step_name(step), state.parts, about)
        self._saved_at = time.monotonic()
        num_bytes = sum(tensor.nbytes for tensors in state.parts.values() for tensor in tensors.values())
        return {"stall_s": self._saved_at - began, "megabytes": num_bytes / 1e6}

    def save_if_best(self, average: nn.Module, step: int, dice: float | None) -> None:
        """Keep the averaged weights of the best validation so far, as a diagnostic; they are never exported."""
        best = self._state.best
        if self._main and dice is not None and (best is None or dice > best):
            self._state = dataclasses.replace(self._state, best=dice)
            about = dataclasses.replace(self._state, step=step)
            self._submit(self.folder / BEST, {"average": average.state_dict()}, about)

    def save_if_snapshot(self, average: nn.Module, step: int, total_steps: int) -> None:
        """Keep the averaged weights after `step` if they are one of `run.snapshots`."""
        if self._main and step in snapshot_steps(self._run.snapshots, total_steps):
            about = dataclasses.replace(self._state, step=step, finished=step == total_steps)
            self._submit(self._snapshots / step_name(step), {"average": average.state_dict()}, about)

    def finish(self) -> None:
        """Wait until everything saved is on the disk."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except OSError as error:
            raise RunError(
                f"{self.folder}: the checkpoint could not be written ({error}); earlier ones are untouched"
            ) from None

    def _submit(self, path: Path, parts: Mapping[str, Mapping[str, torch.Tensor]], state: RunState) -> None:
        self.finish()
        copies = {part: host_copy(tensors) for part, tensors in parts.items()}
        self._pending = self._pool.submit(self._write, path, copies, state)

    def _write(self, path: Path, parts: Mapping[str, dict[str, torch.Tensor]], state: RunState) -> None:
        text = json.dumps(state.to_json(), indent=1, allow_nan=False)
        files: dict[str, Callable[[Path], object]] = {
            f"{part}.safetensors": _tensor_writer(tensors, _description(state, part)) for part, tensors in parts.items()
        }
        files["state.json"] = lambda path: path.write_text(text, encoding="utf-8")
        self._check_held()
        write_folder(path, files)
        if path.parent == self.folder and path.name != BEST:
            _prune(self.folder, path)


def snapshot_steps(number: int, total_steps: int) -> set[int]:
    """Steps after which snapshots are kept, the last step among them; fewer than `number` in very short trainings."""
    return {step for i in range(number) if (step := round((1 - SNAPSHOT_SHARE * i) * total_steps)) > 0}


def optimizer_tensors(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the optimizer's state by parameter name, e.g. `exp_avg/encoder.0.weight`."""
    named = {id(parameter): name for name, parameter in network.named_parameters()}
    return {f"{key}/{named[id(p)]}": value for p, state in optimizer.state.items() for key, value in state.items()}


def host_copy(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy tensors to the host, even those that are there: the next step writes into them while the thread saves."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _description(state: RunState, part: str) -> dict[str, str]:
    """Metadata of a safetensors file, so that it can be used without `state.json`.

    One key, because the order of several changes from file to file and equal states must give equal bytes.
    """
    facts = {
        "version": state.attunet,
        "part": part,
        "model": state.config.to_json()["model"],
        "in_channels": state.preprocessing.spec.in_channels,
        "num_channels": state.preprocessing.spec.num_channels,
        "channels": state.channels,
        "classes": list(state.classes.names),
        "parent": state.lineage and {"name": state.lineage.parent, "sha256": state.lineage.sha256},
    }
    seen = {"seen": state.seen_hashes} if part == "average" else {}  # for trainings that start from this file
    return {"attunet": json.dumps(facts | seen)}


def _tensor_writer(tensors: dict[str, torch.Tensor], about: dict[str, str]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(save(tensors, about))  # save_file makes files that only their owner can read


def _prune(folder: Path, written: Path) -> None:
    """Delete all but the checkpoint just written and the one before it.

    A later one must be damaged: otherwise this training would have continued from it.
    """
    steps = step_folders(folder)
    for path in [*steps[: steps.index(written)], *steps[steps.index(written) + KEEP :]]:
        shutil.rmtree(path)
