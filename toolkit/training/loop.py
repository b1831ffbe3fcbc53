"""One training, from the store to the last checkpoint; the same code in one process and in many."""

import dataclasses
import json
import logging
from collections.abc import Callable
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
from attunet.models import build_model
from attunet.plots.curves import draw_curves
from attunet.runs.checkpoint import Checkpoint, Checkpoints, load_optimizer, newest_checkpoint, read_checkpoint
from attunet.runs.identity import check_same_training, identity
from attunet.runs.load_run import load_initial_weights
from attunet.runs.run_folder import RunFolder, read_metrics
from attunet.store import Store, open_store
from attunet.system.atomic_files import write_text
from attunet.system.environment import environment
from attunet.training.optimization import peak_rate
from attunet.training.processes.peers import Peers
from attunet.training.processes.rank_log import RankLog
from attunet.training.processes.signals import Stopped, StopSignals
from attunet.training.progress.journal import Journal
from attunet.training.resolve_auto import settle
from attunet.training.trainer import Trainee
from attunet.training.validation import validate, validate_native

logger = logging.getLogger(__name__)

Resume = Literal["never", "require", "auto"]
VALIDATIONS_PER_RUN = 10


def train(
    store_path: str | Path,
    run_path: str | Path,
    config: Config,
    *,
    fold: int | Literal["all"],
    resume: Resume = "never",
    init: str | Path | None = None,
) -> None:
    """Trains one network on the cases that `fold` leaves in, and validates on those it leaves out.

    resume: "never" refuses a folder that has a training; "require" continues one and is an error without; "auto" does either.
    init: a run or a checkpoint folder whose weights are the start (fine-tuning).
    Raises InputError for a wrong call, RunError when training fails, Stopped (128 + signal) after SIGTERM or SIGINT.
    """
    store_path, run_path, init = Path(store_path), Path(run_path), Path(init) if init is not None else None
    store = open_store(store_path)
    training, held_out = store.split(fold)
    if not training:
        raise InputError(f"{store_path}: fold {fold} leaves no labelled case to train on")
    accelerator = make_accelerator(config.run)
    main = accelerator.is_main_process
    with ExitStack() as stack:
        peers = stack.enter_context(Peers(config.run.timeout_minutes))
        folder = RunFolder(run_path)
        if main:
            stack.enter_context(folder)
        accelerator.wait_for_everyone()
        start = _find_start(folder, resume, accelerator)
        begun = start.state["config"] if start is not None else None
        config = settle(dataclasses.replace(config, data=store.data_config), store, training, accelerator, begun)
        facts = identity(store, training, held_out, fold, config)
        if start is not None:
            check_same_training(start, facts)
            if start.state["finished"]:
                if main:
                    logger.info(f"{run_path}: this training is finished ({start.state['step']} steps)")
                return
        tier = start.state.get("data_tier", "resident") if start is not None else None
        loader = make_loader(store, training, accelerator, resident_gb=config.run.resident_gb, tier=tier)
        stack.callback(loader.close)
        facts["data_tier"] = loader.tier  # the order of the samples depends on it
        trainee = _make_trainee(store, loader, config, accelerator, None if start else init)
        first_step = _restore(trainee, start) if start is not None else 0
        rank_log = stack.enter_context(RankLog(run_path, accelerator.process_index))
        if main:
            _describe_run(folder, trainee, first_step)
        per_epoch = trainee.loader.num_samples / trainee.batch_size
        journal = stack.enter_context(Journal(folder, config, main=main, steps_per_epoch=per_epoch))
        best = start.state["best"] if start is not None else None
        checkpoints = stack.enter_context(Checkpoints(folder, facts, config.run, main=main, best=best))
        rank_log.write(f"rank {accelerator.process_index} of {accelerator.num_processes} on {accelerator.device}, from step {first_step}")
        journal.say(_headline(trainee, len(training), len(held_out), first_step))
        stop = stack.enter_context(StopSignals())
        _run_steps(trainee, store, held_out, first_step, journal, checkpoints, lambda: peers.largest(stop.received))
        if main:
            draw_curves(run_path / "plots" / "training.png", {run_path.name: read_metrics(run_path)}, title=run_path.name)


def _run_steps(
    trainee: Trainee,
    store: Store,
    held_out: list[str],
    first_step: int,
    journal: Journal,
    checkpoints: Checkpoints,
    signal_received: Callable[[], int],
) -> None:
    """signal_received: the stop signal that any process has got, the same answer in all; 0 without."""
    config, total, accelerator, telemetry = trainee.config, trainee.total_steps, trainee.accelerator, trainee.telemetry
    validate_every = _validation_interval(trainee) if held_out else total + 1
    journal.start_bar(first_step, total)
    telemetry.restart()
    logged_step = first_step
    for done in range(first_step + 1, total + 1):
        trainee.step(done - 1)
        journal.advance()
        if done % config.run.log_every == 0 or done == total:
            losses = trainee.read_losses()  # waits for the device
            speed = telemetry.read((done - logged_step) * trainee.batch_size)
            logged_step = done
            journal.log("train", done, **dataclasses.asdict(losses), **dataclasses.asdict(speed))
        if held_out and (done % validate_every == 0 or done == total):
            result = validate(trainee.average.network, store, held_out, accelerator, config.optim)
            journal.log("validation", done, **result)
            journal.say(f"step {done}/{total}: validation loss {result['loss']:.4f}, Dice {_in_words(result['dice'])}")
            checkpoints.save_if_best(trainee.average.network, done, result["dice"]["mean"])
            telemetry.restart()
            logged_step = done
        if signal := signal_received():
            checkpoints.save(trainee.state, done)
            checkpoints.finish()
            journal.say(f"stopped after step {done} of {total}; the checkpoint is written, continue with --resume")
            raise Stopped(signal)
        if done < total and checkpoints.due(done):
            journal.log("checkpoint", done, **checkpoints.save(trainee.state, done))
    journal.log("speed", total, **dataclasses.asdict(telemetry.overall()))
    journal.say(f"speed: {telemetry.overall().in_words()}")
    if held_out:
        _validate_native(trainee, store, held_out, journal)
    checkpoints.save(trainee.state, total)
    checkpoints.finish()


