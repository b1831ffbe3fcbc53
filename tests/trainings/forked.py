"""Trainings in processes that are forked from one that has imported what a training needs.

The import is that of PyTorch, of what its optimizers import at their first step, and of matplotlib: several seconds,
which each process would take for itself. PyTorch must not have computed anything before the fork, so they are forked
not from the tests' process but from a server, which begins with the first of them.
"""

import multiprocessing
import os
import random
import resource
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Self

import torch

from attunet.launch.exit_codes import leave, run_command
from attunet.launch.train import train_command

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "torch._dynamo",
        "attunet.plots.curves",
        "attunet.training.loop",
        "attunet.launch.train",
        "attunet.export.serve.server",
    ]
)


class Forked:
    """What `subprocess.Popen` gives, of a function of a module that is called in a forked process."""

    def __init__(self, work: Callable[..., object], *arguments: object) -> None:
        printed, output = SERVER.Pipe(duplex=False)
        # A daemon does not outlive the tests when one of them fails
        self.process = SERVER.Process(target=_with_output, args=(output, work, arguments), daemon=True)
        self.process.start()
        output.close()
        self.stdout = os.fdopen(os.dup(printed.fileno()))
        printed.close()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self.process.join(timeout)
        return self.process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What it prints until its end, errors too; timeout: seconds from the end of its output to its own."""
        printed = self.stdout.read()
        self.wait(timeout)
        return printed, None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkedProgram(Forked):
    """A module and its arguments, as after `python -m`."""

    def __init__(self, words: Sequence[object]) -> None:
        super().__init__(_run_module, [str(word) for word in words])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.wait()


def start_forked(arguments: Sequence[object], file_limit: int | None = None) -> Forked:
    """Start a training in one process.

    Args:
        arguments: of `python -m attunet.launch.train`.
        file_limit: bytes beyond which the system lets no file grow.
    """
    return Forked(_train, [str(argument) for argument in arguments], file_limit)


def _train(arguments: list[str], file_limit: int | None) -> None:
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    leave(run_command(train_command, "python -m attunet.launch.train", arguments))


def _run_module(words: list[str]) -> None:
    sys.argv = words
    sys.modules.pop(words[0], None)  # imported with the server, and run anew
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def _with_output(output: Connection, work: Callable[..., object], arguments: Sequence[object]) -> None:
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    output.close()
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
    torch.set_num_threads(1)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as a terminal starts them: tests under nohup ignore it
    work(*arguments)


def run_ranks(work: Callable[[int], object], world: int, kill_after_s: float | None = None) -> int:
    """Call work(rank) in so many processes, which meet as those of `torchrun` do.

    Returns the exit code of the first that fails, 0 when none does; the others are killed then, as a launcher does.
    kill_after_s: kills one of them by SIGKILL after so many seconds.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = {}
    for rank in range(world):
        child = os.fork()
        if child == 0:
            if world > 1:
                meeting = {
                    "RANK": rank,
                    "LOCAL_RANK": rank,
                    "WORLD_SIZE": world,
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": port,
                }
                os.environ.update({name: str(value) for name, value in meeting.items()})
            _in_child(lambda rank=rank: work(rank))
        children[child] = rank
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        # One that is done is a zombie still and does not mind
        os.kill(random.Random(kill_after_s).choice(list(children)), signal.SIGKILL)
    code = 0
    while children:
        child, status = os.wait()
        del children[child]
        if (ended := os.waitstatus_to_exitcode(status)) != 0:
            code = code or ended
            for other in children:
                with suppress(ProcessLookupError):
                    os.kill(other, signal.SIGKILL)
    return code


def _in_child(work: Callable[[], object]) -> None:
    code = 1
    try:
        work()
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
