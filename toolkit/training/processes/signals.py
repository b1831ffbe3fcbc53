"""SIGTERM and SIGINT: finish the step, write a checkpoint, exit with 128 + signal; a second signal exits at once."""

import os
import signal
import sys
import time
from types import FrameType, TracebackType

ECHO_S = 1.0  # a scheduler signals launcher and training, and the launcher forwards its signal: both count as one


class Stopped(SystemExit):
    """The training was stopped by a signal after its state was saved; the exit code is 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class StopSignals:
    """Handler of stop signals: while entered, `received` holds the first one (0 before one arrives)."""

    def __init__(self) -> None:
        self.received, self._received_at = 0, 0.0
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
            if time.monotonic() - self._received_at > ECHO_S:
                os._exit(128 + number)
            return
        self.received, self._received_at = number, time.monotonic()
        if os.environ.get("RANK", "0") == "0":
            name = signal.Signals(number).name
            print(
                f"{name}: saving a checkpoint at the next step; once more to leave at once", file=sys.stderr, flush=True
            )
