"""The start of a new or resumed training: configuration, network, data and number of steps."""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from attunet.config import Config, DataConfig, ResolvedConfig
from attunet.errors import InputError
from attunet.loading.choose import make_loader
from attunet.models import build_model
from attunet.runs.initial_weights import InitialWeights, load_initial_weights, read_initial_weights
from attunet.runs.lineage import Lineage
from attunet.runs.read_checkpoint import Checkpoint
from attunet.runs.run_folder import RunFolder
from attunet.runs.run_state import RunState
from attunet.store import Store
from attunet.store_damage import check_sizes
from attunet.system.atomic_files import write_text
from attunet.system.environment import environment
from attunet.training.optimization import peak_rate
from attunet.training.resolve_auto import resolve_auto
from attunet.training.resume import Resume, check_same_weights, find_start, restore, with_kept_plan, without_epochs
from attunet.training.time_plan import TimePlan, log_duration
from attunet.training.trainer import Trainer
from attunet.training.validation import Validator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    store: Store
    folder: RunFolder
    config: Config
    fold: int | Literal["all"]
    resume: Resume
    init: Path | None
    init_classes: Mapping[str, str]
    began: float
    hide: Callable[[str], str]  # a text with the names that this call hides -> without them


@dataclass(frozen=True)
class Training:
    """A training that is ready for its next step.

    Args:
        trainer, validator: those of this process.
        state: the state of the run that checkpoints save; its `step` is the number of steps done before this call.
        cases: the training cases.
        plan: of a new training whose number of steps follows from `run.minutes`.
    """

    trainer: Trainer
    validator: Validator
    state: RunState
    cases: list[str]
    plan: TimePlan | None


def open_training(request: Request, accelerator: Accelerator, stack: ExitStack) -> Training | None:
    """Start or resume a training; None if it is finished already. `stack` gets everything that must be closed at the
    end of the training. Raises InputError for a request that does not fit the store, the run or the machine.
    """
    store = request.store
    cases, held_out = store.split(request.fold)
    if not cases:
        raise InputError(f"{store.path}: fold {request.fold} leaves no labelled case to train on")
    check_sizes(store, [*cases, *held_out])  # before memory is reserved for the slices that the manifest claims
    start = find_start(request.folder, request.resume, accelerator)
    if request.init_classes and request.init is None:
        raise InputError("--init-classes: needs --init")
    weights = read_initial_weights(request.init) if request.init is not None else None
    if start is not None and weights is not None:
        check_same_weights(start, weights, request.init_classes)
        weights = None
    requested = _requested(request, accelerator, start)
    wanted = requested
    if weights is not None and requested.model.base_width == "auto":
        model = dataclasses.replace(requested.model, base_width=weights.base_width)
        wanted = dataclasses.replace(requested, model=model)
    config = resolve_auto(wanted, store, cases, accelerator, start.state.config if start is not None else None)
    seen_before = start.state.training_voxels if start is not None else weights.seen if weights is not None else None
    state = RunState.at_start(store, cases, held_out, request.fold, config, seen_before or ())
    if weights is not None and accelerator.is_main_process:
        weights.warn_if_cases_are_unknown()
        if seen := [case for case in held_out if case not in state.held_out]:
            logger.warning(f"{weights.name} was trained on {', '.join(seen)}, or on their patients; they count as seen")
    if (missing := store.classes_without_voxels(cases)) and accelerator.is_main_process:
        logger.warning(f"no training case has {', '.join(missing)}: what the network says of it means nothing")
    if start is not None:
        start.state.check_same_training(state, start.path)
        if start.state.finished:
            if accelerator.is_main_process:
                logger.info(f"{request.folder.path}: this training is finished ({start.state.step} steps)")
            return None
    trainer, lineage = _make_trainer(request, cases, config, accelerator, stack, start, weights)
    validator = Validator(store, state.held_out, accelerator, config.optim, trainer.gradient.class_weights)
    plan = None
    if start is not None:
        restore(trainer, start)
        state = dataclasses.replace(state, step=start.state.step, best=start.state.best)
    elif config.run.minutes > 0:
        plan = TimePlan(trainer, validator, request.folder, request.began)
    elif request.config.optim.epochs == "auto":
        log_duration(trainer, validator, request.folder)
    automatic = requested.automatic if start is None else start.state.automatic
    state = dataclasses.replace(
        state, config=trainer.config, automatic=automatic, data_tier=trainer.loader.tier, lineage=lineage
    )
    return Training(trainer, validator, state, cases, plan)


