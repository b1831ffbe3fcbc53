"""What a training tells: lines for people, metrics.jsonl, the tracker, a progress bar. The main process alone tells."""

import logging
import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

from attunet.config import Config
from attunet.runs.run_folder import RunFolder
from attunet.training.progress.tracker import Tracker

logger = logging.getLogger(__name__)


class Journal:
    """Figures of the steps of one training; silent where `main` is false."""

    def __init__(self, folder: RunFolder, config: Config, *, main: bool, steps_per_epoch: float) -> None:
        self._folder, self._main, self._steps_per_epoch = folder, main, steps_per_epoch
        self._tracker = Tracker(config, folder.path) if main else None
        self._began = time.monotonic()
        self._bar: tqdm | None = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._tracker is not None:
            self._tracker.close()

    def start_bar(self, first_step: int, total_steps: int) -> None:
        hidden = not (self._main and sys.stderr.isatty())
        self._bar = tqdm(total=total_steps, initial=first_step, unit="step", disable=hidden, dynamic_ncols=True)

    def advance(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def say(self, text: str) -> None:
        if self._main:
            with tqdm.external_write_mode(file=sys.stdout):
                logger.info(text)

    def warn(self, text: str) -> None:
        if self._main:
            with tqdm.external_write_mode(file=sys.stdout):
                logger.warning(text)

    def log(self, event: str, step: int, **figures: Any) -> None:
        """One line in metrics.jsonl; its numbers go to the tracker and, of a training line, the loss and the rate to the bar."""
        if not self._main:
            return
        epoch = round(step / self._steps_per_epoch, 4)
        self._folder.log(event, step=step, epoch=epoch, seconds=round(time.monotonic() - self._began, 3), **figures)
        if self._tracker is not None:
            numbers = {f"{event}/{name}": value for name, value in figures.items() if isinstance(value, float)}
            if "dice" in figures:
                numbers[f"{event}/dice"] = figures["dice"]["mean"]
            self._tracker.log(step, numbers | {"epoch": epoch})
        if self._bar is not None and event == "train":
            text = f"loss {figures['loss']:.4f}, {figures['slices_per_s']:.0f} slices/s, {figures['matmul_share']:.0%} of matmul"
            self._bar.set_postfix_str(f"{text}, {figures['data_share'] or 0:.1%} waiting")
