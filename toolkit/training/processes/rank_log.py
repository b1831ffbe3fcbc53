"""A log file of each process in the run folder: only rank 0 prints, so this shows why another rank failed."""

import os
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from attunet.runs.run_folder import CHECKPOINTS
from attunet.system.atomic_files import name_in_errors
from attunet.system.launcher_variables import launcher_number


class RankLog:
    """The file `logs/rank-N.log` of a run; an error that ends the context adds its traceback, without hidden names."""

    def __init__(self, run_path: Path, rank: int, hide: Callable[[str], str]) -> None:
        self.path, self._hide = run_path / "logs" / f"rank-{rank}.log", hide

    def __enter__(self) -> "RankLog":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        begins = not any((self.path.parents[1] / CHECKPOINTS).glob("step-*"))
        mode = "a"
        if begins and self._hide is not str:  # an earlier start may have written names, with more processes too
            mode, world = "w", launcher_number("WORLD_SIZE", 1, low=1)
            for other in self.path.parent.glob("rank-*.log"):
                if (rank := other.stem.removeprefix("rank-")).isdecimal() and int(rank) >= world:
                    other.unlink(missing_ok=True)  # another process may have done so
        self._file = self.path.open(mode, encoding="utf-8", buffering=1)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            last = "done"
        elif isinstance(error, SystemExit):
            last = f"stopped, exit code {error.code}"
        else:
            last = self._hide("".join(traceback.format_exception(error)).rstrip())
        with suppress(OSError), self._file:  # on a full disk, the error that ended the process matters more
            self.write(last)

    def write(self, text: str) -> None:
        with name_in_errors(self.path):
            self._file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} process {os.getpid()}: {text}\n")
