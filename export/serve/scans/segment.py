"""One scan through one model, as `attunet predict` does it, and its answer."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from attunet.confidence.estimate import CaseConfidence
from attunet.decisions import Decision
from attunet.errors import Finding, InputError, one_line
from attunet.export.runtime.audit import Audit
from attunet.export.runtime.input_checks import check_window
from attunet.export.runtime.observed_case import ObservedCase
from attunet.export.runtime.origin import hash_of_files
from attunet.export.serve.formats import ENDINGS, MEDIA_TYPES, SUMMARY
from attunet.export.serve.refusal import UNAVAILABLE, Refusal
from attunet.export.serve.scans.needs import check_header, check_volume
from attunet.export.serve.scans.scan import open_scan
from attunet.export.serve.scans.upload import Upload
from attunet.export.serve.settings import Settings
from attunet.export.serve.work.queue import Ticket
from attunet.export.serve.work.served_model import ServedModel
from attunet.io.writers import check_labels, suffixes_for, write_labels
from attunet.sources.input import Input
from attunet.system.deadline import ended_by
from attunet.volumes.model import PreparedVolume
from attunet.volumes.oriented_volume import OrientedVolume
from attunet.volumes.predict import Observer, predict_prepared
from attunet.volumes.training_ranges import check_input
from attunet.volumes.volume import Volume, class_amounts

logger = logging.getLogger(__name__)

# What the audit log keeps of an answer: its SHA-256, findings and estimates
AnswerFacts = tuple[str, Sequence[Finding], CaseConfidence | None]


@dataclass(frozen=True)
class Answer:
    """The result for a scan."""

    content: bytes  # the label map's file; nothing for a summary
    media_type: str
    sha256: str  # of the label map's file, or of the class indices in memory
    unit: str  # ml or voxels
    amounts: dict[str, float]  # of every foreground class in it
    findings: tuple[Finding, ...]
    decisions: tuple[Decision, ...]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    confidence: CaseConfidence | None = None  # None where the artefact has no estimator

    @property
    def facts(self) -> AnswerFacts:
        return self.sha256, self.findings, self.confidence

    def headers(self, model: ServedModel) -> dict[str, str]:
        """Amounts, findings, decisions and estimates of Dice as JSON in ASCII."""
        headers = {
            "X-Attunet-Model-SHA256": model.segmenter.sha256,
            "X-Attunet-Volumes": json.dumps({"unit": self.unit, "volumes": self.amounts}),
            "X-Attunet-Findings": json.dumps([_finding_json(finding) for finding in self.findings]),
        }
        if self.decisions:
            headers["X-Attunet-Decisions"] = json.dumps(self._decisions())
        if self.confidence is not None:  # in short: proxies refuse headers of more than some kilobytes
            headers["X-Attunet-Confidence"] = json.dumps(self.confidence.in_short())
        return headers

    def summary(self, model: ServedModel, seconds: Mapping[str, float]) -> dict[str, object]:
        """Everything but the label map as JSON values."""
        return {
            "model": model.name,
            "sha256": model.segmenter.sha256,
            "shape": list(self.shape),
            "spacing": list(self.spacing),
            "unit": self.unit,
            "volumes": self.amounts,
            "findings": [_finding_json(finding) for finding in self.findings],
            "confidence": self.confidence and self.confidence.to_json(),
            "decisions": self._decisions(),
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
        }

    def _decisions(self) -> list[dict[str, str]]:
        return [{"rule": decision.rule, "text": decision.text} for decision in self.decisions]


def ending_for(accept: str) -> str:
    """The label map's ending by an Accept header, "" for the scan's own, or `SUMMARY`; Refusal with 406 for others."""
    accepted = [part.partition(";")[0].strip().lower() for part in accept.split(",") if part.strip()] or ["*/*"]
    for media_type in accepted:
        if media_type in ENDINGS:
            return ENDINGS[media_type]
    raise Refusal(406, f"Accept: must be one of {', '.join(ENDINGS)}, got {accept[:200]!r}")


Result = TypeVar("Result")


def recorded(
    audit: Audit | None, files: Sequence[Path], work: Callable[[], Result], facts: Callable[[Result], AnswerFacts]
) -> Result:
    """The answer of `work`, which may fail and rename the files, with a record in the audit log."""
    if audit is None:
        return work()
    received = hash_of_files(files)
    try:
        answer = work()
    except Exception:
        with _kept():
            audit.record(received, None)
        raise
    with _kept():
        audit.record(received, *facts(answer))
    return answer


@contextmanager
def _kept() -> Iterator[None]:
    """The server's own trouble with its audit log is not the scan's, nor is the log's path for clients."""
    try:
        yield
    except (InputError, OSError) as error:
        logger.error(f"audit log: {one_line(error)}")
        raise Refusal(
            UNAVAILABLE, "the server cannot write its audit log, and answers nothing without a record", retry_after=30
        ) from None


