"""The progress of a training: lines of the log, metrics.jsonl, a tracker, a progress bar."""

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from tqdm import tqdm

from attunet.config import Config
from attunet.metrics.results import MetricTable
from attunet.runs.run_folder import RunFolder
from attunet.training.progress.tracker import Tracker

logger = logging.getLogger(__name__)


class Journal:
    """Logs the figures of one training's steps.

    Args:
        folder: folder of the run.
        config: the configuration of the training, with the name of the tracker.
        main: False in all processes but the first; they log nothing.
        steps_per_epoch: steps of an epoch, for the epoch in each line.
    """

    def __init__(self, folder: RunFolder, config: Config, *, main: bool, steps_per_epoch: float) -> None:
        self._folder, self._main, self._steps_per_epoch = folder, main, steps_per_epoch
        self._tracker = Tracker(config, folder.path) if main and config.run.tracker != "none" else None
        self._began = time.monotonic()
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._tracker is not None:
            self._tracker.close()

    def start_bar(self, first_step: int, total_steps: int) -> None:
        """Show a progress bar if the output is a terminal."""
        hidden = not (self._main and sys.stderr.isatty())
        self._bar = tqdm(total=total_steps, initial=first_step, unit="step", disable=hidden, dynamic_ncols=True)

    def advance(self) -> None:
        """Move the progress bar by one step."""
        if self._bar is not None:
            self._bar.update()

    def say(self, text: str, level: int = logging.INFO) -> None:
        """Log a line of progress, or a warning."""
        if self._main:
            with tqdm.external_write_mode(file=sys.stdout):
                logger.log(level, text)

    def log(self, event: str, step: int, *, dice: MetricTable | None = None, **figures: float | None) -> None:
        """Write one line to metrics.jsonl, and its numbers to the tracker and the progress bar.

        Args:
            event: kind of the line: train, validation, native, checkpoint or speed.
            step: steps done.
            dice: result of a validation; None for other events.
            figures: numbers by name; None for a number that is not known.
        """
        if not self._main:
            return
        epoch, seconds = round(step / self._steps_per_epoch, 4), round(time.monotonic() - self._began, 3)
        table = {} if dice is None else {"dice": dice}
        self._folder.log(event, step=step, epoch=epoch, seconds=seconds, **figures, **table)
        if self._tracker is not None:
            self._tracker.log(step, _numbers(event, figures, dice) | {"epoch": epoch})
        if self._bar is not None and event == "train":
            self._bar.set_postfix_str(
                f"loss {figures['loss']:.4f}, {figures['slices_per_s']:.0f} slices/s, {figures['matmul_share']:.0%} of "
                f"matmul, {figures['data_share'] or 0:.1%} waiting"
            )

    def log_picture(self, step: int, path: Path) -> None:
        """Send a PNG file to the tracker."""
        if self._tracker is not None:
            self._tracker.log_picture(step, path)


def _numbers(event: str, figures: Mapping[str, float | None], dice: MetricTable | None) -> dict[str, float]:
    """Return the numbers of a line by name: `train/loss`, `validation/dice`, `validation/dice/liver`."""
    scores = {name: value for name, value in figures.items() if isinstance(value, float)}
    if dice is not None:
        classes = {f"dice/{name}": value for name, value in dice["per_class"].items()}
        scores |= {name: value for name, value in {"dice": dice["mean"], **classes}.items() if value is not None}
    return {f"{event}/{name}": value for name, value in scores.items()}
