"""SIGTERM and SIGINT: finish the step, write a checkpoint, leave with 128 + signal; a second one leaves at once."""

import os
import signal
import sys
from types import FrameType, TracebackType


class Stopped(SystemExit):
    """The training was stopped by a signal after its state was saved; the exit code is 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class StopSignals:
    """While active, remembers the first stop signal in `received` (0 when there was none)."""

    def __init__(self) -> None:
        self.received = 0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            os._exit(128 + number)
        self.received = number
        print(
            f"{signal.Signals(number).name}: saving a checkpoint at the next step; once more to leave at once", file=sys.stderr, flush=True
        )
