"""A command that is met by another while it holds a lock, in a process that has imported PyTorch already."""

import time
from pathlib import Path

import trainings_here

from attunet.launch.cli import cli
from attunet.launch.exit_codes import leave, run_command
from attunet.system import lock


def first_of_two(path: Path, go_on: Path, arguments: list[str]) -> None:
    """Calls a command, which says that it has taken the lock at `path` and then waits for the file `go_on`.

    It beats more often than every 5 seconds, so that nobody has to wait for one.
    """
    trainings_here.shorten()
    lock.BEAT_S = 0.05
    enter = lock.Lock.__enter__

    def enter_and_wait(self: lock.Lock) -> lock.Lock:
        taken = enter(self)
        if self.path == path:
            print("locked", flush=True)
            while not go_on.exists():
                time.sleep(0.02)
        return taken

    lock.Lock.__enter__ = enter_and_wait  # type: ignore[method-assign]
    leave(run_command(cli, "attunet", arguments))
