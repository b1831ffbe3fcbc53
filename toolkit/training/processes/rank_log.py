"""Each process's own log in the run folder: where it is, and what ended it. Rank 0 alone prints; this is for when another one fails."""

import os
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from attunet.system.atomic_files import name_in_errors


class RankLog:
    """`logs/rank-N.log` of a run, appended to. A process that ends with an error leaves the traceback there."""

    def __init__(self, run_path: Path, rank: int) -> None:
        self.path = run_path / "logs" / f"rank-{rank}.log"

    def __enter__(self) -> "RankLog":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8", buffering=1)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            last = "done"
        elif isinstance(error, SystemExit):
            last = f"stopped, exit code {error.code}"
        else:
            last = "".join(traceback.format_exception(error)).rstrip()
        with suppress(OSError), self._file:  # where the disk is full, that is what is to be told, and not that this file says nothing
            self.write(last)

    def write(self, text: str) -> None:
        with name_in_errors(self.path):
            self._file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} process {os.getpid()}: {text}\n")
