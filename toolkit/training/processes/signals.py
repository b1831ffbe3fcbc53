"""SIGTERM and SIGINT: finish the step, write a checkpoint, leave with 128 + signal; a second one leaves at once."""

import os
import signal
import sys
import time
from types import FrameType, TracebackType

ECHO_S = 1.0  # a scheduler signals launcher and training alike, and the launcher passes its signal on: together that is one


class Stopped(SystemExit):
    """The training was stopped by a signal after its state was saved; the exit code is 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class StopSignals:
    """While active, remembers the first stop signal in `received` (0 when there was none)."""

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
            print(f"{name}: saving a checkpoint at the next step; once more to leave at once", file=sys.stderr, flush=True)