def _make_trainer(
    request: Request,
    cases: list[str],
    config: ResolvedConfig,
    accelerator: Accelerator,
    stack: ExitStack,
    start: Checkpoint | None,
    weights: InitialWeights | None,
) -> tuple[Trainer, Lineage | None]:
    """Make the trainer with its initial weights; those of the checkpoint `start` are loaded later."""
    store = request.store
    tier = start.state.data_tier if start is not None else None
    loader = make_loader(store, cases, accelerator, config, tier=tier)
    stack.callback(loader.close)
    is_kept = start is not None and config.run.resident_gb != start.state.config.run.resident_gb
    if is_kept and accelerator.is_main_process:
        in_vain = f"run.resident_gb={config.run.resident_gb} changes nothing"
        logger.info(f"{in_vain}: a resumed training keeps its slices {loader.tier}")
    set_seed(config.run.seed)
    network = build_model(config.model, store.spec.in_channels, len(store.classes))
    lineage = start.state.lineage if start is not None else None
    if weights is not None:
        lineage = load_initial_weights(
            network, weights, store.spec, store.classes, request.init_classes, store.channels
        )
        if accelerator.is_main_process:
            logger.info(lineage.describe())
    carried = [] if lineage is None else [name for name, _ in network.named_parameters() if name not in lineage.fresh]
    trainer = Trainer(network, loader, config, accelerator, carried)
    stack.callback(trainer.close)
    return trainer, lineage


def _requested(request: Request, accelerator: Accelerator, start: Checkpoint | None) -> Config:
    """The configuration that the training asks for, with `[data]` of the store; a time takes the place of epochs."""
    config = dataclasses.replace(request.config, data=request.store.data_config)
    if accelerator.is_main_process:
        _log_unused(request.config.data, config.data)
    if start is not None:
        return with_kept_plan(config, start.state.config, accelerator)
    return without_epochs(config) if config.run.minutes else config


def _log_unused(given: DataConfig, stored: DataConfig) -> None:
    """Name the fields of `[data]` that the configuration sets to another value than the store has."""
    for name, default in vars(DataConfig()).items():
        value, there = getattr(given, name), getattr(stored, name)
        if value not in (default, there):
            logger.info(f"note: data.{name} is {there} in the store; the config's {value} is not used")


def describe_run(folder: RunFolder, trainer: Trainer, first_step: int) -> None:
    """Write config.toml and environment.json, and delete the metrics of steps that are about to be repeated."""
    accelerator, telemetry = trainer.accelerator, trainer.telemetry
    facts = environment() | {
        "num_processes": accelerator.num_processes,
        "mixed_precision": str(accelerator.mixed_precision),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "peak_learning_rate": peak_rate(trainer.config.optim),
        "data_tier": trainer.loader.tier,
        "matmul_flops_per_s": telemetry.matmul_flops_per_s,
        "training_flops_per_slice": telemetry.flops_per_slice,
    }
    write_text(folder.path / "environment.json", json.dumps(facts, indent=1))  # the first, which tells a run's folder
    folder.write_config(trainer.config)
    folder.forget_after(first_step)


def headline(training: Training) -> str:
    """Return the first line of the log: network, data, steps and device."""
    trainer, first_step = training.trainer, training.state.step
    model, accelerator, (height, width) = trainer.config.model, trainer.accelerator, trainer.loader.size
    parameters = sum(p.numel() for p in trainer.network.parameters())
    begin = f"resuming at step {first_step}" if first_step else "training"
    return (
        f"{begin}: {model.name} {model.base_width} wide ({parameters:,} parameters) at {height}×{width} on "
        f"{len(training.cases)} cases ({trainer.loader.num_samples} slices), {len(training.validator.cases)} left out; "
        f"{trainer.total_steps} steps of {trainer.batch_size} slices, rate {peak_rate(trainer.config.optim):.3g}, "
        f"{accelerator.device.type} {accelerator.mixed_precision}, {accelerator.num_processes} process(es), "
        f"{trainer.loader.describe()}"
    )
