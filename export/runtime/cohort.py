"""Segmentation of many volumes with one model: reading, network and writing overlap; failed cases are listed."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attunet.confidence.estimate import CaseConfidence
from attunet.decisions import as_findings
from attunet.errors import Finding, InputError, RunError, one_line
from attunet.export.runtime.audit import CaseAudit
from attunet.export.runtime.case_output import CaseOutput, confidence_file, require_own_files
from attunet.export.runtime.confidence import estimator_of, gives_estimates
from attunet.export.runtime.observed_case import ConfidenceOptions, ObservedCase
from attunet.export.runtime.origin import Origin, check_alike, is_finished, origin_of, rules_about
from attunet.io.dicom.organ_codes import Code
from attunet.io.writers import check_labels, write_labels
from attunet.sources.input import Input
from attunet.system.private_folder import remove_abandoned
from attunet.volumes.model import Model, PreparedVolume
from attunet.volumes.predict import MAX_MEGAPIXELS, check_megapixels
from attunet.volumes.training_ranges import check_input
from attunet.volumes.volume import Volume

logger = logging.getLogger(__name__)

AHEAD = 2  # maximum of volumes read ahead of the network, and of label maps that wait to be written; limits the memory
CASE_ERRORS = (InputError, RunError, OSError, MemoryError)


@dataclass(frozen=True)
class Job:
    """A volume to read, and the label map to write at `write`."""

    input: Input
    write: Path
    codes: Mapping[str, Code] | None = None  # a user's codes by class name, for DICOM SEG
    maps: tuple[Path, ...] = ()  # that `also` and `confidence` write beside the label map

    @property
    def seg_codes(self) -> Mapping[str, Code] | None:
        """The codes, where the label map holds them."""
        return self.codes if self.write.suffix.lower() == ".dcm" else None

    @property
    def file(self) -> Path:
        """The volume's file, or its first, for messages."""
        return self.input.files[0]


class ReadCase(NamedTuple):
    """A volume, and the model's input made of it. findings: decisions, and values unlike the training set's."""

    origin: Origin
    volume: Volume
    prepared: PreparedVolume
    findings: list[Finding]


class SegmentedCase(NamedTuple):
    """Class indices uint8 `(X, Y, Z)` of a volume, and what was observed with them."""

    origin: Origin
    indices: np.ndarray
    volume: Volume
    findings: list[Finding]
    observed: ObservedCase
    output: CaseOutput


@dataclass(frozen=True)
class Work:
    """The work on each volume, in three steps that may run in threads of their own."""

    model: Model
    also: Callable[[Volume, PreparedVolume, Path], None] | None = None  # writes maps beside a label map's path
    max_megapixels: int = MAX_MEGAPIXELS  # of a volume on the network's grid
    audit: CaseAudit | None = None
    confidence: ConfidenceOptions = ConfidenceOptions(estimates=False)

    def read(self, job: Job) -> ReadCase:
        """Read a job's volume and prepare the model's input."""
        model = self.model
        origin = origin_of(job.input, model.sha256, job.seg_codes)
        if self.audit is not None:
            self.audit.begin(job.write, origin.scan_sha256)
        check_alike(job.write, origin, self._beside(job))
        require_own_files(job.write, self._beside(job))
        volume = job.input.read(model.spec.num_channels, model.channels)
        origin.check_scan(job.input.files)
        check_megapixels(volume, model.spec, self.max_megapixels)
        check_labels(job.write, model.classes, volume, job.codes)
        prepared = model.prepare(volume)
        findings = check_input(volume, model.ranges, model.spec.orientation)
        origin = replace(origin, rules=rules_about(job.input, volume.decisions))
        return ReadCase(origin, volume, prepared, [*as_findings({None: volume.decisions}), *findings])

    def segment(self, job: Job, case: ReadCase) -> SegmentedCase:
        """Log the findings and run the network."""
        origin, volume, prepared, findings = case
        for finding in findings:
            finding.log(logger, job.file)
        observed = ObservedCase(self.model, estimator_of(self.model), volume, prepared, self.confidence)
        indices = self.model.predict_prepared(prepared, observers=observed.observers)
        with ExitStack() as after_errors:
            output = after_errors.enter_context(CaseOutput(job.write))
            if self.also is not None:
                with output.errors_by_name():
                    self.also(volume, prepared, output.draft)
            after_errors.pop_all()
        return SegmentedCase(origin, indices, volume, findings, observed, output)

    def write(self, job: Job, case: SegmentedCase) -> CaseConfidence | None:
        """Write the label map, estimates and maps, which get their names when all are whole; gives the estimates."""
        estimates = case.observed.confidence(case.indices, case.findings)
        with case.output as output, output.errors_by_name():
            write_labels(output.draft, case.indices, self.model.classes, case.volume, codes=job.codes)
            case.observed.write(output.draft, estimates)
            log = self.audit
            record = log.end(job.write, output.draft, case.findings, estimates) if log is not None else None
            output.publish(case.origin, record)
        return estimates

    def has_finished(self, job: Job) -> bool:
        """True for a job whose label map is there with all that this work writes. Raises InputError as `is_finished`
        does, and where a file beside it is of somebody else.
        """
        records, files = self.audit.records if self.audit is not None else None, self._beside(job)
        is_done = is_finished(job.write, job.input, self.model.sha256, job.seg_codes, files, records)
        if not is_done and not job.input.is_refused:
            require_own_files(job.write, files)
        return is_done

    def _beside(self, job: Job) -> tuple[Path, ...]:
        """The files that this work writes beside the label map."""
        estimates = [confidence_file(job.write)] if gives_estimates(self.model, self.confidence) else []
        return (*job.maps, *estimates)

    def fail(self, job: Job) -> None:
        """Record a job that failed."""
        if self.audit is not None:
            self.audit.end(job.write, None)


@dataclass
class Outcome:
    """Counts of volumes."""

    done: int = 0
    skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)  # file and reason
    minutes: float = 0.0  # from the first read to the last write

    def __str__(self) -> str:
        rate = f" ({self.done / self.minutes:.1f} a minute)" if self.done and self.minutes else ""
        return f"{self.done} segmented{rate}, {self.skipped} finished before, {len(self.failed)} failed"


def predict_cohort(work: Work, jobs: Sequence[Job], *, shard: tuple[int, int] = (0, 1)) -> Outcome:
    """Segment the jobs of one process that are not finished yet; a failed job does not stop the others. Raises
    InputError, before the work, where a label map of another model or scan has the place of one of these.

    shard: (number, count) of this process, which takes every count-th job; all processes get them in the same order.
    """
    number, count = shard
    own = list(jobs)[number::count]
    for folder in {job.write.parent for job in own}:
        remove_abandoned(folder, are_brief=True)
    waiting = deque(job for job in own if not work.has_finished(job))
    outcome, total, start = Outcome(skipped=len(own) - len(waiting)), len(waiting), time.monotonic()
    reads: deque[tuple[Job, Future[ReadCase]]] = deque()
    writes: deque[tuple[Job, Future[CaseConfidence | None]]] = deque()

    def fail(job: Job, error: Exception) -> None:
        text = one_line(error, None)
        reason = text if str(job.file) in text or str(job.write) in text else f"{job.file}: {text}"
        outcome.failed.append((job.file, reason))
        logger.error(reason)
        work.fail(job)

    def wait(left: int) -> None:
        """Wait for the oldest label maps until at most `left` are still being written."""
        while len(writes) > left:
            job, future = writes.popleft()
            try:
                estimates = future.result()
            except CASE_ERRORS as error:
                fail(job, error)
                continue
            outcome.done += 1
            marked = "; review" if estimates is not None and estimates.review else ""
            logger.info(f"{outcome.done + len(outcome.failed)}/{total} {job.write}{marked}")

    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        while waiting or reads:
            while waiting and len(reads) < AHEAD:
                reads.append((waiting[0], reader.submit(work.read, waiting.popleft())))
            job, future = reads.popleft()
            wait(AHEAD - 1)
            try:
                case = work.segment(job, future.result())
            except CASE_ERRORS as error:
                fail(job, error)
                continue
            writes.append((job, writer.submit(work.write, job, case)))
        wait(0)
    outcome.minutes = (time.monotonic() - start) / 60
    return outcome