def segment(model: ServedModel, upload: Upload, ending: str, ticket: Ticket, settings: Settings) -> Answer:
    """Segment the scan in an upload, below its folder; `ending` is that of `ending_for`. Raises InputError in the words
    of `attunet predict`, TooLarge, Refusal with 406 for a format that is not the scan's, and Stopped.

    Example:
        >>> segment(model, upload, ".nii.gz", ticket, Settings()).amounts  # doctest: +SKIP
    """
    segmenter, folder = model.segmenter, upload.folder
    try:
        with ticket.stage("read"), ended_by(ticket.check):
            ticket.check()
            scan = open_scan(upload.files, folder, settings)
            suffix = _suffix(suffixes_for(scan.files), ending)
            volume, prepared = _read(scan, model, settings)
            check_labels(folder / f"labels{suffix}", segmenter.classes, volume)
            findings = tuple(check_input(volume, segmenter.ranges, segmenter.spec.orientation))
        with ticket.stage("network"):
            observed = ObservedCase(segmenter, segmenter.estimator, volume, prepared)
            indices = _indices(model, prepared, ticket, observed.observers)
        with ticket.stage("write"), ended_by(ticket.check):
            ticket.check()
            content = b""
            if ending != SUMMARY:
                write_labels(folder / f"labels{suffix}", indices, segmenter.classes, volume)
                content = (folder / f"labels{suffix}").read_bytes()
    except InputError as error:
        raise type(error)(one_line(error, None).replace(f"{folder}/", "")) from None
    unit, amounts = class_amounts(indices, segmenter.classes.foreground, volume)
    return Answer(
        content=content,
        media_type=MEDIA_TYPES.get(suffix, "application/octet-stream"),
        sha256=hashlib.sha256(content or np.ascontiguousarray(indices).tobytes()).hexdigest(),
        unit=unit,
        amounts={name: amount if unit == "voxels" else float(f"{amount:.6g}") for name, amount in amounts.items()},
        findings=findings,
        decisions=volume.decisions,
        shape=volume.shape,
        spacing=volume.spacing,
        confidence=observed.confidence(indices, findings),
    )


def _indices(model: ServedModel, prepared: PreparedVolume, ticket: Ticket, observers: Sequence[Observer]) -> np.ndarray:
    segmenter = model.segmenter
    if isinstance(prepared, OrientedVolume):
        with ticket.stopping(), model.turns:
            return segmenter.predict_prepared(prepared, stop=ticket.stop)

    check_window(model.name, segmenter.metadata, prepared.grid.window)

    def network(slices: np.ndarray) -> np.ndarray:
        ticket.check()  # between two batches
        logits = model.observed(slices)
        if not np.isfinite(logits).all():
            raise InputError("scan: the network's answer is not finite for these intensities")
        return logits

    return predict_prepared(
        network,
        prepared,
        postprocessing=segmenter.postprocessing,
        observers=observers,
        num_classes=len(segmenter.classes),
    )


def _suffix(known: Sequence[str], ending: str) -> str:
    """The label map's ending; `known` are those that the scan's can have, the usual one first."""
    if ending in ("", SUMMARY):
        return known[0]
    if ending not in known:
        possible = " or ".join(dict.fromkeys(known))
        raise Refusal(406, f"Accept: the label map of this scan can be {possible}, not {ending}")
    return ending


def _read(scan: Input, model: ServedModel, settings: Settings) -> tuple[Volume, PreparedVolume]:
    segmenter = model.segmenter
    check_header(scan.files, segmenter.metadata, settings)
    volume = scan.read(segmenter.spec.num_channels, segmenter.channels)
    check_volume(volume, segmenter.metadata, settings)
    return volume, segmenter.prepare(volume, lazily=True)


def _finding_json(finding: Finding) -> dict[str, object]:
    return {"rule": finding.rule, "level": finding.level, "text": finding.text, "figure": finding.figure}
