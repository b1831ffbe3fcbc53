"""SIGTERM, SIGINT and SIGHUP: end in order with the exit code 128 + signal; a second signal ends at once."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType, TracebackType
from typing import ClassVar

ECHO_S = 1.0  # a scheduler signals launcher and training, a shell passes on the system's signal: both count as one


class Stopped(SystemExit):
    """The work was stopped by a signal; the exit code is 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class StopSignals:
    """Handler of stop signals: while entered, `received` holds the first one (0 before one arrives)."""

    numbers: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    notice: ClassVar = "saving a checkpoint at the next step"

    def __init__(self) -> None:
        self.received, self._received_at = 0, 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
        is_main = threading.current_thread() is threading.main_thread()  # others cannot handle signals
        for number in self.numbers if is_main else ():
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        for descriptor in self._terminals:
            if not os.isatty(descriptor):  # it was closed: what is printed goes nowhere instead of failing
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        if self.received:
            if time.monotonic() - self._received_at > ECHO_S:
                os._exit(128 + number)
            return
        self.received, self._received_at = number, time.monotonic()
        if os.environ.get("RANK", "0") == "0":
            name = signal.Signals(number).name
            with suppress(OSError, RuntimeError):  # nobody reads it, or this interrupted another line
                print(f"{name}: {self.notice}; once more to leave at once", file=sys.stderr, flush=True)
        self._begin()

    def _begin(self) -> None:
        """Begin to end after the first signal."""


def _handle_as_usual() -> None:
    """Give a forked process the system's own handlers. Python's would not end a worker of a pool that waits for its
    next task: where the signal comes just before the wait, the pool waits for the worker for ever.
    """
    for number in StopSignals.numbers:
        if isinstance(getattr(signal.getsignal(number), "__self__", None), StopSignals):
            signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_handle_as_usual)


class UnwindOnSignals(StopSignals):
    """While entered, SIGTERM and SIGHUP raise Stopped in the main thread, as SIGINT raises KeyboardInterrupt: every
    context manager is left, so that temporary files are removed.
    """

    numbers: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGTERM, signal.SIGHUP)
    notice: ClassVar = "ending"

    def _begin(self) -> None:
        raise Stopped(self.received)
