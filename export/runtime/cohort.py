"""Segmentation of many volumes with one model: reading, network and writing overlap; failed cases are listed."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from attunet.classes import Classes
from attunet.confidence.estimate import CaseConfidence
from attunet.decisions import as_findings
from attunet.errors import Finding, InputError, RunError
from attunet.export.runtime.confidence import estimator_of
from attunet.export.runtime.observed_case import ConfidenceOptions, ObservedCase
from attunet.io.dicom.organ_codes import Code
from attunet.io.writers import check_labels, write_labels
from attunet.sources.inputs import Input
from attunet.volumes.model import Model, PreparedVolume
from attunet.volumes.predict import MAX_MEGAPIXELS, check_megapixels
from attunet.volumes.training_ranges import check_input
from attunet.volumes.volume import Volume

logger = logging.getLogger(__name__)


NO_CONFIDENCE = ConfidenceOptions(estimates=False)
AHEAD = 2  # maximum of volumes read ahead of the network, and of label maps that wait to be written; limits the memory
CASE_ERRORS = (InputError, RunError, OSError, MemoryError)


@dataclass(frozen=True)
class Job:
    """A volume to read, and the label map to write at `write`."""

    input: Input
    write: Path
    codes: Mapping[str, Code] | None = None  # a user's codes by class name, for DICOM SEG

    @property
    def file(self) -> Path:
        """The volume's file, or its first, for messages."""
        return self.input.files[0]


class CaseLog(Protocol):
    """Sees each job begin and end.

    `begin` is called before the job's files are read, `end` with the whole label map before it gets its name, or with
    None if the job failed. So no label map is there that the log has not seen.
    """

    def begin(self, job: Job) -> None: ...

    def end(
        self, job: Job, labels: Path | None, findings: Sequence[Finding] = (), estimates: CaseConfidence | None = None
    ) -> None: ...


@dataclass
class Outcome:
    """Counts of volumes. failed: file and reason; minutes: from the first read to the last write."""

    done: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    minutes: float = 0.0

    def __str__(self) -> str:
        rate = f" ({self.done / self.minutes:.1f} a minute)" if self.done and self.minutes else ""
        return f"{self.done} segmented{rate}, {self.skipped} finished before, {len(self.failed)} failed"


def predict_cohort(
    model: Model,
    jobs: Sequence[Job],
    *,
    shard: tuple[int, int] = (0, 1),
    also: Callable[[Volume, Path], None] | None = None,
    max_megapixels: int = MAX_MEGAPIXELS,
    log: CaseLog | None = None,
    confidence: ConfidenceOptions | None = None,
) -> Outcome:
    """Segment the jobs of one process whose label maps do not exist yet; a failed job does not stop the others.

    Args:
        shard: (number, count) of this process, which takes every count-th job; all processes must get the jobs in the
            same order.
        also: called for each job with its volume and label map's path before the label map is written.
        log: of the jobs.
        confidence: estimates and maps that are written beside each label map, before it.

    Returns:
        The outcome. Label maps are renamed into place when complete, so a call after a kill continues.

    Example:
        >>> jobs = [Job(Path("scan.nii.gz"), Path("labels.nii.gz"))]  # doctest: +SKIP
        >>> predict_cohort(Segmenter("model.onnx"), jobs, shard=(0, 2)).failed  # doctest: +SKIP
    """
    number, count = shard
    own = list(jobs)[number::count]
    waiting = deque(job for job in own if job.input.namesake or not job.write.exists())
    ends, start = _Ends(Outcome(skipped=len(own) - len(waiting)), len(waiting), log), time.monotonic()
    reads: deque[tuple[Job, Future[tuple[Volume, PreparedVolume, list[Finding]]]]] = deque()
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        while waiting or reads:
            while waiting and len(reads) < AHEAD:
                reads.append((waiting[0], reader.submit(read_prepared, waiting.popleft(), model, max_megapixels, log)))
            job, future = reads.popleft()
            try:
                volume, prepared, findings = future.result()
                for finding in findings:
                    finding.log(logger, job.file)
                observed = ObservedCase(model, estimator_of(model), volume, prepared, confidence or NO_CONFIDENCE)
                indices = model.predict_prepared(prepared, observers=observed.observers)
                if also is not None:
                    job.write.parent.mkdir(parents=True, exist_ok=True)
                    also(volume, job.write)
            except CASE_ERRORS as error:
                ends.fail(job, error)
                continue
            ends.wait(AHEAD - 1)
            ends.writes.append(
                (job, writer.submit(write_outputs, job, indices, model.classes, volume, observed, findings, log))
            )
        ends.wait(0)
    ends.outcome.minutes = (time.monotonic() - start) / 60
    return ends.outcome


class _Ends:
    """Label maps that are being written, and the count of written ones. total: number of jobs, for the log."""

    def __init__(self, outcome: Outcome, total: int, log: CaseLog | None) -> None:
        self.outcome, self._total, self._log = outcome, total, log
        self.writes: deque[tuple[Job, Future[CaseConfidence | None]]] = deque()

    def wait(self, left: int) -> None:
        """Wait for the oldest label maps until at most `left` are still being written."""
        while len(self.writes) > left:
            job, future = self.writes.popleft()
            try:
                estimates = future.result()
            except CASE_ERRORS as error:
                self.fail(job, error)
                continue
            self.outcome.done += 1
            marked = "; review" if estimates is not None and estimates.review else ""
            logger.info(f"{self.outcome.done + len(self.outcome.failed)}/{self._total} {job.write}{marked}")

    def fail(self, job: Job, error: Exception) -> None:
        text = " ".join(str(error).split()) or type(error).__name__
        reason = text if str(job.file) in text or str(job.write) in text else f"{job.file}: {text}"
        self.outcome.failed.append((job.file, reason))
        logger.error(reason)
        if self._log is not None:
            self._log.end(job, None)


def read_prepared(
    job: Job, model: Model, max_megapixels: int = MAX_MEGAPIXELS, log: CaseLog | None = None
) -> tuple[Volume, PreparedVolume, list[Finding]]:
    """Read a job's volume and prepare the model's input; findings: decisions, and values unlike the training set's."""
    if log is not None:
        log.begin(job)
    volume = job.input.read(model.spec.num_channels)
    check_megapixels(volume, model.spec, max_megapixels)
    check_labels(job.write, model.classes, volume, job.codes)
    prepared = model.prepare(volume)
    decisions, findings = (
        as_findings({None: volume.decisions}),
        check_input(volume, model.ranges, model.spec.orientation),
    )
    return volume, prepared, [*decisions, *findings]


def write_outputs(
    job: Job,
    indices: np.ndarray,
    classes: Classes,
    volume: Volume,
    observed: ObservedCase,
    findings: Sequence[Finding],
    log: CaseLog | None,
) -> CaseConfidence | None:
    """Write the label map after all other files, because it marks a case as finished; gives the estimates.

    Example:
        >>> write_outputs(job, indices, model.classes, volume, observed, findings, None)  # doctest: +SKIP
    """
    job.write.parent.mkdir(parents=True, exist_ok=True)
    estimates = observed.write(job.write, findings)
    complete = partial(log.end, job, findings=findings, estimates=estimates) if log is not None else None
    write_labels(job.write, indices, classes, volume, codes=job.codes, complete=complete)
    return estimates
