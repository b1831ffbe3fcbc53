"""A function mapped over many cases in their order, in processes if there are many.

concurrent.futures alone would submit all tasks at once and leave workers of a killed parent behind.
"""

import math
import multiprocessing
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from types import ModuleType
from typing import TypeVar

MIN_TASKS_FOR_PROCESSES = 12  # starting a process takes as long as preparing a few cases
AHEAD = 8  # tasks per process that are submitted before the first result is taken, which limits the memory
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of CPU time, and in how many
END_WITH_STDIN = "ATTUNET_END_WITH_STDIN"  # environment variable that a parent sets for a training of its own

_STARTING = threading.RLock()  # over the environment and the place of `__main__` while processes start

Task = TypeVar("Task")
Result = TypeVar("Result")


def over_cases(function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
    """Map a function, importable by name, over tasks; results do not depend on the number of processes.

    Yields:
        The results in the order of the tasks. The first error, in that order, is raised and ends the work.
    """
    workers = min(usable_cores(), len(tasks) // (MIN_TASKS_FOR_PROCESSES // 2))
    if len(tasks) < MIN_TASKS_FOR_PROCESSES or workers < 2:
        yield from map(function, tasks)
        return
    with safe_path():  # a process that tracks resources starts here
        executor = ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
        )
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            with safe_path(), _without_main():
                waiting.append(executor.submit(function, task))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def safe_path() -> Iterator[None]:
    """Start processes of `multiprocessing` that import nothing from the working directory, which may be a stranger's:
    `python -c`, as which they begin, would.
    """
    with _STARTING:
        before = os.environ.get("PYTHONSAFEPATH")
        os.environ["PYTHONSAFEPATH"] = "1"
        try:
            yield
        finally:
            os.environ.pop("PYTHONSAFEPATH")
            if before is not None:
                os.environ["PYTHONSAFEPATH"] = before


@contextmanager
def _without_main() -> Iterator[None]:
    """Start processes without the caller's script, which each of them would run again from its first line."""
    with _STARTING:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def process_start() -> float:
    """The `time.monotonic()` at which this process was started, its imports not yet begun."""
    import psutil

    return time.monotonic() - max(0.0, time.time() - psutil.Process().create_time())


def usable_cores() -> int:
    """CPU cores that this process may use; fewer than the machine's where a scheduler or a container limits it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, CPU_QUOTA.read_text().split())
    except (OSError, ValueError):  # no control group, or "max" for no limit
        return cores
    return min(cores, max(1, math.ceil(quota / period)))


def _end_with_parent() -> None:
    """End this worker when its parent ends: a killed parent cannot stop its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        _end_after(lambda: wait([parent.sentinel]))


def end_with_stdin() -> None:
    """End this process when its standard input ends: a pipe from a parent does, however the parent ends."""
    _end_after(lambda: os.read(0, 1))


def _end_after(blocks: Callable[[], object]) -> None:
    threading.Thread(target=lambda: (blocks(), os._exit(1)), daemon=True).start()
