"""The number of steps that a training can take in a given time: measured before it starts, corrected while it runs."""

import dataclasses
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save

from attunet.device.accelerator import of_first_process
from attunet.device.memory import synchronize
from attunet.errors import InputError
from attunet.runs.checkpoint import SNAPSHOT_SHARE, host_copy
from attunet.runs.run_folder import RunFolder
from attunet.system.atomic_files import name_in_errors
from attunet.training.optimization import PEAK_SHARE
from attunet.training.trainer import Trainer
from attunet.training.validation import Validator

logger = logging.getLogger(__name__)

MIN_STEPS, MAX_STEPS = 4, 200  # bounds of the number of measured steps
REHEARSAL_SHARE = 0.06  # fraction of the time that the measured steps may take
AIM = 0.98  # fraction of the time that is planned: finishing late is worse than finishing early
VALIDATIONS_PER_RUN = 10
CORRECTION_SHARE = 1 / 5  # of the steps until the plan is final, between two corrections
FINAL_SHARE = 0.02  # of all steps: a correction that has fewer until the plan must be final is the last


@dataclass(frozen=True)
class Costs:
    """Seconds for each part of a training: a step, a validation, the native validation, a checkpoint, the last plot."""

    step: float
    validation: float = 0.0
    native: float = 0.0
    checkpoint: float = 0.0
    plot: float = 0.0

    def of_run(self, steps: int, steps_per_validation: int) -> float:
        """Return the seconds of a whole run, without intermediate checkpoints."""
        validations = math.ceil(steps / steps_per_validation)
        return steps * self.step + validations * self.validation + self.native + self.checkpoint + self.plot


class TimePlan:
    """The number of steps of a training in `run.minutes`, set when the object is made, before the first step.

    The trapezoid has the same learning rate until it falls, whatever the number of steps. Until then, that number is
    corrected by the speed of the later half of the steps so far: machines become slower when they are warm, or when
    others use them. The finished training is bit for bit an ordinary one with the last of these numbers. Other
    schedules keep the first.

    Args:
        began: start of the minutes, as a value of `time.monotonic()`.

    Raises:
        InputError: not even one step fits.
    """

    def __init__(self, trainer: Trainer, validator: Validator, folder: RunFolder, began: float) -> None:
        self._trainer, run = trainer, trainer.config.run
        self._end = began + AIM * 60 * run.minutes
        costs = measure(trainer, validator, folder, AIM * 60 * run.minutes)
        every = None if run.validate_every_epochs == "auto" else validation_interval(trainer)
        checkpoints = int(run.minutes / run.checkpoint_every_minutes) if run.checkpoint_every_minutes else 0
        self.is_final = trainer.config.optim.schedule != "trapezoid"
        left = self._end - time.monotonic()
        checkpoints += not self.is_final  # one when the number of steps is final
        steps = of_first_process(plan_steps(costs, left, steps_per_validation=every, checkpoints=checkpoints))
        trainer.set_total_steps(steps)
        self._costs, self.validate_every = costs, validation_interval(trainer)
        self._warmup = round(trainer.config.optim.warmup_fraction * steps)
        # Snapshots are kept at fractions of the steps: the number must be final before the first of them
        self._share = min(PEAK_SHARE, 1 - SNAPSHOT_SHARE * (run.snapshots - 1))
        self._next = self._next_correction(0)
        self._times = [(0, time.monotonic())]  # steps done, and when, at the start and at each correction
        if not self.is_final and every is None:
            trainer.set_validation_interval(self.validate_every)
        if trainer.accelerator.is_main_process:
            about = "" if self.is_final else "about "
            logger.info(
                f"{run.minutes:g} minutes: {about}{steps} steps ({trainer.config.optim.epochs:.3g} epochs) of "
                f"{costs.step:.3g} s, validations of {costs.validation:.3g} s; measuring took "
                f"{self._times[0][1] - began:.0f} s from the start"
            )

    def correct(self, done: int) -> bool:
        """Correct the trainer's number of steps where it is time to, `done` steps after the start; waits for the
        device then. Returns True when the number has become final.
        """
        if self.is_final or done < self._next:
            return False
        trainer = self._trainer
        synchronize(trainer.accelerator.device)
        trainer.set_total_steps(of_first_process(self._fitting_steps(done)), warmup=self._warmup)
        self._next = self._next_correction(done)
        left = self._share * trainer.total_steps - done
        self.is_final = left < max(1, FINAL_SHARE * trainer.total_steps)
        return self.is_final

    def _fitting_steps(self, done: int) -> int:
        now, every = time.monotonic(), self.validate_every
        before, then = max(one for one in self._times if one[0] <= done / 2)
        self._times.append((done, now))
        validations = done // every - before // every
        per_step = (now - then - validations * self._costs.validation) / (done - before)
        costs = dataclasses.replace(self._costs, step=max(per_step, 1e-9))
        more = 0
        with suppress(InputError):  # there is no time left
            more = plan_steps(costs, self._end - now, steps_per_validation=every, checkpoints=1)
        return max(done + more, math.ceil(done / self._share), self._warmup)

    def _next_correction(self, done: int) -> int:
        last = math.floor(self._share * self._trainer.total_steps)
        return done + max(1, round(CORRECTION_SHARE * (last - done)))


