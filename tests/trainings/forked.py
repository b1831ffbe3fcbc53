"""Processes of one training, forked from one that has imported what a training needs.

The import is that of PyTorch, of what its optimizers import at their first step, and of matplotlib: several seconds,
which each process of a launcher would take for itself. PyTorch must not have computed anything before the fork.
"""

import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import torch._dynamo  # noqa: F401

import attunet.plots.curves  # noqa: F401


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
