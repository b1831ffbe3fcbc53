"""The log of progress and warnings as plain lines; programs choose where the lines go."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attunet.system.plain_text import printable_line

LOGGER = logging.getLogger("attunet")


class _Lines(logging.Handler):
    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        self._write(prefix + printable_line(record.getMessage()))


@contextmanager
def forward_log(write: Callable[[str], object]) -> Iterator[None]:
    """Sends every line of the log to `write` while the context is open, without its newline; `warning: ` or `error: `
    stands before lines of these levels.
    """
    handler, level, propagate = _Lines(write), LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False  # the root logger's handlers would print each line a second time
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate
