"""One training, from the store to the last checkpoint; the same code in one process and in many."""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed

from attunet.config import Config, ResolvedConfig
from attunet.device.accelerator import make_accelerator
from attunet.errors import InputError
from attunet.loading.choose import make_loader
from attunet.loading.loader import Loader
from attunet.models import SegmentationNetwork, build_model
from attunet.runs.checkpoint import Checkpoint, Checkpoints, load_optimizer, newest_checkpoint, read_checkpoint
from attunet.runs.initial_weights import InitialWeights, load_initial_weights, read_initial_weights
from attunet.runs.lineage import Lineage
from attunet.runs.run_folder import RunFolder, read_metrics
from attunet.runs.run_state import RunState
from attunet.store import Store, open_store
from attunet.system.atomic_files import write_text
from attunet.system.environment import environment
from attunet.training.optimization import peak_rate
from attunet.training.processes.heartbeat import Heartbeat
from attunet.training.processes.rank_log import RankLog
from attunet.training.processes.signals import Stopped, StopSignals
from attunet.training.progress.journal import Journal
from attunet.training.resolve_auto import resolve_auto
from attunet.training.time_plan import AIM, VALIDATIONS_PER_RUN, measure, measure_step, plan_steps, with_steps
from attunet.training.trainer import Trainer
from attunet.training.validation import Validator

logger = logging.getLogger(__name__)

Resume = Literal["never", "require", "auto"]


def train(
    store_path: str | Path,
    run_path: str | Path,
    config: Config,
    *,
    fold: int | Literal["all"],
    resume: Resume = "never",
    init: str | Path | None = None,
    init_classes: Mapping[str, str] | None = None,
    began: float | None = None,
) -> None:
    """Train one network on the cases that `fold` leaves in, and validate on those that it leaves out.

    Args:
        store_path: the prepared data set.
        run_path: folder of the run.
        config: the configuration; its `[data]` is replaced by the store's.
        fold: the fold to leave out; "all" trains on every labelled case.
        resume: "never" refuses a folder with a training; "require" continues one; "auto" continues or starts.
        init: a run, a checkpoint or a .safetensors file whose weights are the start; the classes may differ.
        began: value of `time.monotonic()` from which `run.minutes` counts; now by default.
        init_classes: class of the store -> the name that it has in `init`, where they differ.

    Raises:
        InputError: a wrong call.
        RunError: the training failed.
        Stopped: exit with 128 + signal after SIGTERM or SIGINT.

    Example:
        >>> train("store", "runs/unet", load_config(None, ["model.name=unet", "optim.epochs=20"]), fold=0)
    """
    began = time.monotonic() if began is None else began
    store, run_path = open_store(Path(store_path)), Path(run_path)
    training, held_out = store.split(fold)
    if not training:
        raise InputError(f"{store_path}: fold {fold} leaves no labelled case to train on")
    accelerator = make_accelerator(config.run)
    main = accelerator.is_main_process
    with ExitStack() as stack:
        heartbeat = stack.enter_context(Heartbeat(config.run.timeout_minutes))
        folder = RunFolder(run_path)
        if main:
            stack.enter_context(folder)
        accelerator.wait_for_everyone()
        start = _find_start(folder, resume, accelerator)
        if config.run.minutes:
            config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, epochs="auto"))
        weights = read_initial_weights(init) if init is not None and start is None else None
        if weights is not None and config.model.base_width == "auto":
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, base_width=weights.model["base_width"]))
        begun = start.state.config if start is not None else None
        resolved = resolve_auto(dataclasses.replace(config, data=store.data_config), store, training, accelerator, begun)
        if start is not None:
            start.state.check_same_training(RunState.at_start(store, training, held_out, fold, resolved), start.path)
            if start.state.finished:
                if main:
                    logger.info(f"{run_path}: this training is finished ({start.state.step} steps)")
                return
        loader = _make_loader(store, training, resolved, accelerator, start)
        stack.callback(loader.close)
        network, lineage = _make_network(store, resolved, start, weights, init_classes or {})
        if lineage is not None and main and start is None:
            logger.info(lineage.describe())
        carried = [] if lineage is None else [name for name, _ in network.named_parameters() if name not in lineage.fresh]
        trainer = Trainer(network, loader, len(store.classes), resolved, accelerator, carried)
        stack.callback(trainer.close)
        first_step = _restore(trainer, start) if start is not None else 0
        validator = Validator(store, held_out, accelerator, resolved.optim, trainer.class_weights)
        if start is None and config.optim.epochs == "auto":
            _plan(trainer, validator, run_path, began)
        state = RunState.at_start(store, training, held_out, fold, trainer.config)
        state = dataclasses.replace(state, data_tier=loader.tier, best=start.state.best if start is not None else None, lineage=lineage)
        rank_log = stack.enter_context(RankLog(run_path, accelerator.process_index))
        if main:
            _describe_run(folder, trainer, first_step)
        journal = stack.enter_context(Journal(folder, trainer.config, main=main, steps_per_epoch=loader.num_samples / trainer.batch_size))
        checkpoints = stack.enter_context(Checkpoints(folder, state, main=main))
        rank_log.write(f"rank {accelerator.process_index} of {accelerator.num_processes} on {accelerator.device}, from step {first_step}")
        journal.say(_headline(trainer, len(training), len(held_out), first_step))
        stop = stack.enter_context(StopSignals())
        if start is None and config.run.minutes:  # a resumed training must keep the number of steps, whenever it was stopped
            checkpoints.save(trainer.state, 0)
        _run_steps(trainer, validator, first_step, journal, checkpoints, lambda: heartbeat.largest(stop.received))
        if main:
            _draw_curves(run_path, journal, trainer.total_steps)


