"""A function over many cases: in order, over processes where there are many, each holding one case at a time."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import TypeVar

FEWEST_FOR_PROCESSES = 12  # starting a process takes as long as preparing a few cases
AHEAD = 8  # tasks per process that are handed out before the first result is taken

Task = TypeVar("Task")
Result = TypeVar("Result")


def over_cases(function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
    """The results in the order of the tasks; the first error, in that order, ends the work.

    function: importable by name. Results do not depend on the number of processes.
    """
    workers = min(usable_cores(), len(tasks) // (FEWEST_FOR_PROCESSES // 2))
    if len(tasks) < FEWEST_FOR_PROCESSES or workers < 2:
        yield from map(function, tasks)
        return
    executor = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(executor.submit(function, task))
            if len(waiting) > AHEAD * workers:  # so that memory does not grow with the number of cases
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def usable_cores() -> int:
    """CPU cores that this process may use; fewer than the machine's where a scheduler or a container limits it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers, so they watch it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
