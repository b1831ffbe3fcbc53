"""Tasks handed out to several processes on one device, until they are done or the time is over."""

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

from attunet.benchmarks.accuracy.arms import Task
from attunet.benchmarks.accuracy.work import Result, Setup, work
from attunet.system.workers import usable_cores

logger = logging.getLogger(__name__)

Context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
END_S = 5  # between SIGTERM and SIGKILL


class Pool:
    """Processes that each do one task at a time; ended when the context is left, whatever they do.

    Args:
        number: of processes.
        setup: of the tasks; the log of each process has its number in its name.
    """

    def __init__(self, number: int, setup: Setup) -> None:
        self._number, self._setup = number, setup
        self._processes: dict[Connection, multiprocessing.process.BaseProcess] = {}
        self.idle: list[Connection] = []
        self.busy: dict[Connection, Task] = {}

    def __enter__(self) -> "Pool":
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // self._number)))
        for index in range(self._number):
            ours, theirs = Context.Pipe()
            own = replace(self._setup, log=self._setup.log / f"process-{index}.log")
            process = Context.Process(target=work, args=(theirs, own))
            process.start()
            theirs.close()
            self._processes[ours] = process
            self.idle.append(ours)
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes.values():
            process.terminate()  # a training writes a checkpoint
        until = time.monotonic() + END_S
        for process in self._processes.values():
            process.join(max(0.0, until - time.monotonic()))
            process.kill()  # must not hold up the end
            process.join()

    def give(self, task: Task) -> None:
        """Let an idle process begin with a task."""
        connection = self.idle.pop()
        connection.send(task)
        self.busy[connection] = task

    def results(self, timeout_s: float) -> Iterator[Result]:
        """Wait for the next results, at most `timeout_s`; a process that died gives one with an error."""
        for ready in wait(list(self.busy), timeout=max(0.0, timeout_s)):
            assert isinstance(ready, Connection)
            task = self.busy.pop(ready)
            try:
                result = ready.recv()
                self.idle.append(ready)
            except (EOFError, OSError):
                result = Result(task, 0.0, error="the process died")
            yield result


def run_tasks(
    tasks: Sequence[Task],
    pool: Pool,
    deadline: float,
    *,
    done: set[Path],
    report: Callable[[Result], None],
    making: Callable[[], bool] = lambda: False,
) -> None:
    """Do tasks in their order, those first whose needs are met.

    Args:
        tasks: in the order of their worth.
        pool: the processes.
        deadline: value of `time.monotonic()` at which to stop.
        done: folders that tasks may need and that are there; grows.
        report: gets each result.
        making: True while a store that tasks need is still made beside the pool.

    Example:
        >>> run_tasks(tasks, pool, time.monotonic() + 3600, done=set(), report=results.append)  # doctest: +SKIP
    """
    waiting, failed = list(tasks), set[Path]()
    while time.monotonic() < deadline:
        still_making = making()
        waiting = [task for task in waiting if not failed.intersection(task.needs)]
        for task in [task for task in waiting if _ready(task, done)][: len(pool.idle)]:
            waiting.remove(task)
            pool.give(task)
        if not pool.busy and (not pool.idle or not still_making):
            if waiting:
                logger.warning(f"{len(waiting)} tasks cannot be done: what they need failed, or every process has died")
            return
        if not pool.busy:
            time.sleep(0.2)
        for result in pool.results(min(1.0, deadline - time.monotonic())):
            (failed if result.error else done).add(result.task.run)
            report(result)


def _ready(task: Task, done: set[Path]) -> bool:
    """True if everything that the task needs is done; a store may also be made by another process."""
    return all(need in done or (need / "splits.json").exists() for need in task.needs)