def _run_steps(
    trainer: Trainer,
    validator: Validator,
    first_step: int,
    journal: Journal,
    checkpoints: Checkpoints,
    signal_received: Callable[[], int],
) -> None:
    """signal_received: the stop signal that any process got, the same answer in all; 0 without one."""
    config, total, telemetry = trainer.config, trainer.total_steps, trainer.telemetry
    validate_every = _validation_interval(trainer)
    journal.start_bar(first_step, total)
    telemetry.restart()
    logged_step = first_step
    for done in range(first_step + 1, total + 1):
        trainer.step(done - 1)
        journal.advance()
        if done % config.run.log_every == 0 or done == total:
            losses = trainer.read_losses()  # waits for the device
            speed = telemetry.read((done - logged_step) * trainer.batch_size)
            logged_step = done
            journal.log("train", done, **dataclasses.asdict(losses), **dataclasses.asdict(speed))
        if validator.cases and (done % validate_every == 0 or done == total):
            result = validator.validate(trainer.average.network)
            journal.log("validation", done, **result)
            journal.say(f"step {done}/{total}: validation loss {result['loss']:.4f}, Dice {_format_dice(result['dice'])}")
            checkpoints.save_if_best(trainer.average.network, done, result["dice"]["mean"])
            telemetry.restart()
            logged_step = done
        if signal := signal_received():
            checkpoints.save(trainer.state, done)
            checkpoints.finish()
            journal.say(f"stopped after step {done} of {total}; the checkpoint is written, continue with --resume")
            raise Stopped(signal)
        if done < total and checkpoints.due(done):
            journal.log("checkpoint", done, **checkpoints.save(trainer.state, done))
    journal.log("speed", total, **dataclasses.asdict(telemetry.overall()))
    journal.say(f"speed: {telemetry.overall().describe()}")
    if validator.cases:
        _validate_native(trainer, validator, journal)
    checkpoints.save(trainer.state, total)
    checkpoints.finish()


def _validate_native(trainer: Trainer, validator: Validator, journal: Journal) -> None:
    """The last validation, from the source files on the native grid."""
    try:
        dice = validator.validate_native(trainer.average.network)
    except InputError as error:
        journal.warn(f"no last validation on the native grid: {error}")
        return
    journal.log("native", trainer.total_steps, dice=dice)
    journal.say(f"on the native grid of the {len(validator.cases)} cases left out: Dice {_format_dice(dice)}")


def _draw_curves(run_path: Path, journal: Journal, step: int) -> None:
    from attunet.plots.curves import draw_curves  # imports matplotlib, which takes seconds

    picture = run_path / "plots" / "training.png"
    draw_curves(picture, {run_path.name: read_metrics(run_path)}, title=run_path.name)
    journal.log_picture(step, picture)


