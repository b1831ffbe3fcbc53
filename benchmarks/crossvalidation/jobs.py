"""Parallel trainings, each a process with its own device and threads. When stopped, each writes a checkpoint."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from attunet.system.workers import END_WITH_STDIN, usable_cores


@dataclass(frozen=True)
class Job:
    """One training. arguments: of `python -m attunet.launch.train`; log: file for its output."""

    name: str
    arguments: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class Outcome:
    """Exit code of a job and the last line of its output."""

    job: Job
    code: int
    last_line: str


class Jobs:
    """Runs at most `count` jobs at a time, each with a share of the CPU cores and one GPU."""

    def __init__(self, count: int, devices: Sequence[str]) -> None:
        """Up to `count` jobs at once. devices: GPUs as in CUDA_VISIBLE_DEVICES,
        shared if `count` exceeds their number.
        """
        self.count, self._devices = count, devices
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._lock, self._stopped = threading.Lock(), False

    def run(
        self, jobs: Sequence[Job], *, started: Callable[[Job], object], stop: Callable[[], object]
    ) -> Iterator[Outcome]:
        """Runs jobs and yields their outcomes in the order in which they end.

        Once `stop` returns a true value, no further job starts and the running ones are terminated. All jobs are also
        terminated if the generator is closed or raises.

        Args:
            started: called with each job when it starts.
        """
        slots: SimpleQueue[int] = SimpleQueue()
        for slot in range(self.count):
            slots.put(slot)

        def work(job: Job) -> Outcome | None:
            slot = slots.get()
            try:
                return self._run_one(job, slot, started)
            finally:
                slots.put(slot)

        with ThreadPoolExecutor(self.count) as pool:
            pending: set[Future[Outcome | None]] = {pool.submit(work, job) for job in jobs}
            try:
                while pending:
                    done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                    if stop() and not self._stopped:
                        self._stop()
                    yield from (outcome for future in done if (outcome := future.result()) is not None)
            finally:
                if pending:
                    self._stop()

    def _stop(self) -> None:
        """Terminates every training; each writes a checkpoint first."""
        with self._lock:
            self._stopped = True
            for process in self._running.values():
                process.terminate()

    def _run_one(self, job: Job, slot: int, started: Callable[[Job], object]) -> Outcome | None:
        if self._stopped:
            return None
        try:
            return self._train(job, slot, started)
        except OSError as error:  # a full disk, a file in place of a folder: the other trainings go on
            return Outcome(job, 1, f"{error.filename or job.log}: {error.strerror}")

    def _train(self, job: Job, slot: int, started: Callable[[Job], object]) -> Outcome | None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            with self._lock:
                if self._stopped:
                    return None
                process = subprocess.Popen(
                    [sys.executable, "-m", "attunet.launch.train", *job.arguments],
                    stdin=subprocess.PIPE,  # its end tells the training that this process was killed
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment(slot),
                    start_new_session=True,  # Ctrl-C at the terminal reaches the parent only, which terminates the jobs
                )
                self._running[job.name] = process
            started(job)
            with process:
                code = process.wait()
            with self._lock:
                del self._running[job.name]
        return Outcome(job, code, _last_line(job.log))

    def _environment(self, slot: int) -> dict[str, str]:
        own = dict(os.environ) | {END_WITH_STDIN: "1"}
        own.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // self.count)))
        if self._devices:
            own["CUDA_VISIBLE_DEVICES"] = self._devices[slot % len(self._devices)]
        return own


def visible_gpus() -> list[str]:
    """GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
    import torch

    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return named[:count] if named else [str(index) for index in range(count)]


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "no output"
