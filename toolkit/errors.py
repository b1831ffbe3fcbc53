"""Errors that users see as one line, and findings about a data set. Other exceptions are bugs with a traceback."""

import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal


class InputError(ValueError):
    """The input or the call is wrong: one line with what, where, the rule and the value. Exit code 2."""


class TooLarge(InputError):
    """The input announces more than is accepted, seen before memory or time was spent on it."""


class RunError(RuntimeError):
    """The work itself failed (a loss that is not finite, a full disk, a provider that died). Exit code 1."""


class DiskError(RunError):
    """A file, which the message names, could not be written: the disk is full or fails."""


class TooLittleMemory(RunError, MemoryError):
    """There was too little memory to read a file, which the message names."""


def one_line(error: Exception, max_length: int | None = 300) -> str:
    """An exception's text without Python's names of objects; its type if it has none. max_length: None for errors of
    our own, which are as long as they need.
    """
    # <_io.BufferedReader name='a.png'>
    text = re.sub(r"<[^<>]*(?: object at 0x[0-9a-fA-F]+| name=)[^<>]*>", "the file", str(error))
    return " ".join(text.split())[:max_length] or type(error).__name__


class NotFinite(RunError):
    """A step's loss or gradient was not finite; the message names the step and its slices."""


@dataclass(frozen=True)
class Finding:
    """A warning, an error or a decision about data. case: None for the whole data set. text: one line for a person."""

    case: str | None
    rule: str
    figure: float
    level: Literal["decided", "warning", "error"]
    text: str

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    def describe(self, file: str | Path | None = None) -> str:
        """One line without the level; `file` replaces the case if the finding is about one file."""
        subject = file or self.case
        return f"{f'{subject}: ' if subject else ''}{self.text} [{self.rule}]"

    def line(self) -> str:
        return f"{self.level}: {self.describe()}"

    def log(self, logger: logging.Logger, file: str | Path | None = None) -> None:
        """Sends the line to a log at the finding's own level."""
        if self.level == "decided":
            logger.info(f"decided: {self.describe(file)}")
        else:
            logger.log(logging.WARNING if self.level == "warning" else logging.ERROR, self.describe(file))