def _plan(trainer: Trainer, validator: Validator, run_path: Path, began: float) -> None:
    """Set the number of steps by `run.minutes`; without them, say how long the training will take."""
    config, main, samples = trainer.config, trainer.accelerator.is_main_process, trainer.loader.num_samples
    if not config.run.minutes:
        minutes = trainer.total_steps * measure_step(trainer) / 60
        if main:
            logger.info(f"{trainer.total_steps} steps, chosen by the data, will take about {minutes:.0f} minutes besides validation")
        return
    seconds = AIM * 60 * config.run.minutes
    costs = measure(trainer, validator, run_path, seconds)
    every = None if config.run.validate_every_epochs == "auto" else _validation_interval(trainer)
    checkpoints = int(config.run.minutes / config.run.checkpoint_every_minutes) if config.run.checkpoint_every_minutes else 0
    left = seconds - (time.monotonic() - began)
    steps = plan_steps(costs, left, steps_per_validation=every, checkpoints=checkpoints)
    if trainer.accelerator.num_processes > 1:
        steps = broadcast_object_list([steps])[0]
    trainer.set_config(with_steps(config, steps, samples))
    if main:
        logger.info(
            f"{config.run.minutes:g} minutes: {steps} steps ({trainer.config.optim.epochs:.3g} epochs) of {costs.step:.3g} s, "
            f"validations of {costs.validation:.3g} s; measuring took {time.monotonic() - began:.0f} s from the start"
        )


def _find_start(folder: RunFolder, resume: Resume, accelerator: Accelerator) -> Checkpoint | None:
    start = newest_checkpoint(folder.checkpoints) if accelerator.is_main_process else None
    if accelerator.num_processes > 1:  # rank 0 decides: another machine may see an older state of shared storage
        path = broadcast_object_list([start.path if start is not None else None])[0]
        if path is not None and start is None:
            start = read_checkpoint(path)
    if start is None and resume == "require":
        raise InputError(f"{folder.path}: --resume needs a checkpoint, and there is none (use --resume=auto to start or continue)")
    if start is not None and resume == "never":
        raise InputError(f"{folder.path}: has a training (step {start.state.step}); continue it with --resume or name another folder")
    return start


def _make_loader(store: Store, training: list[str], config: ResolvedConfig, accelerator: Accelerator, start: Checkpoint | None) -> Loader:
    return make_loader(
        store,
        training,
        accelerator,
        seed=config.run.seed,
        batch_size=config.optim.batch_size,
        resident_gb=config.run.resident_gb,
        tier=start.state.data_tier if start is not None else None,
    )


def _make_network(
    store: Store, config: ResolvedConfig, start: Checkpoint | None, weights: InitialWeights | None, renamed: Mapping[str, str]
) -> tuple[SegmentationNetwork, Lineage | None]:
    """Build the network with its first weights; those of a checkpoint are loaded later."""
    set_seed(config.run.seed)
    network = build_model(config.model, store.spec.in_channels, len(store.classes))
    if weights is None:
        return network, start.state.lineage if start is not None else None
    return network, load_initial_weights(network, weights, store.spec, store.classes, renamed)


def _restore(trainer: Trainer, start: Checkpoint) -> int:
    trainer.network.load_state_dict(start.tensors["model"])
    trainer.average.network.load_state_dict(start.tensors["average"])
    load_optimizer(trainer.optimizer, trainer.network, start.tensors["optimizer"])
    if trainer.accelerator.scaler is not None and start.state.scaler:
        trainer.accelerator.scaler.load_state_dict(start.state.scaler)
    return start.state.step


def _describe_run(folder: RunFolder, trainer: Trainer, first_step: int) -> None:
    write_text(folder.path / "config.toml", trainer.config.to_toml())
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
    write_text(folder.path / "environment.json", json.dumps(facts, indent=1))
    folder.forget_after(first_step)


def _headline(trainer: Trainer, num_training: int, num_held_out: int, first_step: int) -> str:
    model, accelerator, (height, width) = trainer.config.model, trainer.accelerator, trainer.loader.size
    parameters = sum(p.numel() for p in trainer.network.parameters())
    begin = f"resuming at step {first_step}" if first_step else "training"
    return (
        f"{begin}: {model.name} {model.base_width} wide ({parameters:,} parameters) at {height}×{width} on {num_training} cases "
        f"({trainer.loader.num_samples} slices), {num_held_out} left out; {trainer.total_steps} steps of {trainer.batch_size} slices, "
        f"rate {peak_rate(trainer.config.optim):.3g}, {accelerator.device.type} {accelerator.mixed_precision}, "
        f"{accelerator.num_processes} process(es), {trainer.loader.describe()}"
    )


def _validation_interval(trainer: Trainer) -> int:
    epochs = trainer.config.run.validate_every_epochs
    if isinstance(epochs, str):
        return max(1, -(-trainer.total_steps // VALIDATIONS_PER_RUN))
    return max(1, round(epochs * trainer.loader.num_samples / trainer.batch_size))


def _format_dice(dice: dict[str, Any]) -> str:
    organs = ", ".join(f"{name} {value:.3f}" for name, value in dice["per_class"].items() if value is not None)
    return f"{dice['mean'] or 0:.4f} ({organs})"
