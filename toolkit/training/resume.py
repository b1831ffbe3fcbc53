"""A training that continues: its newest checkpoint, what must not have changed, its plan and its state."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Literal

from accelerate import Accelerator

from attunet.config import Config, OptimConfig, ResolvedConfig
from attunet.device.accelerator import of_first_process
from attunet.errors import InputError
from attunet.runs.initial_weights import InitialWeights
from attunet.runs.read_checkpoint import (
    STATE,
    Checkpoint,
    check_tensors,
    load_optimizer,
    newest_checkpoint,
    read_checkpoint,
)
from attunet.runs.run_folder import RunFolder
from attunet.training.trainer import Trainer

logger = logging.getLogger(__name__)

DEFAULT_WARMUP = OptimConfig().warmup_fraction

Resume = Literal["never", "require", "auto"]


def find_start(folder: RunFolder, resume: Resume, accelerator: Accelerator) -> Checkpoint | None:
    """The newest checkpoint of a run; None to begin anew. Raises InputError where `resume` does not allow it."""
    start = newest_checkpoint(folder.checkpoints) if accelerator.is_main_process else None
    # Rank 0 decides: another machine may see an older state of shared storage
    path = of_first_process(start.path if start is not None else None)
    if path is not None and start is None:
        start = read_checkpoint(path)
    if start is None and resume == "require":
        raise InputError(
            f"{folder.path}: --resume needs a checkpoint, and there is none (use --resume=auto to start or continue)"
        )
    if start is not None and resume == "never":
        raise InputError(
            f"{folder.path}: has a training (step {start.state.step}); continue it with --resume or name another folder"
        )
    return start


def check_same_weights(start: Checkpoint, weights: InitialWeights, renamed: Mapping[str, str]) -> None:
    """Raise InputError if a run did not start from these weights, with these names of its classes."""
    lineage = start.state.lineage
    if lineage is None or lineage.sha256 != weights.sha256:
        there = "fresh weights" if lineage is None else f"the weights of {lineage.parent} ({lineage.sha256[:12]})"
        raise InputError(
            f"--init: {start.path} began with {there}, and {weights.name} holds others ({weights.sha256[:12]}); leave "
            "--init out to continue, or name another folder"
        )
    for new, parent in renamed.items():
        if lineage.classes.get(new) != parent:
            raise InputError(
                f"--init-classes: {start.path} began with {lineage.classes.get(new, 'fresh weights')} for {new}, got "
                f"{parent}; leave it out to continue, or name another folder"
            )


def with_kept_plan(config: Config, begun: ResolvedConfig, accelerator: Accelerator) -> Config:
    """Keep the plan of a run that is resumed, whose configuration is `begun`: its number of steps, if it or this call
    has a time, and its minutes.
    """
    given, epochs, minutes = config.run.minutes, config.optim.epochs, begun.run.minutes
    plan = f"its plan for {minutes:g} minutes" if minutes else "its number of steps, made without a time"
    is_corrected = minutes > 0 and begun.optim.schedule == "trapezoid"  # so that fractions of the steps changed too
    in_vain = ""
    if given not in (0, minutes):
        in_vain = f"run.minutes={given:g}"
    elif minutes and not given and not isinstance(epochs, str):
        in_vain = f"optim.epochs={epochs:g}"
    elif is_corrected and config.optim.warmup_fraction not in (DEFAULT_WARMUP, begun.optim.warmup_fraction):
        in_vain = f"optim.warmup_fraction={config.optim.warmup_fraction:g}"
    if in_vain and accelerator.is_main_process:
        logger.info(f"{in_vain} changes nothing: a resumed training keeps {plan}")
    kept = without_epochs(config) if given or minutes else config
    run, optim = dataclasses.replace(kept.run, minutes=minutes), kept.optim
    if is_corrected:
        optim = dataclasses.replace(optim, warmup_fraction=begun.optim.warmup_fraction)
        if isinstance(run.validate_every_epochs, str):
            run = dataclasses.replace(run, validate_every_epochs=begun.run.validate_every_epochs)
    return dataclasses.replace(kept, run=run, optim=optim)


def without_epochs(config: Config) -> Config:
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, epochs="auto"))


def restore(trainer: Trainer, start: Checkpoint) -> None:
    """Put a checkpoint into a new trainer. Raises InputError if it does not fit the training."""
    path, step, scaler = start.path, start.state.step, trainer.accelerator.scaler
    if step > trainer.total_steps:
        raise InputError(
            f"{path / STATE}: step: must be at most the training's {trainer.total_steps} steps, got {step}"
        )
    check_tensors(start.tensors["model"], trainer.network.state_dict(), path / "model.safetensors")
    trainer.network.load_state_dict(start.tensors["model"])
    trainer.average.network.load_state_dict(start.tensors["average"])
    if step == 0:  # the start of a planned training: neither the optimizer nor the scaler has worked
        check_tensors(start.tensors["optimizer"], {}, path / "optimizer.safetensors")
        return
    load_optimizer(trainer.optimizer, trainer.network, start.tensors["optimizer"], path / "optimizer.safetensors")
    if scaler is not None:
        saved, names = start.state.scaler or {}, sorted(scaler.state_dict())
        if sorted(saved) != names:
            raise InputError(f"{path / STATE}: scaler: must have {', '.join(names)}, got {', '.join(saved) or 'none'}")
        scaler.load_state_dict(saved)
