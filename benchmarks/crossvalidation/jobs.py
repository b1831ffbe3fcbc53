"""Parallel trainings, each a process with its own device and threads. When stopped, each writes a checkpoint."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from attunet.system.workers import END_WITH_STDIN, usable_cores

POLL_S = 0.2


@dataclass(frozen=True)
class Job:
    name: str
    arguments: tuple[str, ...]  # of `python -m attunet.launch.train`
    log: Path  # file for its output


@dataclass(frozen=True)
class Outcome:
    """Exit code of a job and the last line of its output."""

    job: Job
    code: int
    last_line: str


def run_jobs(
    jobs: Sequence[Job],
    count: int,
    gpus: Sequence[str],
    *,
    started: Callable[[Job], object],
    stop: Callable[[], object],
) -> Iterator[Outcome]:
    """Runs at most `count` jobs at a time and yields their outcomes in the order in which they end.

    Once `stop` returns a true value, no further job starts and the running ones are terminated. All jobs are also
    terminated if the generator is closed or raises.

    Args:
        gpus: as in CUDA_VISIBLE_DEVICES; each job gets one, shared if `count` exceeds their number.
        started: called with each job when it starts.

    Example:
        >>> [outcome.code for outcome in run_jobs(jobs, 2, [], started=print, stop=lambda: False)]  # doctest: +SKIP
    """
    waiting, stopped = deque(jobs), False
    running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}  # by slot
    try:
        while waiting or running:
            if not stopped and stop():
                stopped = True
                waiting.clear()
                _terminate(running.values())
            for slot in [slot for slot in range(count) if slot not in running][: len(waiting)]:
                job = waiting.popleft()
                try:
                    running[slot] = job, _start(job, _environment(slot, count, gpus))
                    started(job)
                except OSError as error:  # a full disk, a file in place of a folder: the other trainings go on
                    yield Outcome(job, 1, f"{error.filename or job.log}: {error.strerror}")
            ended = [slot for slot, (_, process) in running.items() if process.poll() is not None]
            for slot in ended:
                job, process = running.pop(slot)
                with process:
                    yield Outcome(job, process.wait(), _last_line(job.log))
            if running and not ended:
                time.sleep(POLL_S)
    finally:
        _terminate(running.values())
        for _, process in running.values():
            with process:
                process.wait()


def _start(job: Job, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "attunet.launch.train", *job.arguments],
            stdin=subprocess.PIPE,  # its end tells the training that this process was killed
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C at the terminal reaches the parent only, which terminates the jobs
        )


def _terminate(running: Iterable[tuple[Job, "subprocess.Popen[bytes]"]]) -> None:
    for _, process in running:
        process.terminate()


def _environment(slot: int, count: int, gpus: Sequence[str]) -> dict[str, str]:
    own = os.environ | {END_WITH_STDIN: "1"}
    own.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // count)))
    if gpus:
        own["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return own


def visible_gpus() -> list[str]:
    """GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
    import torch

    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return named[:count] if named else [str(index) for index in range(count)]


def predicting_device() -> str:
    """`cuda` where this process may use a GPU, else `cpu`."""
    return "cuda" if visible_gpus() else "cpu"


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else f"{log}: has no output; is the disk full?"