def log_duration(trainer: Trainer, validator: Validator, folder: RunFolder) -> None:
    """Measure a few steps and log the expected duration of the training."""
    costs = measure(trainer, validator, folder, 0.0)
    seconds = costs.of_run(trainer.total_steps, validation_interval(trainer))
    if trainer.accelerator.is_main_process:
        amount = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
        logger.info(f"{trainer.total_steps} steps, chosen by the data, will take about {amount}")


def validation_interval(trainer: Trainer) -> int:
    epochs = trainer.config.run.validate_every_epochs
    if isinstance(epochs, str):
        return max(1, math.ceil(trainer.total_steps / VALIDATIONS_PER_RUN))
    return max(1, round(epochs * trainer.loader.num_samples / trainer.batch_size))


def plan_steps(costs: Costs, seconds: float, *, steps_per_validation: int | None, checkpoints: int) -> int:
    """Return the number of steps that fit into the seconds of a run. Raises InputError where not even one does.

    Args:
        steps_per_validation: None for `VALIDATIONS_PER_RUN` validations in the run.
        checkpoints: that are written during the run, without the last one.
    """
    seconds -= costs.native + costs.plot + (1 + checkpoints) * costs.checkpoint
    seconds -= (VALIDATIONS_PER_RUN if steps_per_validation is None else 1) * costs.validation
    per_step = costs.step + (costs.validation / steps_per_validation if steps_per_validation else 0.0)
    steps = seconds / per_step
    if steps < 1:
        missing = math.ceil((per_step - seconds) / 6) / 10
        raise InputError(
            f"run.minutes: too little time: start, measurement, validation and end take {missing:.1f} minutes more"
        )
    return int(steps)


def measure(trainer: Trainer, validator: Validator, folder: RunFolder, seconds: float) -> Costs:
    """Measure all parts of a training, in a fraction of the seconds that it may take, and leave its state as it was. As
    many bytes as a checkpoint has are written in `folder`.
    """
    with undone(trainer):
        step = _time_steps(trainer, REHEARSAL_SHARE * seconds)
        validation = native = 0.0
        if validator.cases:
            one = dataclasses.replace(validator, cases=validator.cases[:1])
            slices = [validator.store.case(case).num_slices for case in validator.cases]
            share = sum(slices) / slices[0] / min(trainer.accelerator.num_processes, len(slices))
            validation = share * _timed(lambda: one.validate(trainer.average.network))
            with suppress(InputError):  # the source files are gone: the run skips this validation
                native = share * _timed(lambda: one.validate_native(trainer.average.network))
        checkpoint = plot = 0.0
        if trainer.accelerator.is_main_process:
            checkpoint = _timed(lambda: _write_like_a_checkpoint(trainer, folder.checkpoints))
            folder.draw_curves()  # imports matplotlib
            plot = _timed(folder.draw_curves)
            folder.curves.unlink()  # it is of no training: where the time is too little, none follows
    return of_first_process(Costs(step, validation, native, checkpoint, plot))


@contextmanager
def undone(trainer: Trainer) -> Iterator[None]:
    """Undo all steps taken inside the context: weights, statistics, average, moments and sums are restored."""
    networks, scaler = (trainer.network, trainer.average.network), trainer.accelerator.scaler
    kept = [{name: value.clone() for name, value in network.state_dict().items()} for network in networks]
    kept_scaler = dict(scaler.state_dict()) if scaler is not None else {}
    try:
        yield
    finally:
        for network, state in zip(networks, kept, strict=True):
            network.load_state_dict(state)
        if scaler is not None:
            scaler.load_state_dict(kept_scaler)
        trainer.forget_steps()


def _time_steps(trainer: Trainer, seconds: float) -> float:
    """Measure the seconds per step; all processes take the same number of steps."""
    device = trainer.accelerator.device
    warm_steps = trainer.warm_up_steps  # not measured: caches, algorithm choices, compilation, the CUDA graph
    for number in range(warm_steps):
        trainer.step(number % trainer.total_steps)
    synchronize(device)
    began, count, more = time.perf_counter(), 0, True
    while more:
        trainer.step((warm_steps + count) % trainer.total_steps)
        count += 1
        if count % MIN_STEPS == 0:
            synchronize(device)
            more = of_first_process(count < MAX_STEPS and time.perf_counter() - began < seconds)
    return (time.perf_counter() - began) / count


def _write_like_a_checkpoint(trainer: Trainer, folder: Path) -> None:
    with name_in_errors(folder), tempfile.TemporaryFile(dir=folder) as file:  # without a name: a kill leaves nothing
        for tensors in trainer.state().parts.values():
            file.write(save(host_copy(tensors)))


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
