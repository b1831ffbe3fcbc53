"""Many volumes through one model: reading, the network and writing overlap; finished cases are skipped and broken ones survived."""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from attunet.classes import Classes
from attunet.errors import Finding, InputError, RunError
from attunet.export.runtime.cpu import usable_cpus
from attunet.io.writers import write_labels
from attunet.sources.inputs import Input
from attunet.volumes.slices import Prepared, preprocess
from attunet.volumes.spec import PreprocessSpec
from attunet.volumes.training_ranges import TrainingRanges, check_input
from attunet.volumes.volume import Volume

AHEAD = 2  # volumes read before the network wants them, and written after it is done: what bounds the memory
CASE_ERRORS = (InputError, RunError, OSError, MemoryError)

Report = Callable[[str], object]


class Model(Protocol):
    """What a cohort needs of a model; `attunet.export.runtime.segmenter.Segmenter` is one."""

    @property
    def spec(self) -> PreprocessSpec: ...

    @property
    def classes(self) -> Classes: ...

    @property
    def ranges(self) -> TrainingRanges | None: ...

    def predict_prepared(self, prepared: Prepared) -> np.ndarray:
        """Class indices uint8 (X, Y, Z) on the volume's own grid."""


@dataclass(frozen=True)
class Job:
    """A volume to read and the label map to write."""

    input: Input
    write: Path

    @property
    def file(self) -> Path:
        """The volume's file, or its first, for messages."""
        return self.input.files[0]


@dataclass
class Outcome:
    """failed: the file and the reason. minutes: from the first read to the last write."""

    done: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    minutes: float = 0.0

    def __str__(self) -> str:
        rate = f" ({self.done / self.minutes:.1f} a minute)" if self.done and self.minutes else ""
        return f"{self.done} segmented{rate}, {self.skipped} finished before, {len(self.failed)} failed"


def shard_of(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """This process's number and how many share the work, from `accelerate launch`, a SLURM array or SLURM tasks; (0, 1) alone."""
    for number, count, first in (
        ("RANK", "WORLD_SIZE", None),
        ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
        ("SLURM_PROCID", "SLURM_NTASKS", None),
    ):
        if number not in environment or count not in environment:
            continue
        try:
            index, total = int(environment[number]) - int(environment.get(first, 0) if first else 0), int(environment[count])
        except ValueError:
            raise InputError(f"{number}, {count}: must be integers, got {environment[number]!r} and {environment[count]!r}") from None
        step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1")) if first else 1
        index //= max(step, 1)
        if not 0 <= index < total:
            raise InputError(f"{number}: must be below {count}, got {index} of {total}")
        return index, total
    return 0, 1


def local_gpu(environment: Mapping[str, str] = os.environ) -> int:
    """The GPU of this process: `accelerate launch` numbers the processes of a machine, and all of them see all of its GPUs."""
    rank = environment.get("LOCAL_RANK", "0")
    if not rank.isdecimal():
        raise InputError(f"LOCAL_RANK: must be an integer of at least 0, got {rank!r}")
    return int(rank)


def local_threads(environment: Mapping[str, str] = os.environ) -> int | None:
    """CPU threads of this process where `accelerate launch` started several on one machine: its share. None: the library's own choice."""
    count = environment.get("LOCAL_WORLD_SIZE", "1")
    if not count.isdecimal() or int(count) < 1:
        raise InputError(f"LOCAL_WORLD_SIZE: must be an integer of at least 1, got {count!r}")
    return None if int(count) == 1 else max(1, usable_cpus() // int(count))


def predict_cohort(
    model: Model,
    jobs: Sequence[Job],
    *,
    shard: tuple[int, int] = (0, 1),
    also: Callable[[Volume, Prepared, Path], None] | None = None,
    report: Report = print,
) -> Outcome:
    """Segments every job of this shard whose label map is not there yet; a case that fails is kept in the outcome and does not stop others.

    shard: (number, count); of the jobs, which all processes must get in the same order, every count-th belongs to this one.
    also: called for each case with the volume, its prepared form and the label map's path, before that is written (attention maps, say).
    A label map appears when it is whole, so that a run which was killed goes on where it was.
    """
    number, count = shard
    mine = list(jobs)[number::count]
    waiting = deque(job for job in mine if not job.write.exists())
    outcome = Outcome(skipped=len(mine) - len(waiting))
    total, start = len(waiting), time.monotonic()
    reads: deque[tuple[Job, Future[tuple[Volume, Prepared, list[Finding]]]]] = deque()
    writes: deque[tuple[Job, Future[None]]] = deque()

    def finish_write() -> None:
        job, future = writes.popleft()
        try:
            future.result()
        except CASE_ERRORS as error:
            _fail(outcome, job, error, report)
        else:
            outcome.done += 1
            report(f"{outcome.done + len(outcome.failed)}/{total} {job.write}")

    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        while waiting or reads:
            while waiting and len(reads) < AHEAD:
                reads.append((waiting[0], reader.submit(read_prepared, waiting.popleft(), model)))
            job, future = reads.popleft()
            try:
                volume, prepared, findings = future.result()
                for finding in findings:
                    report(f"{finding.level}: {job.file}: {finding.text} [{finding.rule}]")
                indices = model.predict_prepared(prepared)
                if also is not None:
                    job.write.parent.mkdir(parents=True, exist_ok=True)
                    also(volume, prepared, job.write)
            except CASE_ERRORS as error:
                _fail(outcome, job, error, report)
                continue
            if len(writes) >= AHEAD:
                finish_write()
            writes.append((job, writer.submit(_write, job, indices, model.classes, volume)))
        while writes:
            finish_write()
    outcome.minutes = (time.monotonic() - start) / 60
    return outcome


def read_prepared(job: Job, model: Model) -> tuple[Volume, Prepared, list[Finding]]:
    """A job's volume, as the network takes it, and in what it is far outside the training."""
    volume = job.input.read(model.spec.num_channels)
    prepared = preprocess(volume, model.spec)
    return volume, prepared, check_input(volume, model.ranges, model.spec.orientation)


def _write(job: Job, indices: np.ndarray, classes: Classes, volume: Volume) -> None:
    job.write.parent.mkdir(parents=True, exist_ok=True)
    write_labels(job.write, indices, classes, volume)


def _fail(outcome: Outcome, job: Job, error: Exception, report: Report) -> None:
    text = " ".join(str(error).split()) or type(error).__name__
    reason = text if str(job.file) in text or str(job.write) in text else f"{job.file}: {text}"
    outcome.failed.append((job.file, reason))
    report(f"error: {reason}")
