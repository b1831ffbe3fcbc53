"""Estimates of Dice and the map of uncertainty of predicted cases, and the files that they are written to."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

from attunet.confidence.estimate import CaseConfidence
from attunet.confidence.estimator import Estimator
from attunet.confidence.features import FeatureObserver, training_distance
from attunet.confidence.uncertainty import UncertaintyMap
from attunet.errors import Finding, InputError
from attunet.export.runtime.segmenter import Segmenter
from attunet.fields import read_json
from attunet.io.readers import stem_of
from attunet.io.writers import write_map
from attunet.system.atomic_files import write_text
from attunet.system.plain_text import spreadsheet_cell
from attunet.volumes.model import Model, PreparedVolume
from attunet.volumes.oriented_volume import OrientedVolume
from attunet.volumes.predict import Observer
from attunet.volumes.volume import Volume

SCHEMA = 1
NEEDS_FIT = (
    "was exported without an estimator of Dice: train a cross-validation with `attunet crossvalidate STORE DIR`, and export the model "
    "with `attunet export RUN OUT.onnx --confidence DIR`"
)


class OrganRecord(TypedDict):
    """Estimated Dice of an organ with its range, null where there is none."""

    dice: float | None
    low: float | None
    high: float | None


class CaseRecord(TypedDict):
    """The file beside a label map, as far as the tables need it."""

    review: bool
    reasons: list[str]
    organs: dict[str, OrganRecord]


NO_ESTIMATE: OrganRecord = {"dice": None, "low": None, "high": None}


@dataclass(frozen=True)
class ConfidenceOptions:
    """Estimates and maps that are wanted.

    Args:
        estimates: of Dice, where the model can give them.
        uncertainty: the map.
        threshold: of Dice, below which organs are marked, in place of the learned one.
    """

    estimates: bool = True
    uncertainty: bool = False
    threshold: float | None = None


class ObservedCase:
    """One prediction under observation: `observers` go to `predict_prepared`, then `confidence` and `write` give what they saw.

    Args:
        model: that predicts.
        volume: the scan, on its own grid.
        prepared: the model's input made of it.
        options: the wanted estimates and maps.
    """

    def __init__(self, model: Model, volume: Volume, prepared: PreparedVolume, options: ConfidenceOptions) -> None:
        self._model, self._volume, self._options = model, volume, options
        self._estimator = estimator_of(model) if options.estimates else None
        self._features: FeatureObserver | None = None
        self._map: UncertaintyMap | None = None
        if isinstance(prepared, OrientedVolume):
            return  # the graph gives labels alone
        if self._estimator is not None:
            self._features = FeatureObserver(prepared.grid, len(model.classes))
        if options.uncertainty:
            self._map = UncertaintyMap(prepared.grid, len(model.classes), temperature_of(model))

    @property
    def observers(self) -> list[Observer]:
        return [observer for observer in (self._features, self._map) if observer is not None]

    def confidence(self, findings: Sequence[Finding]) -> CaseConfidence | None:
        """The estimates after the prediction; None without an estimator. findings: about the scan."""
        if self._features is None or self._estimator is None:
            return None
        distance = training_distance(self._volume, self._model.ranges, self._model.spec.orientation)
        features = self._features.features(distance)
        return self._estimator.estimate(features, self._model.classes.foreground, findings, threshold=self._options.threshold)

    def write(self, labels: Path, findings: Sequence[Finding]) -> CaseConfidence | None:
        """Writes the estimates and the map beside the label map, which is not written yet, and returns the estimates."""
        confidence = self.confidence(findings)
        labels.parent.mkdir(parents=True, exist_ok=True)
        if confidence is not None:
            write_text(confidence_file(labels), json.dumps(confidence.to_json(), indent=1, allow_nan=False) + "\n")
        if self._map is not None:
            write_map(labels.with_name(f"{stem_of(labels)}-uncertainty.nii.gz"), self._map.volume(), self._volume)
        return confidence


def estimator_of(model: Model) -> Estimator | None:
    """The estimator that an artefact carries; runs have none."""
    return model.estimator if isinstance(model, Segmenter) else None


def temperature_of(model: Model) -> float:
    """The temperature of the model's probabilities, 1 without calibration."""
    estimator = estimator_of(model)
    return estimator.temperature if estimator else 1.0


def check_confidence(model: Model, path: Path, options: ConfidenceOptions, *, required: bool) -> None:
    """Raises InputError for a model that cannot give what is wanted, with the command that makes one that can.

    required: an error if there is no estimator.
    """
    is_whole = isinstance(model, Segmenter) and model.metadata.whole
    if is_whole and (options.uncertainty or required):
        raise InputError(f"{path}: is a whole artefact, which gives labels alone; confidence needs one exported without --whole")
    if required and not isinstance(model, Segmenter):
        raise InputError(f"{path}: is a run, which has no estimator of Dice: `attunet export {path} OUT.onnx --confidence DIR` makes one")
    if required and estimator_of(model) is None:
        raise InputError(f"{path}: {NEEDS_FIT}")


def confidence_file(labels: Path) -> Path:
    """The file of a case's estimates, beside its label map."""
    return labels.with_name(f"{stem_of(labels)}-confidence.json")


def write_tables(folder: Path, label_maps: Iterable[Path], estimator: Estimator, model_sha256: str, names: Sequence[str]) -> int:
    """Writes `confidence.json` and `confidence.csv` of a folder of label maps, from the files beside them; the poorest cases come first.

    Args:
        folder: of the label maps.
        label_maps: below it; those that are not finished are left out.
        estimator: of the model.
        model_sha256: of the artefact.
        names: of the foreground classes.

    Returns:
        The number of cases that are marked.

    Example:
        >>> names = segmenter.classes.foreground  # doctest: +SKIP
        >>> write_tables(out, maps, segmenter.estimator, segmenter.sha256, names)  # doctest: +SKIP
    """
    cases: dict[str, CaseRecord] = {}
    for path in label_maps:
        file = confidence_file(path)
        if path.exists() and file.exists():
            cases[path.relative_to(folder).with_name(stem_of(path)).as_posix()] = cast(CaseRecord, read_json(file).data)
    ordered = dict(sorted(cases.items(), key=lambda case: (not case[1].get("review"), _poorest(case[1]), case[0])))
    content = {"schema": SCHEMA, "model_sha256": model_sha256, "learned": estimator.to_json(), "cases": ordered}
    write_text(folder / "confidence.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_text(folder / "confidence.csv", _table(ordered, names))
    return sum(bool(record.get("review")) for record in ordered.values())


def _poorest(record: CaseRecord) -> float:
    return min((organ["dice"] for organ in record["organs"].values() if organ["dice"] is not None), default=1.0)


def _table(cases: dict[str, CaseRecord], names: Sequence[str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [f"{name} {figure}" for name in names for figure in ("dice", "low", "high")]
    writer.writerow([spreadsheet_cell(cell) for cell in ("case", "review", *columns, "reasons")])
    for case, record in cases.items():
        organs = [record["organs"].get(name, NO_ESTIMATE) for name in names]
        figures = [_figure(figure) for organ in organs for figure in (organ["dice"], organ["low"], organ["high"])]
        reasons = spreadsheet_cell("; ".join(record["reasons"]))
        writer.writerow([spreadsheet_cell(case), "yes" if record["review"] else "no", *figures, reasons])
    return out.getvalue()


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
