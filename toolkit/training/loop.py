"""One training, from the store to the last checkpoint; the same code in one process and in many."""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, get_args

from accelerate import Accelerator

from attunet.config import Config
from attunet.device.accelerator import make_accelerator
from attunet.errors import InputError
from attunet.metrics.aggregate import describe_dice
from attunet.privacy.pseudonyms import pseudonyms
from attunet.runs.checkpoint import Checkpoints
from attunet.runs.run_folder import RunFolder
from attunet.store import open_store
from attunet.system.stop_signals import Stopped, StopSignals
from attunet.training.processes.heartbeat import Heartbeat
from attunet.training.processes.rank_log import RankLog
from attunet.training.progress.journal import Journal
from attunet.training.resume import Resume
from attunet.training.start import Request, Training, describe_run, headline, open_training
from attunet.training.time_plan import validation_interval
from attunet.training.verification import Verification


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
    pseudonymise: str | Path | None = None,
) -> None:
    """Train one network on the cases outside of `fold`, and validate it on the cases of `fold`.

    Args:
        store_path: the prepared data set.
        run_path: folder of the run.
        config: the configuration; its `[data]` is replaced by the store's.
        fold: the fold to leave out; "all" trains on every labelled case.
        resume: "never" refuses a folder with a training; "require" continues one; "auto" continues or starts.
        init: a run, a checkpoint or a .safetensors file that gives the initial weights; its classes may differ.
        init_classes: class of the store -> name of the same class in `init`, for classes whose names differ.
        began: start of `run.minutes`, as a value of `time.monotonic()`; the time of the call by default.
        pseudonymise: a CSV file outside of the run with the names of cases and patients; the run has their numbers.

    Raises:
        InputError: a wrong call.
        RunError: the training failed.
        Stopped: exit with 128 + signal after SIGTERM, SIGINT or SIGHUP.

    Example:
        >>> config = Config(model=ModelConfig(name="unet"), optim=OptimConfig(epochs=20))  # doctest: +SKIP
        >>> train("store", "runs/unet", config, fold=0)  # doctest: +SKIP
    """
    began = time.monotonic() if began is None else began
    if resume not in get_args(Resume):
        raise InputError(f"resume: must be one of {', '.join(get_args(Resume))}, got {resume!r}")
    with ExitStack() as stack:
        names = stack.enter_context(pseudonyms(pseudonymise, [run_path]))
        request = Request(
            store=open_store(store_path, names),
            folder=RunFolder(Path(run_path)),
            config=config,
            fold=fold,
            resume=resume,
            init=None if init is None else Path(init),
            init_classes=init_classes or {},
            began=began,
            hide=names.hide if names else str,
        )
        _train(request, make_accelerator(config.run), stack)


def _train(request: Request, accelerator: Accelerator, stack: ExitStack) -> None:
    main, folder = accelerator.is_main_process, request.folder
    heartbeat = stack.enter_context(Heartbeat(request.config.run.timeout_minutes))
    if main:
        stack.enter_context(folder)
    accelerator.wait_for_everyone()
    training = open_training(request, accelerator, stack)
    if training is None:
        if main and not _is_drawn(folder):  # killed after its last checkpoint, before the curves were drawn
            folder.draw_curves()
        return
    trainer, first_step = training.trainer, training.state.step
    rank, world = accelerator.process_index, accelerator.num_processes
    rank_log = stack.enter_context(RankLog(folder.path, rank, request.hide))
    if main:
        describe_run(folder, trainer, first_step)
    journal = stack.enter_context(Journal(folder, trainer, first_step))
    checkpoints = stack.enter_context(Checkpoints(folder, training.state, main=main))
    rank_log.write(f"rank {rank} of {world} on {accelerator.device}, from step {first_step}")
    journal.say(headline(training))
    stop = stack.enter_context(StopSignals())
    if training.plan is not None:  # a resumed training must keep the number of steps, whenever it was stopped
        checkpoints.save(trainer.state, 0)
    cases = [*training.cases, *training.validator.cases]
    verification = stack.enter_context(Verification(request.store, cases, accelerator))
    _run_steps(training, journal, checkpoints, verification, lambda: heartbeat.largest(stop.received))
    if main:
        folder.draw_curves()
        journal.log_picture(trainer.total_steps, folder.curves)


def _run_steps(
    training: Training,
    journal: Journal,
    checkpoints: Checkpoints,
    verification: Verification,
    signal_received: Callable[[], int],
) -> None:
    """Train from the first step to the last; `signal_received` gives any process's stop signal, alike in all, or 0."""
    trainer, validator = training.trainer, training.validator
    config, total, telemetry = trainer.config, trainer.total_steps, trainer.telemetry
    validate_every = validation_interval(trainer)
    telemetry.restart()
    done = training.state.step
    while done < total:
        trainer.step(done)
        done += 1
        verification.check()
        journal.advance()
        if done % config.run.log_every == 0 or done == total:
            losses = trainer.read_losses()  # waits for the device
            journal.log("train", done, **dataclasses.asdict(losses), **dataclasses.asdict(telemetry.read()))
        if validator.cases and (done % validate_every == 0 or done == total):
            result = validator.validate(trainer.average.network)
            journal.log("validation", done, loss=result.loss, dice=result.dice)
            journal.say(f"step {done}/{total}: validation loss {result.loss:.4f}, Dice {describe_dice(result.dice)}")
            checkpoints.save_if_best(trainer.average.network, done, result.dice["mean"])
            telemetry.restart()
        plan_is_final = done < total and training.plan is not None and training.plan.correct(done)
        if trainer.total_steps != total or plan_is_final:
            total = trainer.total_steps
            journal.note_plan(trainer, done, is_final=plan_is_final)
            checkpoints.set_config(trainer.config)
        if done < total:
            checkpoints.save_if_snapshot(trainer.average.network, done, total)
        if signal := signal_received():
            checkpoints.save(trainer.state, done)
            checkpoints.finish()
            journal.say(f"stopped after step {done} of {total}; the checkpoint is written, continue with --resume")
            raise Stopped(signal)
        if plan_is_final or (done < total and checkpoints.due(done)):
            journal.log("checkpoint", done, **checkpoints.save(trainer.state, done))
    journal.log("speed", total, **dataclasses.asdict(telemetry.overall()))
    journal.say(f"speed: {telemetry.overall().describe()}")
    if validator.cases:
        _validate_native(training, journal)
    verification.finish()
    checkpoints.save_if_snapshot(trainer.average.network, total, total)
    checkpoints.save(trainer.state, total, finished=True)
    checkpoints.finish()


def _validate_native(training: Training, journal: Journal) -> None:
    trainer, validator = training.trainer, training.validator
    try:
        dice = validator.validate_native(trainer.average.network)
    except InputError as error:
        journal.say(f"no last validation on the native grid: {error}", logging.WARNING)
        return
    journal.log("native", trainer.total_steps, dice=dice)
    journal.say(f"on the native grid of the {len(validator.cases)} cases left out: Dice {describe_dice(dice)}")


def _is_drawn(folder: RunFolder) -> bool:
    picture, metrics = folder.curves, folder.metrics
    return picture.exists() and metrics.exists() and picture.stat().st_mtime >= metrics.stat().st_mtime
