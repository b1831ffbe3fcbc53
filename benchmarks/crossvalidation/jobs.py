"""Trainings side by side, each a process of its own with its own device and threads; stopped together, each with a checkpoint."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from attunet.system.workers import usable_cores


@dataclass(frozen=True)
class Job:
    """One training. arguments: what `python -m attunet.launch.train` gets; log: the file that gets its output."""

    name: str
    arguments: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class Outcome:
    """How a job ended; `last_line` is the last thing that it said."""

    job: Job
    code: int
    last_line: str


class Jobs:
    """Runs jobs on `count` slots; each slot has a share of the CPU cores and one of the GPUs."""

    def __init__(self, count: int, devices: Sequence[str]) -> None:
        """devices: the GPUs, as CUDA_VISIBLE_DEVICES names them; slots beyond their number share them."""
        self.count, self._devices = count, devices
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._lock, self._stopped = threading.Lock(), False

    def run(self, jobs: Sequence[Job], *, started: Callable[[Job], object], stop: Callable[[], object]) -> Iterator[Outcome]:
        """Outcomes in the order in which jobs end. Once `stop` says so, no job begins, and those that run are asked to leave.

        So are they when the caller gives up or an exception comes: none outlives this call.
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
        """Every training writes a checkpoint and leaves."""
        with self._lock:
            self._stopped = True
            for process in self._running.values():
                process.terminate()

    def _run_one(self, job: Job, slot: int, started: Callable[[Job], object]) -> Outcome | None:
        if self._stopped:
            return None
        try:
            return self._train(job, slot, started)
        except OSError as error:  # a full disk, a file in the way of a folder: the other trainings go on
            return Outcome(job, 1, f"{error.filename or job.log}: {error.strerror}")

    def _train(self, job: Job, slot: int, started: Callable[[Job], object]) -> Outcome | None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            with self._lock:
                if self._stopped:
                    return None
                process = subprocess.Popen(
                    [sys.executable, "-m", "attunet.launch.train", *job.arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment(slot),
                    start_new_session=True,  # Ctrl-C at the terminal comes to the parent alone, which passes it on
                )
                self._running[job.name] = process
            started(job)
            code = process.wait()
            with self._lock:
                del self._running[job.name]
        return Outcome(job, code, _last_line(job.log))

    def _environment(self, slot: int) -> dict[str, str]:
        own = dict(os.environ)
        own.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // self.count)))
        if self._devices:
            own["CUDA_VISIBLE_DEVICES"] = self._devices[slot % len(self._devices)]
        return own


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return named[:count] if named else [str(index) for index in range(count)]


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "it said nothing"