def _validate_native(trainee: Trainee, store: Store, held_out: list[str], journal: Journal) -> None:
    """The last validation: what a user would get, from the source files on the native grid."""
    try:
        dice = validate_native(trainee.average.network, store, held_out, trainee.accelerator)
    except InputError as error:
        journal.warn(f"no last validation on the native grid: {error}")
        return
    journal.log("native", trainee.total_steps, dice=dice)
    journal.say(f"on the native grid of the {len(held_out)} cases left out: Dice {_in_words(dice)}")


def _find_start(folder: RunFolder, resume: Resume, accelerator: Accelerator) -> Checkpoint | None:
    start = newest_checkpoint(folder.checkpoints) if accelerator.is_main_process else None
    if accelerator.num_processes > 1:  # rank 0 decides: what another machine sees of shared storage may be older
        path = broadcast_object_list([start.path if start is not None else None])[0]
        if path is not None and start is None:
            start = read_checkpoint(path)
    if start is None and resume == "require":
        raise InputError(f"{folder.path}: --resume needs a checkpoint, and there is none (use --resume=auto to start or continue)")
    if start is not None and resume == "never":
        raise InputError(f"{folder.path}: has a training (step {start.state['step']}); continue it with --resume or name another folder")
    return start


def _make_trainee(store: Store, loader: Loader, config: ResolvedConfig, accelerator: Accelerator, init: Path | None) -> Trainee:
    set_seed(config.run.seed)
    num_classes = len(store.classes)
    network = build_model(config.model, store.spec.in_channels, num_classes)
    if init is not None:
        load_initial_weights(network, init)
    return Trainee(network, loader, num_classes, config, accelerator)


def _restore(trainee: Trainee, start: Checkpoint) -> int:
    trainee.network.load_state_dict(start.tensors["model"])
    trainee.average.network.load_state_dict(start.tensors["average"])
    load_optimizer(trainee.optimizer, trainee.network, start.tensors["optimizer"])
    if trainee.accelerator.scaler is not None and start.state["scaler"]:
        trainee.accelerator.scaler.load_state_dict(start.state["scaler"])
    return int(start.state["step"])


def _describe_run(folder: RunFolder, trainee: Trainee, first_step: int) -> None:
    write_text(folder.path / "config.toml", trainee.config.to_toml())
    accelerator, telemetry = trainee.accelerator, trainee.telemetry
    facts = environment() | {
        "num_processes": accelerator.num_processes,
        "mixed_precision": str(accelerator.mixed_precision),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "peak_learning_rate": peak_rate(trainee.config.optim),
        "data_tier": trainee.loader.tier,
        "matmul_flops_per_s": telemetry.matmul_flops_per_s,
        "training_flops_per_slice": telemetry.flops_per_slice,
    }
    write_text(folder.path / "environment.json", json.dumps(facts, indent=1))
    folder.forget_after(first_step)


def _headline(trainee: Trainee, num_training: int, num_held_out: int, first_step: int) -> str:
    model, accelerator, (height, width) = trainee.config.model, trainee.accelerator, trainee.loader.size
    parameters = sum(p.numel() for p in trainee.network.parameters())
    begin = f"resuming at step {first_step}" if first_step else "training"
    return (
        f"{begin}: {model.name} {model.base_width} wide ({parameters:,} parameters) at {height}×{width} on {num_training} cases "
        f"({trainee.loader.num_samples} slices), {num_held_out} left out; {trainee.total_steps} steps of {trainee.batch_size} slices, "
        f"rate {peak_rate(trainee.config.optim):.3g}, {accelerator.device.type} {accelerator.mixed_precision}, "
        f"{accelerator.num_processes} process(es), {trainee.loader.in_words()}"
    )


def _validation_interval(trainee: Trainee) -> int:
    epochs = trainee.config.run.validate_every_epochs
    if isinstance(epochs, str):
        return max(1, -(-trainee.total_steps // VALIDATIONS_PER_RUN))
    return max(1, round(epochs * trainee.loader.num_samples / trainee.batch_size))


def _in_words(dice: dict[str, Any]) -> str:
    organs = ", ".join(f"{name} {value:.3f}" for name, value in dice["per_class"].items() if value is not None)
    return f"{dice['mean'] or 0:.4f} ({organs})"
