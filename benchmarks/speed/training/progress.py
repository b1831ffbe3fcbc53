"""Seconds of the parts of a training's start, kept in a file, so that they remain of a training that is ended."""

import json
import time
from pathlib import Path

from attunet.system.workers import process_start

FILE = "progress.json"


class Progress:
    """The parts that are finished; the first began with the process.

    Args:
        folder: of `FILE`, which is written after every part.
    """

    def __init__(self, folder: Path) -> None:
        self.began = self._last = process_start()
        self.parts_s: dict[str, float] = {}
        self._file = folder / FILE

    def finish(self, part: str) -> None:
        now = time.monotonic()
        self.parts_s[part], self._last = now - self._last, now
        self._file.write_text(json.dumps(self.parts_s), encoding="utf-8")


def read_progress(folder: Path) -> dict[str, float]:
    """The parts that the last training in `folder` finished."""
    file = folder / FILE
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}
