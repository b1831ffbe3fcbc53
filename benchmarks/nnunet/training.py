"""A training of nnU-Net's that ends after some minutes: its schedule with the epochs that fit."""

import logging
import time
from dataclasses import dataclass
from typing import Any

import torch

from attunet.fields import JsonObject

logger = logging.getLogger(__name__)

STEPS, VALIDATIONS, MAX_EPOCHS = 250, 50, 1000  # of its own schedule
EPOCHS = 50  # of a shortened one, with fewer steps each where those do not fit
REST_SHARE = 0.2  # of the time for what is not a step, at most
FIRST_STEPS = 4  # of the epoch that measures


@dataclass(frozen=True)
class EpochTimes:
    """Seconds of a step, of a validation step and of an epoch's remainder, such as a checkpoint."""

    step: float
    validation: float
    rest: float

    def schedule(self, seconds: float) -> tuple[int, int, int]:
        """Epochs that fit into `seconds`, and the steps and validation steps of each."""

        def epoch(steps: int) -> float:
            return steps * self.step + max(1, steps * VALIDATIONS // STEPS) * self.validation + self.rest

        steps = STEPS
        if EPOCHS * epoch(steps) > seconds:
            wanted = max(1, min(EPOCHS, int(REST_SHARE * seconds / self.rest)))
            of_one = self.step + self.validation * VALIDATIONS / STEPS
            steps = min(STEPS, max(1, int((seconds / wanted - self.rest) / of_one)))
        epochs = max(1, min(MAX_EPOCHS, int(seconds / epoch(steps))))
        return epochs, steps, max(1, steps * VALIDATIONS // STEPS)


def train_for(trainer: Any, minutes: float) -> JsonObject:
    """Trains with the schedule that fits into the minutes, which begin now."""
    began = time.monotonic()
    torch.manual_seed(0)
    trainer.on_train_start()
    times = run_epoch(trainer, FIRST_STEPS, 1)
    left = 60 * minutes - (time.monotonic() - began) - times.rest
    epochs, steps, validations = times.schedule(left)
    trainer.num_epochs = trainer.lr_scheduler.max_steps = epochs + trainer.current_epoch
    logger.info(f"nnU-Net: {epochs} epochs of {steps} steps ({times.step:.2f} s each)")
    while trainer.current_epoch < trainer.num_epochs and time.monotonic() - began < 60 * minutes:
        run_epoch(trainer, steps, validations)
    trainer.on_train_end()
    seconds, done = time.monotonic() - began, trainer.current_epoch - 1
    return {"seconds": seconds, "epochs": done, "planned_epochs": epochs, "steps_per_epoch": steps}


def run_epoch(trainer: Any, steps: int, validations: int) -> EpochTimes:
    """One epoch, as the trainer's own loop runs it; the first step, which may compile, is not in the times."""
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    outputs, marks = [], []
    for _ in range(steps):
        outputs.append(trainer.train_step(next(trainer.dataloader_train)))
        marks.append(time.monotonic())
    trainer.on_train_epoch_end(outputs)
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        began = time.monotonic()
        outputs = [trainer.validation_step(next(trainer.dataloader_val)) for _ in range(validations)]
        ended = time.monotonic()
        trainer.on_validation_epoch_end(outputs)
    trainer.on_epoch_end()
    step = (marks[-1] - marks[0]) / max(1, steps - 1)
    return EpochTimes(step, (ended - began) / validations, time.monotonic() - ended)
