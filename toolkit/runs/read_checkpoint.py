"""Checkpoints read back: the newest that verifies, and its tensors put into a new optimizer."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from attunet.errors import InputError, one_line
from attunet.fields import read_json, shown
from attunet.models import build_model
from attunet.runs.run_state import RunState
from attunet.system.atomic_files import verify_folder

logger = logging.getLogger(__name__)

PARTS = ("model", "average", "optimizer")
STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint; `tensors` has the requested parts, by name."""

    path: Path
    state: RunState
    tensors: dict[str, dict[str, torch.Tensor]]


def newest_checkpoint(folder: Path, parts: tuple[str, ...] = PARTS) -> Checkpoint | None:
    """Read the newest checkpoint under `folder` that verifies; damaged ones are skipped with a warning. None when there
    is none at all, and InputError where none can be read.
    """
    damaged = ""
    for path in step_folders(folder):
        try:
            return read_checkpoint(path, parts)
        except InputError as error:
            damaged = str(error)
            logger.warning(f"{error}; trying the checkpoint before it")
    if damaged:
        raise InputError(f"{folder}: no checkpoint can be read; the last tried: {damaged}")
    return None


def read_checkpoint(path: Path, parts: tuple[str, ...] = PARTS) -> Checkpoint:
    """Read and verify one checkpoint folder. Raises InputError when it is damaged, of another schema,
    or has averaged weights of another network than its state describes.
    """
    files = {part: f"{part}.safetensors" for part in parts}
    verify_folder(path, [STATE, *files.values()])
    state = RunState.from_json(read_json(path / STATE))
    tensors = {part: _read_tensors(path / file) for part, file in files.items()}
    if "average" in parts:
        with torch.device("meta"):  # without memory: the state may be a stranger's, and describe a giant
            network = build_model(state.config.model, state.preprocessing.spec.in_channels, len(state.classes))
        check_tensors(tensors["average"], network.state_dict(), path / files["average"])
    return Checkpoint(path, state, tensors)


def check_tensors(tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], where: Path) -> None:
    """Raises InputError with the first name, shape or type of tensors in which a file differs from what is wanted."""
    there, here = ({name: _form(tensor) for name, tensor in group.items()} for group in (tensors, wanted))
    for name in sorted({*there, *here}):
        if there.get(name) != here.get(name):
            got, must = there.get(name, "no such tensor"), here.get(name, "no such tensor")
            raise InputError(
                f"{where}: must be of the network that the checkpoint's state describes; {shown(name)} is {got}, must "
                f"be {must}"
            )


def _form(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read as safetensors: {one_line(error)}") from None


def load_optimizer(
    optimizer: torch.optim.Optimizer, network: nn.Module, tensors: Mapping[str, torch.Tensor], where: Path
) -> None:
    """Put the state that `optimizer_tensors` returned after a step into a new AdamW of the same network. Raises
    InputError for tensors that are not exactly those that AdamW keeps for the parameters that it trains.
    """
    names = {parameter: name for name, parameter in network.named_parameters()}
    trained = {names[parameter]: parameter for group in optimizer.param_groups for parameter in group["params"]}
    wanted = {f"{key}/{name}": parameter for name, parameter in trained.items() for key in ("exp_avg", "exp_avg_sq")}
    check_tensors(tensors, {**wanted, **{f"step/{name}": torch.zeros(()) for name in trained}}, where)
    for name, value in tensors.items():
        key, _, parameter_name = name.partition("/")
        parameter = trained[parameter_name]
        # Moments have the memory layout of their parameter, a count of steps does not
        copy = value.to(parameter.device) if key == "step" else torch.empty_like(parameter).copy_(value)
        optimizer.state[parameter][key] = copy


def step_folders(folder: Path) -> list[Path]:
    """The checkpoints or snapshots in a folder, the newest first."""
    complete = (p for p in folder.glob("step-*") if p.is_dir() and not p.name.endswith((".partial", ".replaced")))
    return sorted(complete, reverse=True)
