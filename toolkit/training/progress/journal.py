"""The progress of a training: lines of the log, metrics.jsonl, a tracker, a progress bar."""

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from tqdm import tqdm

from attunet.metrics.results import MetricTable
from attunet.runs.run_folder import RunFolder
from attunet.training.progress.tracker import Tracker
from attunet.training.trainer import Trainer

logger = logging.getLogger(__name__)


class Journal:
    """Logs the figures of one training's steps, in the main process alone; on a terminal with a progress bar."""

    def __init__(self, folder: RunFolder, trainer: Trainer, first_step: int) -> None:
        config, self._folder, self._main = trainer.config, folder, trainer.accelerator.is_main_process
        self._steps_per_epoch = trainer.loader.num_samples / trainer.batch_size
        self._tracker = Tracker(config, folder.path) if self._main and config.run.tracker != "none" else None
        self._began = time.monotonic()
        self._bar: tqdm[NoReturn] = tqdm(
            total=trainer.total_steps,
            initial=first_step,
            unit="step",
            disable=not (self._main and sys.stderr.isatty()),
            dynamic_ncols=True,
        )

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()
        if self._tracker is not None:
            self._tracker.close()

    def advance(self) -> None:
        self._bar.update()

    def note_plan(self, trainer: Trainer, done: int, *, is_final: bool) -> None:
        """Write the configuration with another number of steps, and log it when it is final, after `done` steps."""
        if not self._main:
            return
        self._folder.write_config(trainer.config)
        self._bar.total = trainer.total_steps
        if is_final:
            self.say(f"{trainer.total_steps} steps fit into {trainer.config.run.minutes:g} minutes")
            self.log("plan", done, steps=float(trainer.total_steps))

    def say(self, text: str, level: int = logging.INFO) -> None:
        """Log a line of progress, or a warning."""
        if self._main:
            with tqdm.external_write_mode(file=sys.stdout):
                logger.log(level, text)

    def log(self, event: str, step: int, *, dice: MetricTable | None = None, **figures: float | None) -> None:
        """Write one line to metrics.jsonl, and its numbers to the tracker and the progress bar; None for a number that
        is not known. event: train, validation, native, checkpoint, plan or speed.
        """
        if not self._main:
            return
        epoch, seconds = round(step / self._steps_per_epoch, 4), round(time.monotonic() - self._began, 3)
        table = {} if dice is None else {"dice": dice}
        self._folder.log(event, step=step, epoch=epoch, seconds=seconds, **figures, **table)
        if self._tracker is not None:
            self._tracker.log(step, _numbers(event, figures, dice) | {"epoch": epoch})
        if event == "train":
            self._bar.set_postfix_str(
                f"loss {figures['loss']:.4f}, {figures['slices_per_s']:.0f} slices/s, {figures['matmul_share']:.0%} of "
                f"matmul, {figures['data_share'] or 0:.1%} waiting"
            )

    def log_picture(self, step: int, path: Path) -> None:
        if self._tracker is not None:
            self._tracker.log_picture(step, path)


def _numbers(event: str, figures: Mapping[str, float | None], dice: MetricTable | None) -> dict[str, float]:
    """Return the numbers of a line by name: `train/loss`, `validation/dice`, `validation/dice/liver`."""
    scores = {name: value for name, value in figures.items() if isinstance(value, float)}
    if dice is not None:
        classes = {f"dice/{name}": value for name, value in dice["per_class"].items()}
        scores |= {name: value for name, value in {"dice": dice["mean"], **classes}.items() if value is not None}
    return {f"{event}/{name}": value for name, value in scores.items()}
